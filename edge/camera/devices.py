"""What live frames come from: a V4L2 camera, a network stream, or a Raspberry Pi camera by picamera2.

Every device gives grey pictures of its own: full-range luma, in memory that nobody else writes to.
"""

import contextlib
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.errors import SourceError
from edge.records import Gray

_CONNECT_SECONDS: Final = 10

_LUMA_FIRST: Final = frozenset(
    {"YUV420", "YVU420", "NV12", "NV21", "YUV422", "YVU422", "NV16", "NV61", "YUV444", "YVU444", "NV24", "NV42", "R8"}
)
"""libcamera's names of the 8-bit formats whose first plane is luma and nothing else."""

_INSTALL_PICAMERA2: Final = (
    "picamera2 cannot be imported ({}). It comes from apt, not from pip: sudo apt install -y --no-install-recommends "
    "python3-picamera2, and fer-edge's virtual environment must see it: python3 -m venv --system-site-packages ..."
)

_MEND_NUMPY: Final = (
    "picamera2 cannot be imported ({}): Raspberry Pi OS built it for another numpy than the {} of fer-edge's virtual "
    "environment. On Bookworm: pip install 'numpy<2' 'opencv-python-headless<4.12'"
)


def to_gray(picture: object) -> Gray:
    """Grey of a picture that OpenCV decoded: ``(h, w, 3)`` BGR or already grey ``(h, w)``, uint8."""
    pixels = np.asarray(picture, np.uint8)
    return pixels if pixels.ndim == 2 else np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), np.uint8)


class OpenCvDevice:
    """A camera that OpenCV reads."""

    def __init__(self, capture: cv2.VideoCapture, gone: str) -> None:
        self._capture = capture
        self._gone = gone

    def read(self) -> Gray:
        """Wait for the next picture. Raises SourceError when OpenCV says that there is none."""
        ok, picture = self._capture.read()
        if not ok:
            raise SourceError(self._gone)
        return to_gray(picture)

    def close(self) -> None:
        """Let go of the camera."""
        self._capture.release()


def open_v4l2(device: Path, size: tuple[int, int]) -> OpenCvDevice:
    """Open a V4L2 (USB) camera near the wanted ``(width, height)``."""
    if not device.exists():
        found = ", ".join(sorted(str(path) for path in Path("/dev").glob("video*"))) or "none"
        raise SourceError(f"{device}: no such camera (video devices here: {found}). Is it plugged in?")
    capture = cv2.VideoCapture(str(device), cv2.CAP_V4L2)
    if not capture.isOpened():
        raise SourceError(
            f"{device}: cannot be opened as a camera. Is this user in group video, or another program using it?"
        )
    capture.set(cv2.CAP_PROP_FRAME_WIDTH, size[0])
    capture.set(cv2.CAP_PROP_FRAME_HEIGHT, size[1])
    return OpenCvDevice(capture, f"{device}: the camera stopped giving frames. Was it unplugged?")


def open_stream(url: str, stall_seconds: float) -> OpenCvDevice:
    """Connect to an MJPEG or RTSP stream."""
    shown = without_password(url)
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _CONNECT_SECONDS * 1000]
    # A stall is told, as what it is, by whoever waits for frames; this later limit only ends the call.
    limits += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, round((stall_seconds + 1) * 1000)]
    capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG, limits)
    if not capture.isOpened():
        raise SourceError(
            f"{shown}: no video stream within {_CONNECT_SECONDS} s. Is the server running, and the address right?"
        )
    return OpenCvDevice(capture, f"{shown}: the stream ended. Is the server running?")


def without_password(url: str) -> str:
    """The address as messages may show it."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


class Picamera2Device:
    """A Raspberry Pi camera by number, read by picamera2: the luma of its low-resolution stream.

    Raises SourceError when picamera2 is not installed, when there is no such camera, or when it will not give
    full-range luma. ``size`` is ``(width, height)``; the camera may give the nearest that it can.
    """

    def __init__(self, number: int, size: tuple[int, int]) -> None:
        self._name = f"picamera2:{number}"
        libcamera, picamera2 = _import_picamera2()
        self._mapped = picamera2.MappedArray
        self._camera = self._open(picamera2.Picamera2, number)
        with contextlib.ExitStack() as undo:
            undo.callback(self._camera.close)
            self._start(libcamera.ColorSpace, size)
            undo.pop_all()

    def read(self) -> Gray:
        """Wait, for ever if need be, for the next picture."""
        request = self._camera.capture_request()
        try:
            with self._mapped(request, "lores", reshape=False, write=False) as mapped:
                return luma(mapped.array, self._size, self._stride).copy()  # the buffer goes back to the camera
        finally:
            request.release()

    def close(self) -> None:
        """Stop the camera and let go of it."""
        self._camera.close()

    def _open(self, camera: Any, number: int) -> Any:
        found = [info.get("Model", info["Id"]) for info in camera.global_camera_info()]
        if number >= len(found):
            raise SourceError(
                f"{self._name}: no such camera (cameras here: {', '.join(found) or 'none'}). "
                "Check the cable; rpicam-hello --list-cameras shows what is found."
            )
        try:
            return camera(number)
        except RuntimeError as error:
            raise SourceError(f"{self._name}: cannot be opened: {error}. Is another program using it?") from error

    def _start(self, colour_space: Any, size: tuple[int, int]) -> None:
        # picamera2 insists on a main stream. Nobody reads it, so it is in the smallest format.
        stream = {"format": "YUV420", "size": size}
        try:
            self._camera.configure(
                self._camera.create_video_configuration(
                    main=dict(stream), lores=dict(stream), colour_space=colour_space.Sycc(), display=None, encode=None
                )
            )
            # camera_configuration() replaces the colour space by a well-known one, whatever its range: ask libcamera.
            given = self._camera.libcamera_config.at(self._camera.lores_index).color_space
            require_full_range(self._name, given is not None and given.range == colour_space.Range.Full, str(given))
            lores = self._camera.camera_configuration()["lores"]
            require_luma(self._name, lores["format"])
            self._size, self._stride = lores["size"], lores["stride"]
            self._camera.start()
        except RuntimeError as error:
            raise SourceError(f"{self._name}: cannot be started: {error}") from error


def _import_picamera2() -> tuple[Any, Any]:
    try:
        # They come from apt, and are there on a Raspberry Pi only.
        import libcamera  # noqa: PLC0415
        import picamera2  # noqa: PLC0415
    except ImportError as error:
        raise SourceError(_INSTALL_PICAMERA2.format(error)) from error
    except ValueError as error:  # "numpy.dtype size changed": picamera2 issues 1088, 1170
        raise SourceError(_MEND_NUMPY.format(error, np.__version__)) from error
    return libcamera, picamera2


def luma(buffer: NDArray[np.uint8], size: tuple[int, int], stride: int) -> Gray:
    """View of the first plane of a camera's buffer: rows of ``stride`` bytes, of which ``size[0]`` are pixels."""
    width, height = size
    return buffer.reshape(-1)[: height * stride].reshape(height, stride)[:, :width]


def require_full_range(name: str, full: bool, colour_space: str) -> None:
    """Raise SourceError unless black is 0 and white 255: the network was trained on such pictures."""
    if not full:
        raise SourceError(
            f"{name}: the camera gives limited-range pictures ({colour_space}) although full range (sYCC) was asked "
            "for; the model would see them paler than it was trained on. Update libcamera, or use another source."
        )


def require_luma(name: str, pixel_format: str) -> None:
    """Raise SourceError unless the format's first plane is luma."""
    if pixel_format not in _LUMA_FIRST:
        raise SourceError(
            f"{name}: the camera gives {pixel_format}, which has no plane of its own for luma. "
            "A USB camera is better opened as /dev/video0."
        )
