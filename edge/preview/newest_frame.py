"""The newest frame that went through the pipeline, for viewers that are slower than the frame loop."""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from edge.monitoring.last_readings import LastReadings
from edge.monitoring.observer import FrameObserver, LoopStatus
from edge.pipeline import FrameResult
from edge.records import Reading

_FRAMES: Final = 30  # over which the frame rate is averaged


@dataclass(frozen=True)
class SeenFrame:
    """A frame by its ``number``, from 1, and what was last read from each of its faces, by track id.

    ``fps`` is the measured frame rate, 0 while it is not known.
    """

    number: int
    result: FrameResult
    readings: dict[int, Reading]
    fps: float


class NewestFrame(FrameObserver):
    """Keeps the newest frame. The frame loop stores it and goes on: it waits for no viewer, and draws nothing."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._seen: SeenFrame | None = None
        self._last_readings = LastReadings()
        self._times: deque[float] = deque(maxlen=_FRAMES)

    def frame(self, result: FrameResult, status: LoopStatus) -> None:
        """Store a frame in place of the one before."""
        self._times.append(self._clock())
        passed = self._times[-1] - self._times[0]
        fps = (len(self._times) - 1) / passed if passed else 0.0
        readings = self._last_readings.update(result)
        with self._changed:
            number = self._seen.number + 1 if self._seen else 1
            self._seen = SeenFrame(number, result, readings, fps)
            self._changed.notify_all()

    def wait(self, after: int, seconds: float) -> SeenFrame | None:
        """The newest frame, once its number is not ``after``; None when there is none within ``seconds``."""
        with self._changed:
            self._changed.wait_for(lambda: self._seen is not None and self._seen.number != after, seconds)
            return None if self._seen is None or self._seen.number == after else self._seen
