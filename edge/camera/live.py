"""Live cameras: the newest frame wins, and a camera that shows nothing new raises CameraStalled.

A camera can hang while it is opened, read or closed. So one daemon thread does all three, and its frames are waited for
with a time limit. A thread that hangs cannot be ended: the process has to exit without it
(edge.system.shutdown.exit_if_camera_hangs).
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final, Protocol

import numpy as np

from edge.camera.memory_guard import CHECK_SECONDS, MemoryGuard
from edge.errors import CameraStalled, SourceError
from edge.records import Frame, Gray, Picture
from edge.system.shutdown import AbandonableThread

_OPEN_SECONDS: Final = 30.0  # importing picamera2 from a slow SD card alone takes up to ten
_CLOSE_SECONDS: Final = 1.0
_CLOSE_WAITS: Final = 10

Clock = Callable[[], float]


class Device(Protocol):
    """An open camera. All its methods are called in one thread.

    ``description`` is what it says that it delivers, empty when it says nothing.
    """

    description: str

    def read(self) -> Picture:
        """Wait for the next picture, in memory that the caller may keep.

        Raises SourceError when there are no more.
        """
        ...

    def close(self) -> None:
        """Release the camera."""
        ...


class LatestFrame:
    """A one-frame buffer between the thread that reads a camera and the one that uses its frames. The newest wins.

    ``dropped`` counts the frames that were replaced before they were taken; ``error`` is why no more will come.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self.error: SourceError | None = None
        self._frame: Frame | None = None
        self._changed = threading.Condition()

    def put(self, frame: Frame) -> None:
        """Store a frame, in place of one that was not taken."""
        with self._changed:
            self.dropped += self._frame is not None
            self._frame = frame
            self._changed.notify()

    def fail(self, error: SourceError) -> None:
        """Store the reason why no more frames will come."""
        with self._changed:
            self.error = error
            self._changed.notify()

    def take(self, seconds: float) -> Frame | None:
        """Wait up to ``seconds`` for a frame. Returns None without one. Raises ``error`` after the last frame."""
        with self._changed:
            self._changed.wait_for(lambda: self._frame or self.error, seconds)
            frame, self._frame = self._frame, None
            if frame is None and self.error:
                raise self.error
            return frame


class StallDetector:
    """Measures how long a camera has shown nothing new: no picture, or the same picture bit by bit.

    The noise of a real sensor makes any two pictures differ, even of a still scene. A repeated one was not captured.
    ``seconds`` is how long that may last; ``repeats`` counts the repetitions of the last picture.
    """

    def __init__(self, seconds: float, clock: Clock) -> None:
        self.repeats = 0
        self._seconds = seconds
        self._clock = clock
        self._picture: Gray | None = None
        self._since = clock()

    def start(self) -> None:
        """Start the time limit now."""
        self._since = self._clock()

    def add(self, picture: Gray) -> None:
        """Compare a picture with the one before it; a new one restarts the time limit."""
        if self._picture is not None and _are_equal(self._picture, picture):
            self.repeats += 1
            return
        self.repeats = 0
        self._picture = picture
        self._since = self._clock()

    def seconds_left(self) -> float:
        """Seconds until the camera counts as stalled; zero or negative when it does."""
        return self._since + self._seconds - self._clock()


def _are_equal(one: Gray, other: Gray) -> bool:
    # Every eighth row is enough for nearly all different pictures, at an eighth of the cost.
    return one.shape == other.shape and np.array_equal(one[::8], other[::8]) and np.array_equal(one, other)


class LiveSource:
    """A camera that is opened, and then read in the background; messages call it ``name``.

    ``open_device`` is called in the reading thread. Raises what it raises, and SourceError when it hangs. ``waiting``
    is called about every 0.1 seconds, in the caller's thread, while the camera is opened or its next frame awaited.
    """

    live = True

    def __init__(
        self,
        open_device: Callable[[], Device],
        name: str,
        stall_seconds: float,
        clock: Clock = time.monotonic,
        *,
        memory: MemoryGuard | None = None,
        waiting: Callable[[], object] = lambda: None,
    ) -> None:
        self._name = name
        self._stall_seconds = stall_seconds
        self._clock = clock
        self._newest = LatestFrame()
        self._stall_detector = StallDetector(stall_seconds, clock)
        self._memory = memory or MemoryGuard(name)
        self._waiting = waiting
        self._close_seconds = _CLOSE_SECONDS
        self._reader = _Reader(name, open_device, self._put, self._newest.fail)
        self._reader.start()
        try:
            self._wait_until_open()
        except SourceError:
            self._reader.stop.set()
            raise
        if self._newest.error:
            raise self._newest.error
        self._stall_detector.start()

    @property
    def dropped(self) -> int:
        """How many frames were replaced by newer ones before they were taken."""
        return self._newest.dropped

    @property
    def description(self) -> str:
        """What the camera says that it delivers; empty when it says nothing."""
        return self._reader.description

    def frames(self) -> Iterator[Frame]:
        """Yield the newest frame, without end; time starts at the first call.

        Raises CameraStalled when nothing new comes, and SourceError when the camera ends.
        """
        started = self._clock()
        self._memory.start()
        while (left := self._stall_detector.seconds_left()) > 0:
            frame = self._newest.take(min(left, CHECK_SECONDS))
            if frame:
                yield replace(frame, time=max(0.0, frame.time - started))
                self._memory.start()
            else:
                self._wait_on()
        repeated = (
            f", only the last one again {self._stall_detector.repeats} times" if self._stall_detector.repeats else ""
        )
        raise CameraStalled(
            f"{self._name}: the camera has stalled: no new picture in {self._stall_seconds:g} s{repeated}"
        )

    def close(self) -> None:
        """Release the camera; one that hangs is given up after a second."""
        self._reader.stop.set()
        for _ in range(_CLOSE_WAITS):  # if the whole process is stopped meanwhile, only one of the waits is over
            self._reader.join(self._close_seconds / _CLOSE_WAITS)

    def _wait_until_open(self) -> None:
        deadline = self._clock() + _OPEN_SECONDS
        while not self._reader.opened.wait(CHECK_SECONDS):
            self._wait_on()
            if self._clock() >= deadline:
                raise SourceError(f"{self._name}: did not open within {_OPEN_SECONDS:g} s. Is the camera in order?")

    def _wait_on(self) -> None:
        self._waiting()
        try:
            self._memory.check()
        except SourceError:
            self._close_seconds = 0.0  # it would go on growing; only the end of this process stops it
            raise

    def _put(self, picture: Picture) -> None:
        self._stall_detector.add(picture.gray)
        self._newest.put(Frame(picture.gray, self._clock(), picture.half))


class _Reader(AbandonableThread):
    """The thread that makes every call to the camera. ``opened`` is set once opening has succeeded or failed."""

    def __init__(
        self,
        camera: str,
        open_device: Callable[[], Device],
        put: Callable[[Picture], None],
        fail: Callable[[SourceError], None],
    ) -> None:
        super().__init__("camera")
        self._camera = camera
        self.description = ""
        self.opened = threading.Event()
        self.stop = threading.Event()
        self._open_device = open_device
        self._put = put
        self._fail = fail

    def run(self) -> None:
        reason = SourceError(f"{self._camera}: reading it failed unexpectedly; see the traceback")
        try:
            with contextlib.closing(self._open_device()) as device:
                self.description = device.description
                self.opened.set()
                while not self.stop.is_set():
                    self._put(device.read())
        except SourceError as error:
            reason = error
        finally:  # the waiting thread must not wait longer, even after a bug
            self._fail(reason)
            self.opened.set()
