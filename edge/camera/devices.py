"""Camera devices: V4L2 cameras, network streams, and Raspberry Pi cameras (picamera2).

Every device returns grey pictures in full-range luma, in memory that belongs to the caller.
"""

import contextlib
import http.client
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.camera.address import safe_source, stream_address
from edge.camera.frame_size import require_stated_size
from edge.camera.http_stream import ask_for_stream, why_refused
from edge.camera.mjpeg import MjpegDevice
from edge.camera.stream_server import checked_certificate, refusal
from edge.camera.usb import configure, description
from edge.errors import SourceError
from edge.records import Gray
from edge.settings import CameraSettings

_CONNECT_SECONDS: Final = 10

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


def to_gray(picture: object) -> Gray:
    """Convert a picture that OpenCV decoded, ``(h, w, 3)`` BGR or ``(h, w)`` grey uint8, to grey."""
    pixels = np.asarray(picture, np.uint8)
    return pixels if pixels.ndim == 2 else np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), np.uint8)


class OpenCvDevice:
    """A camera or stream that OpenCV reads. ``end_message`` is the error when it ends."""

    def __init__(self, capture: cv2.VideoCapture, end_message: str, description: str = "") -> None:
        self._capture = capture
        self._end_message = end_message
        self.description = description

    def read(self) -> Gray:
        """Wait for the next picture, ``(h, w)`` uint8. Raises SourceError when there are no more."""
        ok, picture = self._capture.read()
        if not ok:
            raise SourceError(self._end_message)
        return to_gray(picture)

    def close(self) -> None:
        """Release the camera."""
        self._capture.release()


def open_v4l2(camera: CameraSettings) -> OpenCvDevice:
    """Open a V4L2 (USB) camera. What it delivers may differ from the settings. Raises SourceError."""
    device = Path(camera.source)
    if not device.exists():
        devices = ", ".join(sorted(str(path) for path in Path("/dev").glob("video*"))) or "none"
        raise SourceError(f"{device}: no such camera (video devices here: {devices}). Is it plugged in?")
    capture = cv2.VideoCapture(str(device), cv2.CAP_V4L2)
    if not capture.isOpened():
        raise SourceError(
            f"{device}: cannot be opened as a camera. Is this user in group video, or another program using it?"
        )
    configure(capture, camera)
    return OpenCvDevice(capture, f"{device}: the camera stopped giving frames. Was it unplugged?", description(capture))


def open_stream(camera: CameraSettings) -> OpenCvDevice | MjpegDevice:
    """Connect to a stream. Raises SourceError when it does not start within ten seconds."""
    url = stream_address(camera)
    return _open_mjpeg(camera, url) or _open_with_ffmpeg(camera, url)


def _open_mjpeg(camera: CameraSettings, url: str) -> MjpegDevice | None:
    """The MJPEG stream at an HTTP(S) address; None when there is something else. Raises SourceError."""
    if not url.startswith(("http://", "https://")):
        return None
    try:
        answer = ask_for_stream(camera, url)
    except http.client.HTTPException:  # FFmpeg understands servers whose answers are not quite HTTP
        return None
    if answer.response.headers.get_content_maintype() == "multipart":
        return MjpegDevice(answer, safe_source(url), camera.stall_seconds)
    answer.close()
    return None


def _open_with_ffmpeg(camera: CameraSettings, url: str) -> OpenCvDevice:
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _CONNECT_SECONDS * 1000]
    # The reader of the frames reports a stall first; this later limit only ends the call.
    limits += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, round((camera.stall_seconds + 1) * 1000)]
    with checked_certificate(camera, url):
        capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG, limits)
    if not capture.isOpened():
        raise SourceError(f"{safe_source(url)}: {why_refused(url, refusal(camera, url))}")
    require_stated_size(capture, safe_source(url))
    return OpenCvDevice(capture, f"{safe_source(url)}: the stream ended. Is the server running?")


class Picamera2Device:
    """A Raspberry Pi camera by number, read by picamera2: the luma of its low-resolution stream.

    Raises SourceError when picamera2 is not installed, when there is no such camera, or when it will not give
    full-range luma. ``size`` is ``(width, height)``; the camera may give the nearest that it can.
    """

    description = ""

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
        """Wait for the next picture without a time limit."""
        request = self._camera.capture_request()
        try:
            with self._mapped(request, "lores", reshape=False, write=False) as mapped:
                return luma(mapped.array, self._size, self._stride).copy()  # the buffer is returned to the camera
        finally:
            request.release()

    def close(self) -> None:
        """Stop and release the camera."""
        self._camera.close()

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

    def _start(self, colour_space: Any, size: tuple[int, int]) -> None:
        # picamera2 requires a main stream. It is not read, so it has the smallest format.
        stream = {"format": "YUV420", "size": size}
        try:
            self._camera.configure(
                self._camera.create_video_configuration(
                    main=dict(stream), lores=dict(stream), colour_space=colour_space.Sycc(), display=None, encode=None
                )
            )
            # camera_configuration() replaces the colour space by a well-known one, whatever its range: ask libcamera.
            granted = self._camera.libcamera_config.at(self._camera.lores_index).color_space
            is_full = granted is not None and granted.range == colour_space.Range.Full
            require_full_range(self._name, is_full, str(granted))
            lores = self._camera.camera_configuration()["lores"]
            require_luma(self._name, lores["format"])
            self._size, self._stride = lores["size"], lores["stride"]
            self._camera.start()
        except RuntimeError as error:
            raise SourceError(f"{self._name}: cannot be started: {error}") from error


def _import_picamera2() -> tuple[Any, Any]:
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
