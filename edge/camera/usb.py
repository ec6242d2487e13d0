"""What a V4L2 (USB) camera is asked for, and what it says that it delivers.

A camera need not do what it is asked for. What was asked for by name and not done is logged.
"""

import logging
from typing import Final, Protocol

import cv2

from edge.settings import CameraSettings

_log = logging.getLogger(__name__)

_USUAL_SIZE: Final = (640, 480)
_LARGEST_RAW: Final = 640 * 480  # pixels; USB 2 carries 30 uncompressed frames a second of this size, not of more
# Values of the kernel's V4L2_CID_EXPOSURE_AUTO: OpenCV hands them on as they are.
_MANUAL: Final = 1
_APERTURE_PRIORITY: Final = 3
_TOLERANCE: Final = 0.1  # cameras have steps of exposure and of frame rate


class Capture(Protocol):
    """What is used of ``cv2.VideoCapture``."""

    def set(self, propId: int, value: float, /) -> bool:  # noqa: N803  OpenCV's name
        """Ask for a value; returns whether the driver took it."""
        ...

    def get(self, propId: int, /) -> float:  # noqa: N803
        """The present value; 0 or -1 when the camera does not have the property."""
        ...


def configure(capture: Capture, camera: CameraSettings) -> None:
    """Ask a camera for the settings' format, size, frame rate, exposure and white balance."""
    width, height = _USUAL_SIZE if isinstance(camera.size, str) else camera.size
    wanted_format = camera.format
    if wanted_format == "auto" and width * height > _LARGEST_RAW:
        wanted_format = "MJPG"
    if wanted_format != "auto":  # first: the sizes and rates depend on it
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*wanted_format))
    capture.set(cv2.CAP_PROP_FRAME_WIDTH, width)
    capture.set(cv2.CAP_PROP_FRAME_HEIGHT, height)
    if camera.fps:
        capture.set(cv2.CAP_PROP_FPS, camera.fps)
    _set_exposure(capture, camera)
    _set_white_balance(capture, camera)
    for refusal in refusals(capture, camera):
        _log.warning("%s: %s", camera.source, refusal)


def refusals(capture: Capture, camera: CameraSettings) -> list[str]:
    """What the settings ask for by name and the camera does not do, one sentence each."""
    found = []
    given = pixel_format(capture)
    if camera.format not in ("auto", given):
        found.append(f"camera.format: asked for {camera.format}, and the camera gives {given or 'another'}")
    numbers = (
        ("fps", camera.fps, capture.get(cv2.CAP_PROP_FPS)),
        ("exposure_ms", camera.exposure_ms, capture.get(cv2.CAP_PROP_EXPOSURE) / 10),
        ("white_balance", camera.white_balance, capture.get(cv2.CAP_PROP_WB_TEMPERATURE)),
    )
    for key, wanted, granted in numbers:
        if isinstance(wanted, str) or not wanted or abs(granted - wanted) <= _TOLERANCE * wanted:
            continue
        has = f"has {granted:g}" if granted > 0 else "cannot be set"
        found.append(f"camera.{key}: asked for {wanted:g}, and the camera {has}")
    return found


def description(capture: Capture) -> str:
    """What the camera says that it delivers: format and size."""
    width, height = (round(capture.get(key)) for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    return f"{pixel_format(capture) or 'unknown format'} {width}x{height}"


def pixel_format(capture: Capture) -> str:
    """The four letters of the format in which the camera sends its pictures; empty when it is not known."""
    code = int(capture.get(cv2.CAP_PROP_FOURCC))
    letters = "".join(chr(code >> shift & 0xFF) for shift in (0, 8, 16, 24)) if code > 0 else ""
    return letters.strip() if letters.isprintable() else ""


def _set_exposure(capture: Capture, camera: CameraSettings) -> None:
    if camera.exposure_ms == "auto":
        capture.set(cv2.CAP_PROP_AUTO_EXPOSURE, _APERTURE_PRIORITY)
    elif camera.exposure_ms != "keep":
        capture.set(cv2.CAP_PROP_AUTO_EXPOSURE, _MANUAL)
        capture.set(cv2.CAP_PROP_EXPOSURE, round(camera.exposure_ms * 10))  # in units of 0.1 ms


def _set_white_balance(capture: Capture, camera: CameraSettings) -> None:
    if camera.white_balance == "auto":
        capture.set(cv2.CAP_PROP_AUTO_WB, 1)
    elif camera.white_balance != "keep":
        capture.set(cv2.CAP_PROP_AUTO_WB, 0)
        capture.set(cv2.CAP_PROP_WB_TEMPERATURE, camera.white_balance)
