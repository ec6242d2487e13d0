"""Finding the message over which a broker ends the connection, so that it does not hold up all others for ever.

Brokers do that with messages that are too large for them: MQTT 3.1.1 has no other way to say no, and mosquitto 2.0 says
it with a code that MQTT 5 does not allow there, which ends the connection too. Pure: time, in seconds, is passed in.
"""

from collections.abc import Collection, Hashable
from typing import Final

_BLAMED: Final = 3  # a loss that the broker explains by what it got weighs as much as so many that it does not
_ALONE: Final = 3
_GUILTY: Final = 10
_FIRST_HOLD: Final = 600.0
_LONGEST_HOLD: Final = 3600.0
_FORGOTTEN: Final = 600.0


class PoisonMessageDetector:
    """Messages that were under way, again and again, when a connection was lost.

    From some suspicion on, messages have to go one by one (``alone``). One over which connections end even so is held
    back (``held``) for ten minutes, and longer each time, up to an hour.
    """

    def __init__(self) -> None:
        self._weights: dict[Hashable, int] = {}
        self._last_seen: dict[Hashable, float] = {}
        self._held_until: dict[Hashable, float] = {}
        self._holds: dict[Hashable, int] = {}

    @property
    def alone(self) -> bool:
        """Whether only one message may be under way."""
        return any(weight >= _ALONE and name not in self._held_until for name, weight in self._weights.items())

    def lost(self, under_way: Collection[Hashable], now: float, *, blamed: bool) -> Hashable | None:
        """A connection was lost with these messages under way; returns the one that is found guilty now, if one is."""
        for name in under_way:
            self._weights[name] = self._weights.get(name, 0) + (_BLAMED if blamed else 1)
            self._last_seen[name] = now
        if len(under_way) != 1:
            return None
        [name] = under_way
        if self._weights[name] < _GUILTY:
            return None
        times = self._holds.get(name, 0)
        self._holds[name] = times + 1
        self._held_until[name] = now + min(_LONGEST_HOLD, _FIRST_HOLD * 2 ** min(times, 10))
        return name

    def answered(self, name: Hashable) -> None:
        """The broker has answered this message: it is innocent."""
        self._weights.pop(name, None)
        self._last_seen.pop(name, None)
        self._holds.pop(name, None)

    def held(self, name: Hashable) -> bool:
        """Whether this message is held back."""
        return name in self._held_until

    def released(self, now: float) -> list[Hashable]:
        """The messages that have been held back for long enough, and may be tried once more.

        Call it now and then: suspicions that nothing has renewed for long are forgotten here, as of dropped messages.
        """
        for name in [
            name for name, at in self._last_seen.items() if now - at >= _FORGOTTEN and name not in self._holds
        ]:
            self.answered(name)
        free = [name for name, until in self._held_until.items() if now >= until]
        for name in free:
            del self._held_until[name]
        return free
