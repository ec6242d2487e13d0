"""Where frames come from: the built-in demo, a video file, a folder of pictures, or a V4L2 camera.

Every source yields grey frames with the time they stand for. A file's frames carry media time and come as fast as
they are asked for; a camera's carry the time since it was opened.
"""

import logging
import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Final, Protocol

import cv2
import numpy as np

from edge.errors import SourceError
from edge.records import Frame, Gray
from edge.settings import Camera

_log = logging.getLogger(__name__)

PICTURES: Final = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".pgm", ".webp"})

_DEMO_SIZE: Final = (640, 480)
_DEMO_FPS: Final = 25
_DEMO_SECONDS: Final = 10.0


class Source(Protocol):
    """A stream of frames. ``live`` tells whether frames come in real time by themselves."""

    live: bool

    def frames(self) -> Iterator[Frame]:
        """Yield frames until the source ends. Raises SourceError when it fails."""
        ...


def open_source(camera: Camera) -> Source:
    """Open what ``camera.source`` names. Raises SourceError with what to do when it can't be opened."""
    name = camera.source
    path = Path(name)
    if name == "demo":
        return Demo()
    if path.is_dir():
        return Folder(path, camera.folder_fps)
    if path.is_char_device() or name.startswith("/dev/"):
        return V4l2(path)
    if path.is_file():
        return Video(path)
    raise SourceError(f"source {name!r}: no such file, folder or device. Give demo, a video, a folder or /dev/video0.")


def read_gray(file: Path) -> Gray:
    """Read a picture file as full-range luma. Raises SourceError naming the file."""
    try:
        stored = np.frombuffer(file.read_bytes(), np.uint8)
    except OSError as error:
        raise SourceError(f"{file}: cannot be read: {error.strerror}") from error
    picture = cv2.imdecode(stored, cv2.IMREAD_GRAYSCALE) if stored.size else None
    if picture is None:
        raise SourceError(f"{file}: not a picture that OpenCV can decode")
    return np.asarray(picture, np.uint8)


class Demo:
    """Ten seconds of 640x480 video made in memory: a view that wanders over a portrait and zooms into it."""

    live = False

    # second, and of the view: centre x, centre y, width, in fractions of the portrait's size.
    _PATH = np.array(
        [
            (0.0, 0.80, 0.75, 0.40),
            (1.5, 0.80, 0.70, 0.40),
            (3.0, 0.42, 0.36, 0.75),
            (5.0, 0.37, 0.30, 0.50),
            (6.5, 0.42, 0.36, 0.75),
            (9.0, 0.80, 0.70, 0.40),
            (10.0, 0.80, 0.75, 0.40),
        ]
    )

    def __init__(self) -> None:
        with resources.as_file(resources.files("edge") / "demo" / "portrait.jpg") as file:
            self._portrait = read_gray(file)

    def frames(self) -> Iterator[Frame]:
        """Yield the 250 frames."""
        for number in range(int(_DEMO_SECONDS * _DEMO_FPS)):
            at = number / _DEMO_FPS
            yield Frame(self._view(at), at)

    def _view(self, at: float) -> Gray:
        x, y, part = (float(np.interp(at, self._PATH[:, 0], self._PATH[:, column])) for column in (1, 2, 3))
        height, width = self._portrait.shape
        view_width = part * width
        view_height = view_width * _DEMO_SIZE[1] / _DEMO_SIZE[0]
        left = np.clip(x * width - view_width / 2, 0, width - view_width)
        top = np.clip(y * height - view_height / 2, 0, height - view_height)
        scale = _DEMO_SIZE[0] / view_width
        matrix = np.array([[scale, 0, -left * scale], [0, scale, -top * scale]])
        return np.asarray(cv2.warpAffine(self._portrait, matrix, _DEMO_SIZE, borderMode=cv2.BORDER_REPLICATE), np.uint8)


class Folder:
    """The pictures of a folder in the order of their names, ``fps`` of them a second."""

    live = False

    def __init__(self, folder: Path, fps: float) -> None:
        self._files = sorted(file for file in folder.iterdir() if file.suffix.lower() in PICTURES)
        self._fps = fps
        if not self._files:
            raise SourceError(f"{folder}: no pictures in it ({', '.join(sorted(PICTURES))})")

    def frames(self) -> Iterator[Frame]:
        """Yield the readable pictures; an unreadable one is named on stderr and skipped."""
        readable = 0
        for number, file in enumerate(self._files):
            try:
                gray = read_gray(file)
            except SourceError as error:
                _log.warning("skipped: %s", error)
                continue
            readable += 1
            yield Frame(gray, number / self._fps)
        if not readable:
            raise SourceError(f"{self._files[0].parent}: none of its {len(self._files)} pictures can be decoded")


class Video:
    """A video file, in media time."""

    live = False

    def __init__(self, file: Path) -> None:
        self._file = file
        self._capture = cv2.VideoCapture(str(file))
        if not self._capture.isOpened():
            raise SourceError(f"{file}: not a video that OpenCV can open")

    def frames(self) -> Iterator[Frame]:
        """Yield every frame of the file."""
        at, number = 0.0, 0
        while True:
            ok, picture = self._capture.read()
            if not ok:
                break
            # Some containers state no time for their last frames: time must not go back.
            at = max(at, self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
            yield Frame(_luma(picture), at)
            number += 1
        if not number:
            raise SourceError(f"{self._file}: holds no frame that can be decoded")


class V4l2:
    """A V4L2 (USB) camera."""

    live = True

    def __init__(self, device: Path) -> None:
        if not device.exists():
            found = ", ".join(sorted(str(path) for path in Path("/dev").glob("video*"))) or "none"
            raise SourceError(f"{device}: no such camera (video devices here: {found}). Is it plugged in?")
        self._device = device
        self._capture = cv2.VideoCapture(str(device), cv2.CAP_V4L2)
        if not self._capture.isOpened():
            raise SourceError(
                f"{device}: cannot be opened as a camera. Is this user in group video, or another program using it?"
            )

    def frames(self) -> Iterator[Frame]:
        """Yield frames for ever."""
        started = time.monotonic()
        while True:
            ok, picture = self._capture.read()
            if not ok:
                raise SourceError(f"{self._device}: the camera stopped giving frames. Was it unplugged?")
            yield Frame(_luma(picture), time.monotonic() - started)


def _luma(picture: object) -> Gray:
    """Grey of a decoded frame: ``(h, w, 3)`` BGR uint8 to ``(h, w)``."""
    pixels = np.asarray(picture, np.uint8)
    return pixels if pixels.ndim == 2 else np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), np.uint8)


def paced(frames: Iterator[Frame]) -> Iterator[Frame]:
    """Hold a file's frames back until their media time, as if a camera gave them."""
    started = time.monotonic()
    for frame in frames:
        time.sleep(max(0.0, started + frame.time - time.monotonic()))
        yield frame
