"""How long to wait before the next attempt."""

import random
from collections.abc import Callable


class Backoff:
    """Seconds to wait after failures in a row: random below a limit that doubles, so that many devices spread out.

    "Full jitter" of https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/.
    """

    def __init__(self, first: float = 2.0, longest: float = 60.0, chance: Callable[[], float] = random.random) -> None:
        self._first = first
        self._longest = longest
        self._chance = chance
        self._failures = 0

    def next(self) -> float:
        """Seconds to wait after one more failure."""
        limit = min(self._longest, self._first * 2.0 ** min(self._failures, 30))
        self._failures += 1
        return limit * (0.1 + 0.9 * self._chance())

    def reset(self) -> None:
        """Start again at the first limit, after a success."""
        self._failures = 0
