"""Decides which faces are classified in a frame: each at a chosen rate, and not all of them in the same frame."""

import math
from collections.abc import Sequence


class ClassificationScheduler:
    """Keeps when each face was last classified. ``rate`` is in hertz, times are in seconds of the source."""

    def __init__(self, rate: float) -> None:
        self._period = 1 / rate
        self._last: dict[int, float] = {}
        self._previous_frame = -math.inf

    def choose(self, ids: Sequence[int], now: float) -> list[int]:
        """Those of ``ids`` to classify in the frame of time ``now``, the longest waiting first."""
        interval, self._previous_frame = now - self._previous_frame, now
        self._last = {face: self._last.get(face, -math.inf) for face in ids}
        # Half a frame early is nearer to the rate than half a frame late.
        earliest = self._period - min(interval / 2, self._period)
        due = [face for face in ids if now - self._last[face] >= earliest]
        due.sort(key=lambda face: self._last[face])
        fair_share = math.ceil(len(ids) * min(1.0, interval / self._period) - 1e-6)
        chosen = due[: max(1, fair_share)]
        for face in chosen:
            self._last[face] = now
        return chosen
