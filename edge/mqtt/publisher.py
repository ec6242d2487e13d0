"""Publishes to a broker: availability by last will, retained topics, events from the outbox. Never waits for a network.

The topics, under ``PREFIX/DEVICE``, are described in docs/mqtt.md. Events come from the outbox (edge.mqtt.outbox), a
few at once, and leave it when the broker acknowledges them. Of everything else only the newest is kept, in memory.
"""

import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from edge.errors import DeliveryError, StoreError
from edge.events.factory import to_json
from edge.mqtt.backoff import Backoff
from edge.mqtt.committer import Committer
from edge.mqtt.connection import BrokerConnection, new_client
from edge.mqtt.delay import DeliveryDelay
from edge.mqtt.faces import FacesInView
from edge.mqtt.faults import FaultBoard
from edge.mqtt.figures import DeliveryFigures
from edge.mqtt.live_events import LiveEvents
from edge.mqtt.messages import Aggregate, FaultState, Reply, Statistics
from edge.mqtt.outbox import Outbox
from edge.mqtt.refusals import Refusals, RefusedEvents, RefusedTopics
from edge.mqtt.retained import Announcement, RetainedTopics
from edge.mqtt.sender import CommandHandler, EventDelivery, MessageSender, Topics
from edge.mqtt.subscriptions import Subscriptions
from edge.mqtt.topics import base_topic, client_id
from edge.records import Event, Fault, Verification
from edge.settings import HomeAssistantSettings, MqttSettings
from edge.system.clock import now
from edge.system.systemd import fault_of

_LONGEST_WAIT: Final = 60.0
_FIRST_CONNECTION_WAIT: Final = 2.0
_FIRST_REFUSAL_WAIT: Final = 1.0


class MqttPublisher:
    """Publishes events and retained topics; :meth:`start` starts one thread that commits and one that sends.

    With ``aggregate_only`` it publishes aggregates instead of events, and an empty state. With ``homeassistant`` it
    publishes what Home Assistant needs besides. ``longest_wait`` (seconds) bounds the wait between attempts. The device
    is ``offline`` until :meth:`set_camera` says for the first time how its camera is. Raises SettingsError when the
    password or a certificate file cannot be used. The outbox is closed with it.
    """

    def __init__(
        self,
        settings: MqttSettings,
        outbox: Outbox,
        announcements: Sequence[Announcement] = (),
        longest_wait: float = _LONGEST_WAIT,
        *,
        aggregate_only: bool = False,
        homeassistant: HomeAssistantSettings | None = None,
    ) -> None:
        self._base = base_topic(settings)
        new_client(settings, client_id(settings))  # a file that is missing is reported now
        self._outbox = outbox
        self._aggregate_only = aggregate_only
        self._for_homeassistant = homeassistant is not None
        self._delay = DeliveryDelay()
        self._live_events: LiveEvents | None = None
        if homeassistant and not aggregate_only:
            self._live_events = LiveEvents(self._topic("homeassistant/event"), homeassistant.event_max_age)
        self._faces = FacesInView()
        self._handle_command: CommandHandler = lambda *_: None
        self._disk_works: Callable[[], object] = lambda: None
        self._retained = RetainedTopics(self._topic("availability"))
        self._retained.announce(announcements)  # before all else: a reader then knows what the other topics are
        self.faults = FaultBoard(self._publish_fault)
        topics = Topics(
            events=self._topic("aggregate" if aggregate_only else "event"),
            statistics=self._topic("statistics"),
            replies=self._topic("reply"),
            commands=self._topic("command/"),
        )
        first_wait = min(_FIRST_REFUSAL_WAIT, longest_wait)
        self._refused = RefusedEvents(topics.events, self.faults, Backoff(first_wait, longest_wait))
        refusals = Refusals(self._refused, RefusedTopics(Backoff(first_wait, longest_wait)))
        self._committer = Committer(outbox, self._committed)
        delivery = EventDelivery(
            (lambda payload: payload) if aggregate_only else self._delay.stamp, self._live_events, self._acknowledged
        )
        self._sender = MessageSender(
            topics, outbox, self._retained, refusals, delivery=delivery, handle_command=self._command_received
        )
        heard = (*((f"{topics.commands}+",) if settings.commands else ()), *self._retained.birth_topics)
        self._connection = BrokerConnection(
            settings,
            client_id(settings),
            will=self._topic("availability"),
            subscriptions=Subscriptions(heard, Backoff(first_wait, longest_wait)),
            backoff=Backoff(min(_FIRST_CONNECTION_WAIT, longest_wait), longest_wait),
            listener=self._sender,
        )
        self._publish_first()

    def start(
        self, handle_command: CommandHandler | None = None, disk_works: Callable[[], object] | None = None
    ) -> None:
        """Begin to connect.

        ``handle_command`` is called with commands, in the connection's thread. ``disk_works`` is called now, and again
        and again in the thread that commits, at least each minute, while the disk takes events.
        """
        self._handle_command = handle_command or self._handle_command
        self._disk_works = disk_works or self._disk_works
        self._committed()
        self._committer.start()
        self._connection.start()

    def figures(self) -> DeliveryFigures:
        """Figures of the delivery as they are now. For any thread."""
        return DeliveryFigures(self._outbox.figures, self._refused.count, self.faults.code)

    @property
    def undelivered(self) -> int:
        """How many events were given to the publisher and not acknowledged by the broker yet."""
        return self._committer.undelivered

    def check_threads(self) -> None:
        """Raise DeliveryError when a bug has ended one of the threads: only a new process can help."""
        if not (self._committer.is_alive() and self._connection.is_alive()):
            raise DeliveryError("a thread that delivers events has ended with a bug; see the traceback above")

    def publish_event(self, event: Event) -> None:
        """Publish an event and the state that follows from it; returns at once, whatever network and disk do."""
        self._delay.happened(event.id)
        self._committer.put(to_json(event))
        if self._live_events:
            self._live_events.put(event)
        self._faces.take(event)
        self._publish_state()

    def publish_aggregate(self, aggregate: Aggregate) -> None:
        """Publish counts of people; returns at once, as :meth:`publish_event`."""
        self._committer.put(to_json(aggregate))

    def publish_statistics(self, statistics: Statistics) -> None:
        """Publish statistics; without a connection only the newest are kept."""
        self._sender.put_statistics(statistics)
        self._connection.wake()

    def publish_reply(self, reply: Reply) -> None:
        """Publish the reply to a command."""
        self._sender.put_reply(reply)
        self._connection.wake()

    def set_camera(self, *, is_open: bool) -> None:
        """Set the retained topics ``camera`` and ``availability``: the device works, and its camera is open or not."""
        self._set("camera", b"online" if is_open else b"offline")
        self._set("availability", b"online")

    def close_camera(self) -> None:
        """The camera gives no more frames: what was seen last is no longer so."""
        self._set("camera", b"offline")

    def set_paused(self, paused: bool | None) -> None:
        """Set the retained topic ``paused``: ON while the camera is closed by a command; None removes the topic."""
        self._set("paused", b"" if paused is None else b"ON" if paused else b"OFF")

    def announce(self, announcements: Sequence[Announcement]) -> None:
        """Replace what was announced on the same topics; only what has changed is sent."""
        if self._retained.announce(announcements):
            self._connection.wake()

    def set_verification(self, verification: Verification) -> None:
        """Set the retained verification of the model that runs."""
        self._set("verification", msgspec.json.encode(verification))

    def close(self, timeout: float) -> int:
        """Within ``timeout`` seconds deliver what is left, publish ``offline``, disconnect, and close the outbox.

        Returns how many events the broker has not acknowledged; they stay in the outbox.
        """
        deadline = time.monotonic() + timeout
        self.close_camera()
        self._faces.clear()
        self._publish_state()
        for_offline = min(1.0, timeout / 4)
        _wait_while(lambda: self.undelivered or self._sender.busy, deadline - for_offline)
        self.faults.close()  # a device that is offline has no other fault than the one that ended it
        self._set("availability", b"offline")
        _wait_while(lambda: self._connection.up and self._sender.busy, deadline)
        # A broker that has not taken ``offline`` yet must not take the connection for ended in order.
        self._connection.stop(in_order=not self._sender.busy)
        # The connection may be in a name look-up, the committer in a write: nothing interrupts these.
        self._committer.close(max(0.1, deadline - time.monotonic()))
        self._connection.join(max(0.1, deadline - time.monotonic()))
        undelivered = self.undelivered
        if not self._committer.is_alive():
            self._outbox.close()
        return undelivered

    def _publish_first(self) -> None:
        self._set("camera", b"offline")
        self._set("availability", b"offline")
        self._publish_state()

    def _committed(self) -> None:
        """The committer has committed, or failed to; called in its thread."""
        disk = self._outbox.disk
        self.faults.set("outbox", fault_of(StoreError(disk.error), now()) if disk.error else None)
        self.faults.set("loss", fault_of(StoreError(disk.damage), now()) if disk.damage else None)
        if not disk.error:
            self._disk_works()
        self._connection.wake()

    def _command_received(self, name: str, payload: bytes, retained: bool) -> None:
        self._handle_command(name, payload, retained)

    def _acknowledged(self) -> None:
        """The broker has acknowledged an event; called in the connection's thread."""
        if self._outbox.needs_cleanup:
            self._committer.clean_up()

    def _publish_fault(self, fault: Fault | None) -> None:
        self._set("fault", msgspec.json.encode(fault) if fault else b"")
        if self._for_homeassistant:
            state = FaultState(True, fault.code, fault.sentence, fault.time) if fault else FaultState(False)
            self._set("homeassistant/fault", msgspec.json.encode(state))

    def _publish_state(self) -> None:
        if self._aggregate_only:  # the state would describe single people; an empty one also removes an earlier one
            self._set("state", b"")
            return
        self._set("state", msgspec.json.encode(self._faces.state))

    def _set(self, name: str, payload: bytes) -> None:
        if self._retained.set(self._topic(name), payload):
            self._connection.wake()

    def _topic(self, name: str) -> str:
        return f"{self._base}/{name}"


def _wait_while(condition: Callable[[], object], deadline: float) -> None:
    while condition() and time.monotonic() < deadline:
        time.sleep(0.02)
