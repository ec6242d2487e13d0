"""Finds the message over which a broker ends the connection, so that it does not block all others for ever.

Brokers do that with messages that are too large for them. MQTT 3.1.1 has no other way to refuse one. mosquitto 2.0
refuses it with a code that MQTT 5 does not allow there, which ends the connection too.
"""

from collections.abc import Collection
from typing import Final

_BLAMED_WEIGHT: Final = 3  # of a loss that the broker explains by a message; any other loss weighs 1
_ALONE_WEIGHT: Final = 3  # from which a message is sent alone
_POISON_WEIGHT: Final = 10  # from which a message that was sent alone is identified
_FIRST_HOLD: Final = 600.0  # seconds
_LONGEST_HOLD: Final = 3600.0
_FIRST_TOPIC_HOLD: Final = 5.0  # a retained topic says how things are now: without it others believe what was before
_LONGEST_TOPIC_HOLD: Final = 60.0
_FORGET_SECONDS: Final = 600.0


class PoisonMessageDetector:
    """Weighs the messages that were in flight when a connection was lost. Pure: time, in seconds, is passed in.

    A message is named by its id (int) if it is an event, and by its topic (str) otherwise. While one is suspected,
    messages have to be sent singly (``one_by_one``). When connections still end over one, it is identified and held
    back (``is_held``), longer each time: an event for ten minutes up to an hour, a topic for five seconds up to a
    minute.
    """

    def __init__(self) -> None:
        self._weights: dict[int | str, int] = {}
        self._last_seen: dict[int | str, float] = {}
        self._held_until: dict[int | str, float] = {}
        self._holds: dict[int | str, int] = {}

    @property
    def one_by_one(self) -> bool:
        """Whether only one message may be in flight."""
        return any(weight >= _ALONE_WEIGHT and name not in self._held_until for name, weight in self._weights.items())

    def lost(self, in_flight: Collection[int | str], now: float, *, blamed: bool) -> int | str | None:
        """A connection was lost with these messages in flight; returns the one that is identified now, if any.

        ``blamed`` when the broker said that it was because of a message.
        """
        for name in in_flight:
            self._weights[name] = self._weights.get(name, 0) + (_BLAMED_WEIGHT if blamed else 1)
            self._last_seen[name] = now
        if len(in_flight) != 1:
            return None
        [name] = in_flight
        if self._weights[name] < _POISON_WEIGHT:
            return None
        times = self._holds.get(name, 0)
        self._holds[name] = times + 1
        is_topic = isinstance(name, str)
        first, longest = (_FIRST_TOPIC_HOLD, _LONGEST_TOPIC_HOLD) if is_topic else (_FIRST_HOLD, _LONGEST_HOLD)
        self._held_until[name] = now + min(longest, first * 2 ** min(times, 10))
        return name

    def answered(self, name: int | str) -> None:
        """The broker has answered this message, which clears it."""
        self._weights.pop(name, None)
        self._last_seen.pop(name, None)
        self._holds.pop(name, None)

    def is_held(self, name: int | str) -> bool:
        """Whether this message is held back."""
        return name in self._held_until

    def released(self, now: float) -> list[int | str]:
        """The messages that have been held back for long enough, and may be tried once more.

        Call it regularly: it also forgets messages that were suspected long ago, which may have been dropped.
        """
        for name in [
            name for name, at in self._last_seen.items() if now - at >= _FORGET_SECONDS and name not in self._held_until
        ]:
            self.answered(name)
        free = [name for name, until in self._held_until.items() if now >= until]
        for name in free:
            del self._held_until[name]
            self._last_seen[name] = now  # from now on it can come again
        return free
