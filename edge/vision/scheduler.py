"""Decides which faces are classified in a frame: each at a chosen rate, and not all of them in the same frame."""

import math
from collections.abc import Sequence
from typing import Final

_FULL_RATE_FACES: Final = 3
"""More faces share the classifications of so many. We estimate that ten at 15 a second take a core of a Pi 4."""


class ClassificationScheduler:
    """Keeps when each face was last classified. Times are in seconds of the source.

    ``rate`` is how often each of a few faces is classified, in hertz.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._last: dict[int, tuple[float, int]] = {}  # when, and as which of the faces of that frame
        self._previous_frame = -math.inf

    def choose(self, ids: Sequence[int], now: float) -> list[int]:
        """Those of ``ids`` to classify in the frame of time ``now``, the longest waiting first."""
        interval, self._previous_frame = now - self._previous_frame, now
        self._last = {face: self._last.get(face, (-math.inf, 0)) for face in ids}
        period = max(1.0, len(ids) / _FULL_RATE_FACES) / self._rate
        # Half a frame early is nearer to the rate than half a frame late.
        earliest = period - min(interval / 2, period)
        due = [face for face in ids if now - self._last[face][0] >= earliest]
        due.sort(key=lambda face: self._last[face])
        fair_share = math.ceil(len(ids) * min(1.0, interval / period) - 1e-6)
        chosen = due[: max(1, fair_share)]
        self._last |= {face: (now, place) for place, face in enumerate(chosen)}
        return chosen
