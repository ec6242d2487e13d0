"""Raspberry Pi cameras, read by picamera2: the luma of two streams.

The camera's processor scales each picture twice, without any time of the CPU. The main stream has the pixels that faces
are cut from. The second one, which picamera2 calls lores, has half the width and height: the first halving that
the search needs, and would otherwise compute (edge.vision.pyramid).
"""

import contextlib
import logging
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge.errors import SourceError
from edge.records import Gray, Picture
from edge.settings import CameraSettings

_log = logging.getLogger(__name__)

_USUAL_SIZE: Final = (1280, 960)
_BUFFERS: Final = 4  # as many as picamera2 keeps for its own preview; its six for video wait for encoders

_LUMA_FIRST: Final = frozenset(
    {"YUV420", "YVU420", "NV12", "NV21", "YUV422", "YVU422", "NV16", "NV61", "YUV444", "YVU444", "NV24", "NV42", "R8"}
)
"""libcamera's names of the 8-bit formats whose first plane is luma only."""

_PICAMERA2_MISSING: Final = (
    "picamera2 cannot be imported ({}). Install it with apt, not with pip: sudo apt install -y --no-install-recommends "
    "python3-picamera2. fer-edge's virtual environment must see it: python3 -m venv --system-site-packages ..."
)

_PICAMERA2_INCOMPATIBLE: Final = (
    "picamera2 cannot be imported ({}): Raspberry Pi OS built it for another numpy than the {} of fer-edge's virtual "
    "environment. On Bookworm: pip install 'numpy<2' 'opencv-python-headless<4.12'"
)


def open_picamera2(number: int, camera: CameraSettings) -> "Picamera2Device":
    """Open a Raspberry Pi camera by number. Raises SourceError when picamera2 is missing, and as the device does."""
    return Picamera2Device(number, _USUAL_SIZE if isinstance(camera.size, str) else camera.size, *_import_picamera2())


class _Stream(NamedTuple):
    """A stream as the camera gives it: picamera2's name, width and height, format, and bytes in a row."""

    name: str
    size: tuple[int, int]
    pixel_format: str
    stride: int


class Picamera2Device:
    """A Raspberry Pi camera by number.

    ``size`` is the width and height to ask for; the camera may give the nearest that it can. ``libcamera`` and
    ``picamera2`` are the modules of these names. Raises SourceError when there is no such camera, or when it will not
    give full-range luma.
    """

    def __init__(self, number: int, size: tuple[int, int], libcamera: Any, picamera2: Any) -> None:
        self._name = f"picamera2:{number}"
        self._libcamera = libcamera
        self._mapped = picamera2.MappedArray
        self._camera = self._open(picamera2.Picamera2, number)
        with contextlib.ExitStack() as undo:
            undo.callback(self._camera.close)
            try:
                self._streams = self._configure(size)
                self._camera.start()
            except RuntimeError as error:
                raise SourceError(f"{self._name}: cannot be started: {error}") from error
            undo.pop_all()
        sizes = " and ".join("{}x{}".format(*stream.size) for stream in self._streams)
        self.description = f"{self._streams[0].pixel_format} {sizes}"

    def read(self) -> Picture:
        """Wait for the next picture without a time limit."""
        request = self._camera.capture_request()
        try:
            return Picture(*(self._copy(request, stream) for stream in self._streams))
        finally:
            request.release()

    def close(self) -> None:
        """Stop and release the camera."""
        self._camera.close()

    def _copy(self, request: Any, stream: _Stream) -> Gray:
        """The luma of one stream of a request, whose buffers go back to the camera."""
        with self._mapped(request, stream.name, reshape=False, write=False) as mapped:
            return luma(mapped.array, stream.size, stream.stride).copy()

    def _open(self, camera: Any, number: int) -> Any:
        cameras = [info.get("Model", info["Id"]) for info in camera.global_camera_info()]
        if number >= len(cameras):
            raise SourceError(
                f"{self._name}: no such camera (cameras here: {', '.join(cameras) or 'none'}). "
                "Check the cable; rpicam-hello --list-cameras lists the cameras."
            )
        try:
            return camera(number)
        except RuntimeError as error:
            raise SourceError(f"{self._name}: cannot be opened: {error}. Is another program using it?") from error

    def _configure(self, size: tuple[int, int]) -> list[_Stream]:
        """Ask for pictures and their halves; of a camera that has no such halves, for the pictures alone."""
        width, height = (length // 4 * 4 for length in size)  # YUV 4:2:0 has even sides, and its half too
        if self._has_two_streams():
            main, lores = self._ask({"main": (width, height), "lores": (width // 2, height // 2)})
            if lores.size == (main.size[0] // 2, main.size[1] // 2):
                return [main, lores]
        streams = self._ask({"main": (width, height)})
        _log.warning(
            "%s: the camera gives pictures of %dx%d, and none of half that size beside them. fer-edge halves each "
            "picture itself, which takes a little more time; another camera.size may avoid it",
            self._name,
            *streams[0].size,
        )
        return streams

    def _has_two_streams(self) -> bool:
        """Whether the camera can give two streams at once. picamera2 does not ask, and fails without a reason."""
        viewfinder = self._libcamera.StreamRole.Viewfinder
        offered = self._camera.camera.generate_configuration([viewfinder, viewfinder])
        return offered is not None and offered.size >= 2

    def _ask(self, sizes: dict[str, tuple[int, int]]) -> list[_Stream]:
        """Configure streams by picamera2's names; returns what the camera gives, in the same order."""
        space = self._libcamera.ColorSpace
        streams = {name: {"format": "YUV420", "size": size} for name, size in sizes.items()}
        self._camera.configure(
            self._camera.create_video_configuration(
                **streams, buffer_count=_BUFFERS, colour_space=space.Sycc(), display=None, encode=None
            )
        )
        granted = self._camera.camera_configuration()
        for index, name in enumerate(sizes):  # the order in which picamera2 configures them
            # camera_configuration() replaces the colour space by a well-known one, whatever its range: ask libcamera.
            colours = self._camera.libcamera_config.at(index).color_space
            require_full_range(self._name, colours is not None and colours.range == space.Range.Full, str(colours))
            require_luma(self._name, granted[name]["format"])
        return [
            _Stream(name, granted[name]["size"], granted[name]["format"], granted[name]["stride"]) for name in sizes
        ]


def _import_picamera2() -> tuple[Any, Any]:
    """The modules libcamera and picamera2."""
    try:
        # apt installs them, and only on a Raspberry Pi.
        import libcamera  # noqa: PLC0415
        import picamera2  # noqa: PLC0415
    except ImportError as error:
        raise SourceError(_PICAMERA2_MISSING.format(error)) from error
    except ValueError as error:  # "numpy.dtype size changed": picamera2 issues 1088, 1170
        raise SourceError(_PICAMERA2_INCOMPATIBLE.format(error, np.__version__)) from error
    return libcamera, picamera2


def luma(buffer: NDArray[np.uint8], size: tuple[int, int], stride: int) -> Gray:
    """A view of the first plane of a camera's buffer, ``(height, width)`` uint8.

    ``size`` is width and height; a row has ``stride`` bytes, of which the first ``width`` are pixels.
    """
    width, height = size
    return buffer.reshape(-1)[: height * stride].reshape(height, stride)[:, :width]


def require_full_range(name: str, full: bool, colour_space: str) -> None:
    """Raise SourceError unless black is 0 and white is 255, as in the pictures that the network was trained on."""
    if not full:
        raise SourceError(
            f"{name}: the camera gives limited-range pictures ({colour_space}) although full range (sYCC) was asked "
            "for. They are paler than those that the model was trained on. Update libcamera, or use another source."
        )


def require_luma(name: str, pixel_format: str) -> None:
    """Raise SourceError unless the first plane of a libcamera format is luma."""
    if pixel_format not in _LUMA_FIRST:
        raise SourceError(
            f"{name}: the camera gives {pixel_format}, which has no separate luma plane. "
            "Open a USB camera as /dev/video0 instead."
        )
