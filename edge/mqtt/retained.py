"""Retained topics: the newest payload of each, and which of them the broker still has to get."""

import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

_ANNOUNCEMENT_DELAY: Final = (
    5.0  # seconds at most: all devices hear the same birth message, and must not answer at once
)


@dataclass(frozen=True)
class Announcement:
    """A retained payload for another program, such as Home Assistant; an empty one removes what was there.

    It is sent again when ``birth_topic`` carries ``online``. ``done`` is called in the connection's thread when the
    broker has acknowledged it.
    """

    topic: str
    payload: bytes
    birth_topic: str = ""
    done: Callable[[], object] = lambda: None


class RetainedTopics:
    """The newest payload of each topic, and which of them the broker does not have yet.

    After :meth:`start_over` the topic ``last`` is sent last: a device becomes available once all else is up to date.
    :meth:`set`, :meth:`announce` and ``pending`` are for any thread, all else for the connection's. Times are
    monotonic, in seconds.
    """

    def __init__(self, last: str) -> None:
        self.resend_at: float | None = None
        """When the announcements are to be sent again."""
        self._announcements: dict[str, Announcement] = {}
        self._lock = threading.Lock()
        self._last = last
        self._payloads: dict[str, bytes] = {}
        self._due: dict[str, None] = {}
        self._in_flight: set[str] = set()

    @property
    def pending(self) -> bool:
        """Whether something is still to be sent or answered."""
        return bool(self._due or self._in_flight)

    @property
    def birth_topics(self) -> list[str]:
        """The topics on which the readers of announcements say that they have started."""
        return sorted({one.birth_topic for one in self._announcements.values() if one.birth_topic})

    def set(self, topic: str, payload: bytes) -> bool:
        """Set a topic's payload; returns whether that changes it, so that there is something to send."""
        with self._lock:
            if self._payloads.get(topic) == payload:
                return False
            self._payloads[topic] = payload
            self._due[topic] = None
            return True

    def start_over(self) -> None:
        """Send everything again, on a new connection."""
        with self._lock:
            self._in_flight.clear()
            self._due = dict.fromkeys(sorted(self._payloads, key=lambda topic: topic == self._last))

    def take(self) -> tuple[str, bytes] | None:
        """The next topic that is due and its payload; it then is in flight until it is accepted or given up."""
        with self._lock:
            topic = next(iter(self._due), None)
            if topic is None:
                return None
            del self._due[topic]
            self._in_flight.add(topic)
            return topic, self._payloads[topic]

    def accepted(self, topic: str) -> None:
        """The broker has acknowledged what was taken of this topic."""
        self.given_up(topic)
        if announcement := self._announcements.get(topic):
            announcement.done()

    def given_up(self, topic: str) -> None:
        """What was taken of this topic was refused or not sent; only give_back or a new connection sends it again."""
        with self._lock:
            self._in_flight.discard(topic)

    def give_back(self, topic: str) -> None:
        """Send what this topic says now once more on this connection, if it is one of the retained topics."""
        with self._lock:
            self._in_flight.discard(topic)
            if topic in self._payloads:
                self._due[topic] = None

    def reader_started(self, now: float) -> None:
        """Schedule all announcements again, after a random delay."""
        self.resend_at = now + random.uniform(0, _ANNOUNCEMENT_DELAY)

    def resend_announcements(self, now: float) -> None:
        """Make all announcements due again if it is time to."""
        if self.resend_at is None or now < self.resend_at:
            return
        self.resend_at = None
        with self._lock:
            self._due.update(dict.fromkeys(self._announcements))

    def announce(self, announcements: Sequence[Announcement]) -> bool:
        """Set announcements, also in place of earlier ones; returns whether there is something to send."""
        with self._lock:
            self._announcements = self._announcements | {one.topic: one for one in announcements}
        changed = [self.set(one.topic, one.payload) for one in announcements]
        return any(changed)
