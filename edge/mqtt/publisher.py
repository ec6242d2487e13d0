"""Telling a broker: availability by last will, retained state, events from the outbox. Nothing waits for the network.

Topics, under ``PREFIX/DEVICE``, are described in docs/mqtt.md. Events come from the outbox (edge.mqtt.outbox), a few at
once, and leave it when the broker acknowledges them. Of everything else only the newest is kept, in memory.
"""

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from edge.errors import AcceleratorError, DeliveryError, StoreError
from edge.events.factory import to_json
from edge.mqtt.connection import Backoff, BrokerConnection, Limits, new_client
from edge.mqtt.faults import FaultBoard
from edge.mqtt.messages import Aggregate, Reply, State, Statistics, Verification
from edge.mqtt.outbox import Committer, Outbox
from edge.mqtt.poison import PoisonMessageDetector
from edge.mqtt.topics import base_topic, client_id
from edge.records import Event, Fault
from edge.settings import MqttSettings
from edge.system.clock import now
from edge.system.systemd import fault_of

_log = logging.getLogger(__name__)

_ANSWER_SECONDS: Final = 30.0
_MOST_REPLIES: Final = 20
_PACKET_OVERHEAD: Final = 16  # bytes around topic and payload, generously
_BIRTH_SECONDS: Final = 5.0
_LONGEST_WAIT: Final = 60.0

CommandHandler = Callable[[str, bytes, bool], None]
"""Takes a command: its name, its payload, and whether the broker had retained it."""


@dataclass(frozen=True)
class Announcement:
    """A retained payload for others, such as Home Assistant; an empty one takes back what was there.

    It is sent again when ``birth_topic`` says online; ``done`` is called in the link's thread when the broker has it.
    """

    topic: str
    payload: bytes
    birth_topic: str = ""
    done: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class _Sent:
    """A message that waits for the broker's answer, since ``at``; ``event`` is its id in the outbox if it is one."""

    at: float
    topic: str
    event: int | None = None

    @property
    def name(self) -> int | str:
        """What tells it from others, from one connection to the next."""
        return self.topic if self.event is None else self.event


class MqttPublisher:
    """Publishes events; committing and sending have threads of their own, which ``start`` starts.

    With ``aggregate_only`` it is given counts instead, and publishes no state. Raises SettingsError when the password
    or a certificate file cannot be used. The outbox is closed with it.
    """

    def __init__(
        self,
        settings: MqttSettings,
        outbox: Outbox,
        announcements: Sequence[Announcement] = (),
        longest_wait: float = _LONGEST_WAIT,
        *,
        aggregate_only: bool = False,
    ) -> None:
        self._base = base_topic(settings)
        new_client(settings, client_id(settings))  # a file that is missing is told now
        self._outbox = outbox
        self._aggregate_only = aggregate_only
        self._stored_topic = self._topic("aggregate" if aggregate_only else "event")
        self._announcements = {announcement.topic: announcement for announcement in announcements}
        self._commands = f"{self._base}/command/"
        self._obey: CommandHandler = lambda *_: None
        self._faces: dict[int, Event] = {}
        self._retained = _Retained(last=self._topic("availability"))
        self._faults = FaultBoard(lambda payload: self._set("fault", payload))
        self._statistics: Statistics | None = None
        self._replies: deque[Reply] = deque(maxlen=_MOST_REPLIES)
        self._limits = Limits()
        self._flying: dict[int, _Sent] = {}
        self._suspects = PoisonMessageDetector()
        self._refused: set[int] = set()
        self._refused_topics: set[str] = set()
        self._refusals = 0
        self._refusal_backoff = Backoff(min(1.0, longest_wait), longest_wait)
        self._resume_at = 0.0
        self._probing = False
        self._announce_at: float | None = None
        self._committer = Committer(outbox, self._moved)
        self._link = BrokerConnection(
            settings,
            client_id(settings),
            will=self._topic("availability"),
            topics=self._subscriptions(settings),
            backoff=Backoff(min(2.0, longest_wait), longest_wait),
        )
        self._link.talk = self
        self._publish_state()
        self._set("availability", b"online")
        for announcement in announcements:
            self._retained.set(announcement.topic, announcement.payload)

    def start(self, obey: CommandHandler | None = None) -> None:
        """Begin to connect; ``obey`` is called with commands, in the link's thread."""
        if obey:
            self._obey = obey
        self._moved()
        self._committer.start()
        self._link.start()

    @property
    def refusals(self) -> int:
        """How often the broker has refused an event since the start."""
        return self._refusals

    @property
    def fault_code(self) -> int | None:
        """The code of the fault that is retained."""
        return self._faults.code

    def check(self) -> None:
        """Raise DeliveryError when a bug has ended one of the threads: only a new process can help."""
        if not (self._committer.is_alive() and self._link.is_alive()):
            raise DeliveryError("a thread that delivers events has ended with a bug; see the traceback above")

    def tell(self, event: Event) -> None:
        """Hand over an event and the state that follows from it; returns at once, whatever network and disk do."""
        self._committer.put(to_json(event))
        if event.kind == "left":
            self._faces.pop(event.track, None)
        else:
            self._faces[event.track] = event
        self._publish_state()

    def count(self, aggregate: Aggregate) -> None:
        """Hand over counts, as :meth:`tell` takes events."""
        self._committer.put(to_json(aggregate))

    def fault(self, fault: Fault | None) -> None:
        """Set the retained fault of the service; None says that it has none."""
        self._faults.set("service", fault)

    def degraded(self, sentence: str | None) -> None:
        """Set the retained fault of what works, but without its accelerator; None says that it has none."""
        self._faults.set("accelerator", fault_of(AcceleratorError(sentence), now()) if sentence else None)

    def model_fault(self, fault: Fault | None) -> None:
        """Set the retained fault of a model that does not run; None says that the chosen one does."""
        self._faults.set("model", fault)

    def paused(self, paused: bool) -> None:
        """Set the retained word about the camera: ON while it is closed."""
        self._set("paused", b"ON" if paused else b"OFF")

    def verification(self, verification: Verification) -> None:
        """Set the retained word about the deployed model."""
        self._set("verification", msgspec.json.encode(verification))

    def statistics(self, statistics: Statistics) -> None:
        """Send statistics; only the newest, when there is no connection."""
        self._statistics = statistics
        self._link.wake()

    def reply(self, reply: Reply) -> None:
        """Send what became of a command."""
        self._replies.append(reply)
        self._link.wake()

    def close(self, timeout: float) -> int:
        """Within ``timeout`` seconds deliver what is left, say offline, disconnect, and close the outbox.

        Returns how many events the broker has not acknowledged; they stay in the outbox.
        """
        deadline = time.monotonic() + timeout
        self._faces.clear()
        self._publish_state()
        farewell = min(1.0, timeout / 4)
        self._wait(lambda: self.undelivered() or self._busy(), deadline - farewell)
        self._faults.close()  # a device that is offline has no other fault than the one that ended it
        self._set("availability", b"offline")
        self._wait(lambda: self._link.up and self._busy(), deadline)
        self._link.stop()
        # The link may sit in a name look-up, the committer in a write, that nothing interrupts.
        self._committer.close(max(0.1, deadline - time.monotonic()))
        self._link.join(max(0.1, deadline - time.monotonic()))
        undelivered = self.undelivered()
        if not self._committer.is_alive():
            self._outbox.close()
        return undelivered

    def undelivered(self) -> int:
        """Events told that the broker has not acknowledged yet."""
        return self._committer.undelivered

    # What follows is called by the link, in its thread (edge.mqtt.connection.ConnectionListener).

    def connected(self, limits: Limits) -> None:
        """Begin anew: whatever was under way is sent again, and everything retained is set to the truth of now."""
        self._limits = limits
        self._refused = {event for event in self._refused if self._suspects.held(event)}  # the others come again
        self._outbox.start_over()
        self._retained.start_over()

    def lost(self, *, blamed: bool) -> None:
        """What was under way may have arrived or not."""
        names = [sent.name for sent in self._flying.values()]
        self._flying.clear()
        guilty = self._suspects.lost(names, time.monotonic(), blamed=blamed)
        if isinstance(guilty, int):
            self._refuse(guilty, "it ends the connection whenever one of them comes")
        elif guilty:
            _log.warning("the MQTT broker ends the connection whenever %s comes; it is not sent for a while", guilty)

    def turn(self) -> float:
        """Send what is due and fits the broker's window."""
        at = time.monotonic()
        for name in self._suspects.released(at):
            if isinstance(name, int):
                self._outbox.give_back(name)
        if self._refused and not self._outbox.figures.waiting:  # dropped meanwhile
            self._refused.clear()
            self._faults.set("broker", None)
        if any(at - sent.at > _ANSWER_SECONDS for sent in self._flying.values()):
            self._link.drop(f"no acknowledgement in {_ANSWER_SECONDS:.0f} s")
            return 0.0
        if self._announce_at is not None and at >= self._announce_at:
            self._announce_at = None
            for topic in self._announcements:
                self._retained.renew(topic)
        while self._room() and (newest := self._retained.take()):
            topic, payload = newest
            if self._suspects.held(topic) or self._too_large(topic, payload):
                self._retained.answered(topic)
                self._say_refused(topic, "too large for it")
            else:
                self._fly(_Sent(at, topic), payload, retain=True)
        while self._room() and self._replies:
            self._fly(_Sent(at, self._topic("reply")), msgspec.json.encode(self._replies.popleft()))
        if statistics := self._statistics:
            self._statistics = None
            self._link.publish(self._topic("statistics"), msgspec.json.encode(statistics), qos=0)
        if at >= self._resume_at:
            self._send_events(at)
        return min((due - at for due in (self._announce_at, self._resume_at) if due and due > at), default=1.0)

    def answered(self, mid: int, refusal: str, *, everything: bool) -> None:
        """Take an answer of the broker."""
        sent = self._flying.pop(mid, None)
        if sent is None:
            return
        self._suspects.answered(sent.name)
        if sent.event is not None:
            self._event_answered(sent.event, refusal, everything=everything)
            return
        self._retained.answered(sent.topic)
        if refusal:
            self._say_refused(sent.topic, refusal)
        elif sent.topic in self._announcements:
            self._announcements[sent.topic].done()

    def _event_answered(self, event: int, refusal: str, *, everything: bool) -> None:
        if refusal:
            self._probing = self._probing or everything
            self._outbox.give_back(event)
            self._resume_at = time.monotonic() + self._refusal_backoff.next()
            self._refuse(event, refusal)
            return
        self._outbox.acknowledge(event)
        self._probing = False
        self._refusal_backoff.reset()
        self._refused.discard(event)
        if not self._refused:
            self._faults.set("broker", None)
        if self._outbox.untidy:
            self._committer.tidy()

    def received(self, topic: str, payload: bytes, retained: bool) -> None:
        """Take a command, or Home Assistant's word that it has just started."""
        if topic.startswith(self._commands):
            self._obey(topic.removeprefix(self._commands), payload, retained)
        elif payload == b"online" and not retained:
            self._announce_at = time.monotonic() + random.uniform(0, _BIRTH_SECONDS)  # not all devices at once

    def _send_events(self, at: float) -> None:
        topic, room = self._stored_topic, self._room()
        if self._probing:  # one at a time, or a right that is given amid many would change their order
            room = min(room, 0 if any(sent.event is not None for sent in self._flying.values()) else 1)
        for stored in self._outbox.take(room):
            if self._suspects.held(stored.id):
                self._outbox.leave(stored.id)
            elif self._too_large(topic, stored.payload):
                # It would end the connection, again and again. Another connection may allow more.
                self._outbox.leave(stored.id)
                self._refuse(stored.id, f"Packet too large: this broker takes {self._limits.packet} bytes")
            else:
                self._fly(_Sent(at, topic, stored.id), stored.payload)

    def _fly(self, sent: _Sent, payload: bytes, *, retain: bool = False) -> None:
        self._flying[self._link.publish(sent.topic, payload, retain=retain)] = sent

    def _room(self) -> int:
        window = 1 if self._suspects.alone else self._limits.window
        return max(0, window - len(self._flying))

    def _too_large(self, topic: str, payload: bytes) -> bool:
        most = self._limits.packet
        return most is not None and len(topic) + len(payload) + _PACKET_OVERHEAD > most

    def _say_refused(self, topic: str, reason: str) -> None:
        if topic not in self._refused_topics:
            self._refused_topics.add(topic)
            _log.warning("the MQTT broker refuses %s: %s", topic, reason)

    def _refuse(self, event: int, reason: str) -> None:
        if event not in self._refused:
            self._refused.add(event)
            self._refusals += 1
        sentence = f"the MQTT broker refuses events: {reason}. May this device publish to {self._stored_topic}?"
        self._faults.set("broker", fault_of(DeliveryError(sentence), now()))

    def _moved(self) -> None:
        """The committer has tried; called in its thread."""
        trouble = self._outbox.trouble
        self._faults.set("outbox", fault_of(StoreError(trouble), now()) if trouble else None)
        self._link.wake()

    # What follows is for any thread.

    def _publish_state(self) -> None:
        if self._aggregate_only:  # who is there now is nobody's business, nor what was retained before
            self._set("state", b"")
            return
        track = min(self._faces, default=None)
        if track is None:
            state = State(faces=0)
        else:
            told = self._faces[track]
            label, confidence = (told.expression.label, told.expression.confidence) if told.expression else (None, None)
            state = State(len(self._faces), track, label, confidence, told.reason)
        self._set("state", msgspec.json.encode(state))

    def _set(self, name: str, payload: bytes) -> None:
        if self._retained.set(self._topic(name), payload):
            self._link.wake()

    def _topic(self, name: str) -> str:
        return f"{self._base}/{name}"

    def _busy(self) -> bool:
        return self._retained.pending or bool(self._replies)

    def _subscriptions(self, settings: MqttSettings) -> tuple[str, ...]:
        births = sorted({a.birth_topic for a in self._announcements.values() if a.birth_topic})
        return (*((f"{self._commands}+",) if settings.commands else ()), *births)

    def _wait(self, condition: Callable[[], object], deadline: float) -> None:
        while condition() and time.monotonic() < deadline:
            time.sleep(0.02)


class _Retained:
    """The newest payload of each retained topic, and which of them the broker does not have yet.

    After :meth:`start_over` the topic ``last`` is sent last: a device is available once all else is true.
    """

    def __init__(self, last: str) -> None:
        self._lock = threading.Lock()
        self._last = last
        self._payloads: dict[str, bytes] = {}
        self._due: dict[str, None] = {}
        self._flying: set[str] = set()

    @property
    def pending(self) -> bool:
        return bool(self._due or self._flying)

    def set(self, topic: str, payload: bytes) -> bool:
        """Returns whether that is a change; otherwise there is nothing to send."""
        with self._lock:
            if self._payloads.get(topic) == payload:
                return False
            self._payloads[topic] = payload
            self._due[topic] = None
            return True

    def renew(self, topic: str) -> None:
        with self._lock:
            self._due[topic] = None

    def start_over(self) -> None:
        with self._lock:
            self._flying.clear()
            self._due = dict.fromkeys(sorted(self._payloads, key=lambda topic: topic == self._last))

    def take(self) -> tuple[str, bytes] | None:
        """The next that is due; it then is under way until it is answered, whatever the answer is."""
        with self._lock:
            topic = next(iter(self._due), None)
            if topic is None:
                return None
            del self._due[topic]
            self._flying.add(topic)
            return topic, self._payloads[topic]

    def answered(self, topic: str) -> None:
        with self._lock:
            self._flying.discard(topic)
