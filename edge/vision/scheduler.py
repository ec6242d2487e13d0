"""Whose turn it is to be classified: every face at a chosen rate, and not all of them in the same frame."""

import math
from collections.abc import Sequence


class ClassificationScheduler:
    """Remembers when each face was last looked at. Times are in seconds of the source."""

    def __init__(self, rate: float) -> None:
        self._every = 1 / rate
        self._last: dict[int, float] = {}
        self._before = -math.inf

    def choose(self, ids: Sequence[int], now: float) -> list[int]:
        """Those of ``ids`` to look at in the frame of time ``now``, the longest waiting first."""
        between, self._before = now - self._before, now
        self._last = {one: self._last.get(one, -math.inf) for one in ids}
        # Half a frame early is nearer to the rate than half a frame late.
        due = [one for one in ids if now - self._last[one] >= self._every - min(between / 2, self._every)]
        due.sort(key=lambda one: self._last[one])
        fair = math.ceil(len(ids) * min(1.0, between / self._every) - 1e-6)
        chosen = due[: max(1, fair)]
        for one in chosen:
            self._last[one] = now
        return chosen
