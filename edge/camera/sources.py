"""Sources of frames: the built-in demo, a video file, a folder of pictures, or a live camera (edge.camera.live).

Every source yields grey frames with a time. A file's frames have media time and come as fast as they are asked for. A
camera's frames have the time at which they were captured.
"""

import contextlib
import functools
import logging
import os
import time
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Final, Protocol

import cv2
import msgspec
import numpy as np

from edge.camera.address import is_stream, require_known_scheme, safe_source
from edge.camera.devices import open_stream, open_v4l2, to_gray
from edge.camera.frame_size import decode_sparingly, require_stated_size
from edge.camera.live import Device, LiveSource
from edge.camera.memory_guard import OPENING_CAMERA, OPENING_STREAM, MemoryGuard
from edge.camera.picture_file import FRAME_MEMORY, PICTURES, read_gray
from edge.camera.raspberry_pi import open_picamera2
from edge.errors import SourceError
from edge.records import Frame, Gray
from edge.settings import CameraSettings, Settings
from edge.system.memory_budget import memory_budget
from edge.untrusted_file import is_char_device, is_file, is_folder, is_forbidden

_log = logging.getLogger(__name__)

_DEMO_SIZE: Final = (640, 480)
_DEMO_FPS: Final = 25
_DEMO_SECONDS: Final = 10.0

_ROTATIONS: Final = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}

_HIGHEST_FPS: Final = 240.0  # containers without a frame rate state their tick rate instead, such as 90,000
_STEP_BACK_SECONDS: Final = 1.0  # frames that are slightly out of order are no step back
_LONGEST_STEP_SECONDS: Final = 3600.0  # recordings by motion have gaps; a damaged file states centuries
_STANDING_FRAMES: Final = 10
_DECODER_MEMORY: Final = 48 * 2**20  # bytes
_DECODER_BYTES_A_PIXEL: Final = 48  # H.264 may keep 16 frames of 1.5 bytes, and each thread another


class Source(Protocol):
    """A stream of frames."""

    @property
    def live(self) -> bool:
        """Whether frames come in real time, from a camera or a stream."""
        ...

    @property
    def dropped(self) -> int:
        """How many frames of a live source were replaced by newer ones before they were taken."""
        ...

    @property
    def description(self) -> str:
        """What a camera says that it delivers; empty for other sources."""
        ...

    def frames(self) -> Iterator[Frame]:
        """Yield frames until the source ends. Raises SourceError when it fails, CameraStalled when it hangs."""
        ...

    def close(self) -> None:
        """Release the source; returns within about a second, even when it hangs."""
        ...


def open_source(
    camera: CameraSettings, *, bytes_a_pixel: int = 0, waiting: Callable[[], object] = lambda: None
) -> Source:
    """Open the source that the settings name. Raises SourceError, which says what to do, when it cannot be opened.

    While a video is open, this process's memory is bounded. ``bytes_a_pixel`` is what the caller needs for a frame,
    beyond what fer-edge itself needs. ``waiting`` is called again and again while a live camera is waited for.
    """
    source = _open(camera, bytes_a_pixel, waiting)
    return RotatedSource(source, camera) if camera.rotation or camera.mirror else source


def _open(camera: CameraSettings, bytes_a_pixel: int, waiting: Callable[[], object]) -> Source:
    name = camera.source
    path = Path(name)
    if name == "demo":
        return DemoSource()
    open_device = _live_device(camera)
    if open_device:
        _require_utf8(name)
        memory = MemoryGuard(safe_source(name), OPENING_STREAM if is_stream(name) else OPENING_CAMERA)
        return LiveSource(open_device, safe_source(name), camera.stall_seconds, memory=memory, waiting=waiting)
    if is_forbidden(path):
        raise SourceError(f"source {safe_source(name)!r}: this user may not read it, or not a folder that leads to it")
    if is_folder(path):
        return FolderSource(path, camera.folder_fps)
    if is_file(path):
        _require_utf8(name)
        return VideoSource(path, bytes_a_pixel)
    require_known_scheme(name)
    raise SourceError(
        f"source {safe_source(name)!r}: no such file, folder or device. "
        "Give demo, a video, a folder, /dev/video0, picamera2 or a stream's address."
    )


def _require_utf8(name: str) -> None:
    """Raise SourceError for the name of a file that OpenCV, which takes names as UTF-8, would crash with."""
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise SourceError(f"source {name!r}: this name is not UTF-8. Rename it, or make a link to it") from error


def with_source(settings: Settings, source: str | None) -> Settings:
    """The settings with the source of the command line, if it gives one."""
    if source is None:
        return settings
    return msgspec.structs.replace(settings, camera=msgspec.structs.replace(settings.camera, source=source))


def is_live(camera: CameraSettings) -> bool:
    """Whether the settings name a camera or a stream, and not files."""
    return _live_device(camera) is not None


def _live_device(camera: CameraSettings) -> Callable[[], Device] | None:
    """The function that opens the live camera of the settings; None when they name something else."""
    name = camera.source
    kind, _, number = name.partition(":")
    if kind == "picamera2":
        if number and not number.isdecimal():
            raise SourceError(f"source {safe_source(name)!r}: give picamera2, or picamera2:1 for the second camera")
        return functools.partial(open_picamera2, int(number or 0), camera)
    if is_stream(name):
        return functools.partial(open_stream, camera)
    if name.startswith("/dev/") or is_char_device(Path(name)):
        return functools.partial(open_v4l2, camera)
    return None


class DemoSource:
    """Ten seconds of 640x480 video, rendered in memory: a view that pans over a portrait and zooms into it."""

    live = False
    dropped = 0
    description = ""

    # Each row: the second, and the view's centre x, centre y and width in fractions of the portrait's size.
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
            seconds = number / _DEMO_FPS
            yield Frame(self._view(seconds), seconds)

    def close(self) -> None:
        """There is nothing to release."""

    def _view(self, seconds: float) -> Gray:
        x, y, part = (float(np.interp(seconds, self._PATH[:, 0], self._PATH[:, column])) for column in (1, 2, 3))
        height, width = self._portrait.shape
        view_width = part * width
        view_height = view_width * _DEMO_SIZE[1] / _DEMO_SIZE[0]
        left = np.clip(x * width - view_width / 2, 0, width - view_width)
        top = np.clip(y * height - view_height / 2, 0, height - view_height)
        scale = _DEMO_SIZE[0] / view_width
        matrix = np.array([[scale, 0, -left * scale], [0, scale, -top * scale]])
        return np.asarray(cv2.warpAffine(self._portrait, matrix, _DEMO_SIZE, borderMode=cv2.BORDER_REPLICATE), np.uint8)


class FolderSource:
    """The pictures of a folder in the order of their names, at ``fps`` frames a second."""

    live = False
    dropped = 0
    description = ""

    def __init__(self, folder: Path, fps: float) -> None:
        try:
            self._files = sorted(file for file in folder.iterdir() if file.suffix.lower() in PICTURES)
        except OSError as error:
            raise SourceError(f"{folder}: cannot be read: {error.strerror}") from error
        self._fps = fps
        if not self._files:
            raise SourceError(f"{folder}: no pictures in it ({', '.join(sorted(PICTURES))})")

    def frames(self) -> Iterator[Frame]:
        """Yield the readable pictures; log and skip the others."""
        readable = 0
        for number, file in enumerate(self._files):
            try:
                gray = read_gray(file, FRAME_MEMORY)
            except SourceError as error:
                _log.warning("skipped: %s", error)
                continue
            readable += 1
            yield Frame(gray, number / self._fps)
        if not readable:
            raise SourceError(f"{self._files[0].parent}: none of its {len(self._files)} pictures can be decoded")

    def close(self) -> None:
        """There is nothing to release."""


class MediaTime:
    """The time of a file's frames, which never decreases, whatever time the container states.

    A frame without a time of its own comes ``1 / fps`` after the one before. When the time steps back, as where two
    files were joined, or an hour forward, it goes on from there. Both are logged once.
    """

    def __init__(self, file: Path, fps: float) -> None:
        self._file = file
        self._fps = fps if 1 <= fps <= _HIGHEST_FPS else _DEMO_FPS
        self._offset = self._seconds = 0.0
        self._stated: float | None = None
        self._standing = 0
        self._stepped = False

    def of_frame(self, stated: float) -> float:
        """The seconds of the next frame, for which the container states ``stated``."""
        if self._stated is None:
            self._start(stated)
        elif stated in (0.0, self._stated):
            self._stand()
        elif not -_STEP_BACK_SECONDS <= self._offset + stated - self._seconds <= _LONGEST_STEP_SECONDS:
            self._step(stated)
        else:
            self._standing = 0
            self._seconds = max(self._seconds, self._offset + stated)
        self._stated = stated
        return self._seconds

    def _start(self, stated: float) -> None:
        if 0 <= stated <= _LONGEST_STEP_SECONDS:
            self._seconds = stated
        else:
            self._offset = -stated

    def _stand(self) -> None:
        self._seconds += 1 / self._fps
        self._standing += 1
        if self._standing == _STANDING_FRAMES:  # the last few frames of some containers have none, which is no fault
            _log.warning("%s: its frames have no time; counting %g frames a second", self._file, self._fps)

    def _step(self, stated: float) -> None:
        way = "back" if self._offset + stated < self._seconds else "more than an hour forward"
        self._seconds += 1 / self._fps
        self._offset = self._seconds - stated
        self._standing = 0
        if not self._stepped:
            self._stepped = True
            _log.warning("%s: its time steps %s after %.1f s; going on from there", self._file, way, self._seconds)


class VideoSource:
    """A video file. Its frames have media time."""

    live = False
    dropped = 0
    description = ""

    def __init__(self, file: Path, bytes_a_pixel: int = 0) -> None:
        self._file = file
        self._capture = cv2.VideoCapture(str(file.absolute()))  # FFmpeg takes 10:00:05.mp4 for a protocol named 10
        if not self._capture.isOpened():
            raise SourceError(f"{file}: not a video that OpenCV can open")
        pixels = require_stated_size(self._capture, str(file))
        decode_sparingly(self._capture, pixels, str(file))
        # Its frames may be larger than it states. Each thread of the decoder has a stack of 8 MB that it hardly uses.
        memory = _DECODER_MEMORY + pixels * (_DECODER_BYTES_A_PIXEL + bytes_a_pixel) + (os.cpu_count() or 1) * 2**23
        self._limited = contextlib.ExitStack()
        self._limited.enter_context(memory_budget(memory))

    def frames(self) -> Iterator[Frame]:
        """Yield every frame of the file."""
        number = 0
        time_of = MediaTime(self._file, self._capture.get(cv2.CAP_PROP_FPS))
        while (gray := self._next()) is not None:
            yield Frame(gray, time_of.of_frame(self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000))
            number += 1
        if not number:
            raise SourceError(f"{self._file}: holds no frame that can be decoded")

    def _next(self) -> Gray | None:
        """The next picture; None at the end. The coloured one, 25 MB of a 4K video, is freed with this call."""
        ok, picture = self._capture.read()
        return to_gray(picture) if ok else None

    def close(self) -> None:
        """Close the file."""
        self._capture.release()
        self._limited.close()


def upright(gray: Gray, camera: CameraSettings) -> Gray:
    """The picture rotated and then mirrored as the settings say.

    It is a copy: of a view, OpenCV would make another one in each call, and slowly.
    """
    rotated = cv2.rotate(gray, _ROTATIONS[camera.rotation]) if camera.rotation else gray
    return np.asarray(cv2.flip(rotated, 1) if camera.mirror else rotated, np.uint8)


class RotatedSource:
    """Another source, whose pictures are rotated and mirrored as the settings say."""

    def __init__(self, source: Source, camera: CameraSettings) -> None:
        self._source = source
        self._camera = camera

    @property
    def live(self) -> bool:
        """As the other source's."""
        return self._source.live

    @property
    def dropped(self) -> int:
        """As the other source's."""
        return self._source.dropped

    @property
    def description(self) -> str:
        """As the other source's."""
        return self._source.description

    def frames(self) -> Iterator[Frame]:
        """Yield the other source's frames, rotated and mirrored."""
        for frame in self._source.frames():
            half = None if frame.half is None else upright(frame.half, self._camera)
            yield Frame(upright(frame.gray, self._camera), frame.time, half)

    def close(self) -> None:
        """Release the other source."""
        self._source.close()


def paced(frames: Iterator[Frame], wait: Callable[[float], object]) -> Iterator[Frame]:
    """Delay a file's frames until their media time, as if they came from a camera.

    ``wait`` waits for so many seconds; it may return earlier, when the program ends.
    """
    started = time.monotonic()
    for frame in frames:
        wait(max(0.0, started + frame.time - time.monotonic()))
        yield frame
