"""What the broker refuses: events, which stay in the outbox, retained topics, and subscriptions."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from edge.errors import DeliveryError
from edge.mqtt.backoff import Backoff
from edge.mqtt.faults import FaultBoard
from edge.system.clock import now
from edge.system.systemd import fault_of

_log = logging.getLogger(__name__)

_SOURCE: Final = "broker"


class RefusedEvents:
    """Which events the broker refuses, and when to go on. Times are in seconds.

    While there are any it reports a fault. It logs each reason once, since the broker may refuse the fault too.
    """

    def __init__(self, topic: str, faults: FaultBoard, backoff: Backoff) -> None:
        self.count = 0
        """Refusals since the start; each event counts once a connection."""
        self.one_by_one = False
        """Whether the broker refuses whatever this device sends: a permission granted amid many would reorder them."""
        self.resume_at = 0.0
        self._topic = topic
        self._faults = faults
        self._backoff = backoff
        self._ids: set[int] = set()
        self._logged: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._ids)

    def add(self, event: int, reason: str) -> None:
        """The broker will not take this event."""
        if event not in self._ids:
            self._ids.add(event)
            self.count += 1
        sentence = f"the MQTT broker refuses events: {reason}. May this device publish to {self._topic}?"
        self._faults.set(_SOURCE, fault_of(DeliveryError(sentence), now()))
        if reason not in self._logged:
            self._logged.add(reason)
            _log.warning("%s They are kept, and tried again", sentence)

    def pause(self, at: float, *, everything: bool) -> None:
        """Send nothing for a while after a refusal at ``at``; ``everything`` when it concerns the device itself."""
        self.one_by_one = self.one_by_one or everything
        self.resume_at = at + self._backoff.next()

    def accepted(self, event: int) -> None:
        """The broker has acknowledged this event."""
        self.one_by_one = False
        self._backoff.reset()
        self._ids.discard(event)
        if not self._ids:
            self.clear()

    def keep(self, condition: Callable[[int], bool]) -> None:
        """On a new connection: forget the events that will be tried again, which do not fulfil the condition."""
        self._ids = {event for event in self._ids if condition(event)}

    def clear(self) -> None:
        """No event is left that could be refused."""
        self._ids.clear()
        self._logged.clear()
        self._faults.set(_SOURCE, None)


class RefusedTopics:
    """Logs each topic that the broker refuses, once, and says when to try again those that it may permit later.

    ``warning`` is what is logged, with the places of a topic and a reason. Times are monotonic, in seconds.
    """

    def __init__(
        self, backoff: Backoff, warning: str = "the MQTT broker refuses %s: %s. May this device publish to it?"
    ) -> None:
        self.resume_at: float | None = None
        """When to send the postponed topics again; None while there are none."""
        self._backoff = backoff
        self._warning = warning
        self._logged: set[str] = set()
        self._unaccepted: set[str] = set()
        self._postponed: list[str] = []

    def add(self, topic: str, reason: str) -> None:
        """The broker refuses this topic."""
        if topic not in self._logged:
            self._logged.add(topic)
            _log.warning(self._warning, topic, reason)

    def postpone(self, topic: str, at: float) -> None:
        """Try this topic again some time after ``at``: a broker changes permissions without ending connections."""
        self._unaccepted.add(topic)
        self._postponed.append(topic)
        if self.resume_at is None:
            self.resume_at = at + self._backoff.next()

    def due(self, at: float) -> list[str]:
        """The topics to try again now, in the order in which they were refused."""
        if self.resume_at is None or at < self.resume_at:
            return []
        topics, self._postponed, self.resume_at = self._postponed, [], None
        return topics

    def accepted(self, topic: str) -> None:
        """The broker takes this topic. Once none is refused any more, the wait starts again at its first length."""
        self._unaccepted.discard(topic)
        if not self._unaccepted:
            self._backoff.reset()

    def start_over(self) -> None:
        """On a new connection: every topic is sent anyway."""
        self._unaccepted.clear()
        self._postponed, self.resume_at = [], None
        self._backoff.reset()


@dataclass(frozen=True)
class Refusals:
    """What the broker refuses, and when to try it again: events, and retained topics."""

    events: RefusedEvents
    topics: RefusedTopics
