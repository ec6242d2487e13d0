"""Camera devices that OpenCV reads: V4L2 cameras and network streams. Raspberry Pi cameras: edge.camera.raspberry_pi.

Every device returns grey pictures in full-range luma, in memory that belongs to the caller.
"""

import http.client
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from edge.camera.address import safe_source, stream_address
from edge.camera.frame_size import decode_sparingly, require_stated_size
from edge.camera.http_stream import ask_for_stream, why_refused
from edge.camera.mjpeg import MjpegDevice
from edge.camera.stream_server import checked_certificate, refusal
from edge.camera.usb import configure, description
from edge.errors import SourceError
from edge.records import Gray, Picture
from edge.settings import CameraSettings

_CONNECT_SECONDS: Final = 10


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

    def read(self) -> Picture:
        """Wait for the next picture. Raises SourceError when there are no more."""
        ok, picture = self._capture.read()
        if not ok:
            raise SourceError(self._end_message)
        return Picture(to_gray(picture))

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
    if not url.startswith(("http://", "https://")):
        return _open_with_ffmpeg(camera, url)
    try:
        answer = ask_for_stream(camera, url)
    except http.client.HTTPException:  # FFmpeg understands servers whose answers are not quite HTTP
        return _open_with_ffmpeg(camera, url)
    if answer.content_type.startswith("multipart/"):
        return MjpegDevice(answer, safe_source(url), camera.stall_seconds)
    answer.close()
    return _open_with_ffmpeg(camera, url, answer.content_type)


def _open_with_ffmpeg(camera: CameraSettings, url: str, content_type: str = "") -> OpenCvDevice:
    """``content_type`` is what an HTTP server calls its answer."""
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _CONNECT_SECONDS * 1000]
    # The reader of the frames reports a stall first; this later limit only ends the call.
    limits += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, round((camera.stall_seconds + 1) * 1000)]
    with checked_certificate(camera, url):
        capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG, limits)
    if not capture.isOpened():
        raise SourceError(f"{safe_source(url)}: {why_refused(url, content_type or refusal(camera, url))}")
    decode_sparingly(capture, require_stated_size(capture, safe_source(url)), safe_source(url))
    ended = "the stream ended. Is the server running?"
    if content_type.startswith("image/"):
        ended = f"its server sends a single picture ({content_type}). Give the address of the video stream"
    return OpenCvDevice(capture, f"{safe_source(url)}: {ended}")
