"""Lets the real picamera2 drive libcamera's virtual camera on a PC. Test support: import it before picamera2.

What a PC lacks is the memory of a Raspberry Pi's camera (dma-heap), the DRM preview and DNG writing; they are replaced
by ordinary memory and by nothing. picamera2's own code, libcamera and its virtual camera are the real ones.
"""

import fcntl
import os
import sys
import time
import types
from pathlib import Path
from typing import Any


def _stand_in(name: str, **members: object) -> None:
    module = types.ModuleType(name)
    vars(module).update(members)
    sys.modules[name] = module


class _AnyName(type):
    def __getattr__(cls, name: str) -> str:
        return name


_stand_in("pykms", PixelFormat=_AnyName("PixelFormat", (), {}))
_stand_in("pidng")
_stand_in("pidng.camdefs", Picamera2Camera=object)
_stand_in("pidng.core", PICAM2DNG=object)

import libcamera  # noqa: E402  all four need the stand-ins
from picamera2 import Picamera2, dma_heap  # noqa: E402
from picamera2.allocators import dmaallocator  # noqa: E402
from picamera2.picamera2 import CameraManager  # noqa: E402

HANG = Path("/tmp/work/hang")
"""Once this file exists, the camera gives no more frames and never stops when it is asked to."""


class _Memory:
    """dma-heap's interface on anonymous memory."""

    isValid = True  # noqa: N815

    def alloc(self, name: str, size: int) -> Any:
        descriptor = os.memfd_create(name)
        os.ftruncate(descriptor, size)
        return dma_heap.UniqueFD(descriptor)

    def close(self) -> None:
        pass


class _Fcntl:
    """fcntl for the allocator: ordinary memory needs no DMA_BUF_IOCTL_SYNC, which would fail on it."""

    def ioctl(self, descriptor: int, request: int, argument: object) -> int:
        if request == dmaallocator.DMA_BUF_IOCTL_SYNC:
            return 0
        return int(fcntl.ioctl(descriptor, request, argument))


class _Libcamera:
    """libcamera for the allocator: the virtual camera wants one plane for each plane of NV12, picamera2 gives one."""

    class FrameBuffer:
        Plane = libcamera.FrameBuffer.Plane

        def __new__(cls, planes: list[Any]) -> Any:
            whole = planes[0]
            chroma = cls.Plane()
            chroma.fd, chroma.offset = whole.fd, whole.length * 2 // 3
            chroma.length = whole.length - chroma.offset
            whole.length = chroma.offset
            return libcamera.FrameBuffer([whole, chroma])


def _modes(self: Picamera2) -> list[dict[str, Any]]:
    """The virtual camera has no raw stream to ask for its modes."""
    formats = self.camera.generate_configuration([libcamera.StreamRole.Viewfinder]).at(0).formats
    return [
        {"format": str(name), "size": (size.width, size.height)}
        for name in formats.pixel_formats
        for size in formats.sizes(name)
    ]


_handle_request = CameraManager.handle_request
_stop = Picamera2.stop


def _paced(self: CameraManager, flushid: int | None = None) -> None:
    """Thirty frames a second: the virtual camera completes every request at once."""
    time.sleep(1 / 30)
    if not HANG.exists():
        _handle_request(self, flushid)


def _stop_or_hang(self: Picamera2) -> None:
    while HANG.exists():
        time.sleep(0.1)
    _stop(self)


dmaallocator.DmaHeap = _Memory
dmaallocator.fcntl = _Fcntl()
dmaallocator.libcamera = _Libcamera
Picamera2._get_raw_modes = _modes
Picamera2.stop = _stop_or_hang
CameraManager.handle_request = _paced
