"""LiveSource cameras: the newest frame wins, and a camera that shows nothing new ends the stream with CameraStalled.

A camera can hang in any call: opening, reading, even letting go of it. So all three are made in one daemon thread, and
whoever waits for its frames waits with a limit. A thread that hangs cannot be ended: the process has to end without it
(edge.system.shutdown.exit_if_camera_hangs).
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final, Protocol

import numpy as np

from edge.errors import CameraStalled, SourceError
from edge.records import Frame, Gray
from edge.system.shutdown import AbandonableThread

_OPEN_SECONDS: Final = 30.0  # importing picamera2 from a slow SD card alone takes up to ten
_CLOSE_SECONDS: Final = 1.0

Clock = Callable[[], float]


class Device(Protocol):
    """An opened camera, used from one thread."""

    def read(self) -> Gray:
        """Wait for the next picture, in memory that the caller may keep. Raises SourceError when there is none."""
        ...

    def close(self) -> None:
        """Let go of the camera."""
        ...


class LatestFrame:
    """A buffer for one frame between the thread that reads a camera and the one that wants pictures: newest wins.

    ``dropped`` counts the frames that were replaced before anybody took them; ``error`` says why no more will come.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self.error: SourceError | None = None
        self._frame: Frame | None = None
        self._changed = threading.Condition()

    def put(self, frame: Frame) -> None:
        """Keep this frame instead of one that nobody took."""
        with self._changed:
            self.dropped += self._frame is not None
            self._frame = frame
            self._changed.notify()

    def fail(self, error: SourceError) -> None:
        """Say why no more frames come."""
        with self._changed:
            self.error = error
            self._changed.notify()

    def take(self, seconds: float) -> Frame | None:
        """Wait up to ``seconds`` for a frame; the last one is given before ``error`` is raised."""
        with self._changed:
            self._changed.wait_for(lambda: self._frame or self.error, seconds)
            frame, self._frame = self._frame, None
            if frame is None and self.error:
                raise self.error
            return frame


class StallDetector:
    """Knows for how long a camera has shown nothing new: no frame, or the same picture bit by bit, again and again.

    The noise of a real sensor makes two pictures of even a still scene differ: one that repeats was not captured.
    """

    def __init__(self, seconds: float, clock: Clock) -> None:
        self.repeats = 0
        self._seconds = seconds
        self._clock = clock
        self._picture: Gray | None = None
        self._since = clock()

    def begin(self) -> None:
        """From now on the camera is expected to show something new."""
        self._since = self._clock()

    def saw(self, picture: Gray) -> None:
        """Compare a picture with the one before it."""
        if self._picture is not None and _same(self._picture, picture):
            self.repeats += 1
            return
        self.repeats = 0
        self._picture = picture
        self._since = self._clock()

    def left(self) -> float:
        """Seconds until the camera counts as stalled; not positive when it does."""
        return self._since + self._seconds - self._clock()


def _same(one: Gray, other: Gray) -> bool:
    # Every eighth row tells nearly all different pictures apart at an eighth of the cost.
    return one.shape == other.shape and np.array_equal(one[::8], other[::8]) and np.array_equal(one, other)


class LiveSource:
    """A camera that is read in the background from now on; ``name`` is what messages call it.

    ``opening`` is called in the reading thread. Raises what it raises, and SourceError when it hangs.
    """

    live = True

    def __init__(
        self,
        opening: Callable[[], Device],
        name: str,
        stall_seconds: float,
        clock: Clock = time.monotonic,
        open_seconds: float = _OPEN_SECONDS,
    ) -> None:
        self._name = name
        self._stall_seconds = stall_seconds
        self._clock = clock
        self._newest = LatestFrame()
        self._watch = StallDetector(stall_seconds, clock)
        self._reader = _Reader(name, opening, self._saw, self._newest.fail)
        self._reader.start()
        if not self._reader.opened.wait(open_seconds):
            self._reader.stop.set()
            raise SourceError(f"{name}: did not open within {open_seconds:g} s. Is the camera in order?")
        if self._newest.error:
            raise self._newest.error
        self._watch.begin()

    @property
    def dropped(self) -> int:
        """How many frames came faster than they were wanted."""
        return self._newest.dropped

    def frames(self) -> Iterator[Frame]:
        """Yield the newest frame, for ever; time starts with the first call.

        Raises CameraStalled when nothing new comes, SourceError when the camera says that nothing will.
        """
        started = self._clock()
        while (left := self._watch.left()) > 0:
            frame = self._newest.take(left)
            if frame:
                yield Frame(frame.gray, max(0.0, frame.time - started))
        again = f", only the last one again {self._watch.repeats} times" if self._watch.repeats else ""
        raise CameraStalled(f"{self._name}: the camera has stalled: no new picture in {self._stall_seconds:g} s{again}")

    def close(self) -> None:
        """Let go of the camera; a camera that hangs is left alone after a second."""
        self._reader.stop.set()
        self._reader.join(_CLOSE_SECONDS)

    def _saw(self, picture: Gray) -> None:
        self._watch.saw(picture)
        self._newest.put(Frame(picture, self._clock()))


class _Reader(AbandonableThread):
    """Makes every call to the camera that could hang; ``opened`` is set once opening has succeeded or failed."""

    def __init__(
        self,
        camera: str,
        opening: Callable[[], Device],
        saw: Callable[[Gray], None],
        fail: Callable[[SourceError], None],
    ) -> None:
        super().__init__("camera")
        self._camera = camera
        self.opened = threading.Event()
        self.stop = threading.Event()
        self._opening = opening
        self._saw = saw
        self._fail = fail

    def run(self) -> None:
        ended = SourceError(
            f"{self._camera}: reading it failed in a way that fer-edge does not know; see the traceback"
        )
        try:
            with contextlib.closing(self._opening()) as device:
                self.opened.set()
                while not self.stop.is_set():
                    self._saw(device.read())
        except SourceError as error:
            ended = error
        finally:  # whoever waits is told at once, even of a bug
            self._fail(ended)
            self.opened.set()
