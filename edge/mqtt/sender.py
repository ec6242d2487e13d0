"""What is sent to the broker, in which order and when again, and what its answers mean."""

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from edge.mqtt.connection import BrokerConnection, Limits
from edge.mqtt.live_events import LiveEvents
from edge.mqtt.messages import Reply, Statistics
from edge.mqtt.outbox import Outbox
from edge.mqtt.poison import PoisonMessageDetector
from edge.mqtt.refusals import Refusals
from edge.mqtt.retained import RetainedTopics

_log = logging.getLogger(__name__)

_ANSWER_SECONDS: Final = 30.0
_MOST_REPLIES: Final = 20
_PACKET_OVERHEAD: Final = 16  # bytes around topic and payload, generously

CommandHandler = Callable[[str, bytes, bool], None]
"""Takes a command: its name, its payload, and whether the broker had retained it."""


@dataclass(frozen=True)
class Topics:
    """The topics that are not retained: where to publish, and ``commands``, the prefix of those that are received."""

    events: str
    statistics: str
    replies: str
    commands: str


@dataclass(frozen=True)
class EventDelivery:
    """What else belongs to the delivery of events.

    ``stamp`` completes a stored event when it is sent. ``live_events`` are sent too, without acknowledgement.
    ``acknowledged`` is called after each acknowledgement of a stored event. ``clock`` gives monotonic seconds.
    """

    stamp: Callable[[bytes], bytes]
    live_events: LiveEvents | None
    acknowledged: Callable[[], None]
    clock: Callable[[], float] = time.monotonic


@dataclass(frozen=True)
class _InFlight:
    """A message that the broker has not answered yet, sent at ``at``.

    ``event`` is its id in the outbox if it is an event, ``reply`` its content if it is a reply. Times here are
    monotonic, in seconds.
    """

    at: float
    topic: str
    event: int | None = None
    reply: Reply | None = None

    @property
    def key(self) -> int | str:
        """The same for the same message on every connection."""
        return self.topic if self.event is None else self.event


class MessageSender:
    """Sends events, retained topics, replies and statistics on a connection (edge.mqtt.connection.ConnectionListener).

    Events leave the outbox when the broker acknowledges them. ``handle_command`` is called with commands. Only
    :meth:`put_statistics`, :meth:`put_reply` and ``busy`` are for other threads than the connection's.
    """

    def __init__(
        self,
        topics: Topics,
        outbox: Outbox,
        retained: RetainedTopics,
        refusals: Refusals,
        *,
        delivery: EventDelivery,
        handle_command: CommandHandler,
    ) -> None:
        self._topics = topics
        self._outbox = outbox
        self._retained = retained
        self._refused = refusals.events
        self._delivery = delivery
        self._clock = delivery.clock
        self._handle_command = handle_command
        self._refused_topics = refusals.topics
        self._poison = PoisonMessageDetector()
        self._limits = Limits()
        self._in_flight: dict[int, _InFlight] = {}
        self._statistics: Statistics | None = None
        self._replies: deque[Reply] = deque(maxlen=_MOST_REPLIES)

    @property
    def busy(self) -> bool:
        """Whether retained topics or replies are still to be sent."""
        return self._retained.pending or bool(self._replies)

    def put_statistics(self, statistics: Statistics) -> None:
        """Send statistics next; without a connection only the newest are kept."""
        self._statistics = statistics

    def put_reply(self, reply: Reply) -> None:
        """Send the reply to a command next."""
        self._replies.append(reply)

    def connected(self, limits: Limits) -> None:
        """Start over: send every retained topic as it is now, and try events again that were refused."""
        self._limits = limits
        self._refused.keep(self._poison.is_held)  # the others are tried again
        self._refused_topics.start_over()
        self._retained.start_over()

    def lost(self, *, blamed: bool) -> None:
        """Forget what was in flight, and send it again: it may have arrived or not."""
        unanswered = list(self._in_flight.values())
        self._in_flight.clear()
        self._outbox.start_over()  # now, because the outbox opens its file only while no event is in flight
        poison = self._poison.lost([message.key for message in unanswered], self._clock(), blamed=blamed)
        if poison != self._topics.replies:
            self._give_back_replies(unanswered)
        if isinstance(poison, int):
            self._refused.add(poison, "connections end again and again while one of them is on its way")
        elif poison:
            is_reply = poison == self._topics.replies
            then = "it is lost, and the next one is sent later" if is_reply else "it is sent again later"
            _log.warning("connections end again and again while %s is on its way; %s", poison, then)

    def send_due(self, connection: BrokerConnection) -> float:
        """Send what is due and fits the broker's limits."""
        at = self._clock()
        for key in self._poison.released(at):
            if isinstance(key, int):
                self._outbox.give_back(key)
            else:
                self._retained.give_back(key)
        for topic in self._refused_topics.due(at):
            self._retained.give_back(topic)
        if self._refused and not self._outbox.figures.waiting:  # they were dropped
            self._refused.clear()
        if any(at - message.at > _ANSWER_SECONDS for message in self._in_flight.values()):
            connection.drop(f"no acknowledgement in {_ANSWER_SECONDS:.0f} s")
            return 0.0
        self._retained.resend_announcements(at)
        self._send_retained(connection, at)
        self._send_replies(connection, at)
        self._send_statistics(connection)
        self._send_live_events(connection)
        if at >= self._refused.resume_at:
            self._send_events(connection, at)
        due = (self._retained.resend_at, self._refused.resume_at, self._refused_topics.resume_at)
        return min((then - at for then in due if then and then > at), default=1.0)

    def answered(self, mid: int, refusal: str, *, everything: bool) -> None:
        """Take the broker's answer to a message."""
        message = self._in_flight.pop(mid, None)
        if message is None:
            return
        self._poison.answered(message.key)
        if message.event is not None:
            self._event_answered(message.event, refusal, everything=everything)
            return
        if refusal:
            self._retained.given_up(message.topic)
            self._refused_topics.add(message.topic, refusal)
            self._refused_topics.postpone(message.topic, self._clock())
        else:
            self._refused_topics.accepted(message.topic)
            self._retained.accepted(message.topic)

    def received(self, topic: str, payload: bytes, retained: bool) -> None:
        """Take a command, or the message with which the reader of an announcement says that it has started."""
        if topic.startswith(self._topics.commands):
            self._handle_command(topic.removeprefix(self._topics.commands), payload, retained)
        elif payload == b"online" and not retained:
            self._retained.reader_started(self._clock())

    @property
    def _room(self) -> int:
        """How many messages may be sent before the next answer."""
        window = 1 if self._poison.one_by_one else self._limits.window
        return max(0, window - len(self._in_flight))

    def _send_retained(self, connection: BrokerConnection, at: float) -> None:
        while self._room and (newest := self._retained.take()):
            topic, payload = newest
            if self._poison.is_held(topic):
                self._retained.given_up(topic)  # for now; it is given back once it is released
            elif self._too_large(topic, payload):
                self._retained.given_up(topic)
                self._refused_topics.add(topic, "too large for it")
            else:
                self._send(connection, _InFlight(at, topic), payload, retain=True)

    def _send_replies(self, connection: BrokerConnection, at: float) -> None:
        topic = self._topics.replies
        while self._room and self._replies and not self._poison.is_held(topic):
            reply = self._replies.popleft()
            payload = msgspec.json.encode(reply)
            if self._too_large(topic, payload):
                self._refused_topics.add(topic, "too large for it")
            else:
                self._send(connection, _InFlight(at, topic, reply=reply), payload)

    def _give_back_replies(self, unanswered: list[_InFlight]) -> None:
        """Send these replies again, before those that wait; of too many the newest are kept."""
        for message in reversed(unanswered):
            if message.reply and len(self._replies) < _MOST_REPLIES:
                self._replies.appendleft(message.reply)

    def _send_statistics(self, connection: BrokerConnection) -> None:
        statistics, self._statistics = self._statistics, None
        if statistics is None:
            return
        payload = msgspec.json.encode(statistics)
        if self._too_large(self._topics.statistics, payload):
            self._refused_topics.add(self._topics.statistics, "too large for it")
        else:
            connection.publish(self._topics.statistics, payload, qos=0)

    def _send_live_events(self, connection: BrokerConnection) -> None:
        if live := self._delivery.live_events:
            for payload in live.take():
                if not self._too_large(live.topic, payload):
                    connection.publish(live.topic, payload, qos=0)

    def _send_events(self, connection: BrokerConnection, at: float) -> None:
        topic, room = self._topics.events, self._room
        if self._refused.one_by_one:
            room = min(room, 0 if any(message.event is not None for message in self._in_flight.values()) else 1)
        for stored in self._outbox.take(room):
            payload = self._delivery.stamp(stored.payload)
            if self._poison.is_held(stored.id):
                self._outbox.skip(stored.id)
            elif self._too_large(topic, payload):
                # It would end this connection, again and again. Another connection may allow more.
                self._outbox.skip(stored.id)
                self._refused.add(stored.id, f"Packet too large: this broker takes {self._limits.packet} bytes")
            else:
                self._send(connection, _InFlight(at, topic, stored.id), payload)

    def _send(self, connection: BrokerConnection, message: _InFlight, payload: bytes, *, retain: bool = False) -> None:
        self._in_flight[connection.publish(message.topic, payload, retain=retain)] = message

    def _event_answered(self, event: int, refusal: str, *, everything: bool) -> None:
        if refusal:
            self._outbox.give_back(event)
            self._refused.pause(self._clock(), everything=everything)
            self._refused.add(event, refusal)
            return
        self._outbox.acknowledge(event)
        self._refused.accepted(event)
        self._delivery.acknowledged()

    def _too_large(self, topic: str, payload: bytes) -> bool:
        most = self._limits.packet
        return most is not None and len(topic) + len(payload) + _PACKET_OVERHEAD > most
