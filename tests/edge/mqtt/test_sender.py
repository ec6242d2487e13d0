"""What is sent again, and when. The minutes pass on a clock that the tests set; broker and connection are real."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edge.mqtt.backoff import Backoff
from edge.mqtt.connection import BrokerConnection
from edge.mqtt.faults import FaultBoard
from edge.mqtt.messages import Reply
from edge.mqtt.outbox import Outbox
from edge.mqtt.refusals import Refusals, RefusedEvents, RefusedTopics
from edge.mqtt.retained import Announcement, RetainedTopics
from edge.mqtt.sender import EventDelivery, MessageSender, Topics
from edge.mqtt.subscriptions import Subscriptions
from edge.records import Fault
from edge.settings import MqttSettings
from tests.conftest import Broker, wait_until
from tests.edge.listener import listening
from tests.edge.mqtt.test_cut_connections import cutting

pytestmark = pytest.mark.slow

TOPICS = Topics(
    events="fer-edge/kiosk/event",
    statistics="fer-edge/kiosk/statistics",
    replies="fer-edge/kiosk/reply",
    commands="fer-edge/kiosk/command/",
)


@dataclass
class Sending:
    """A sender on a connection that is made again at once; ``now`` is its clock.

    ``faults`` are those that it has reported, ``commands`` the names of those that it has received.
    """

    outbox: Outbox
    announced: Sequence[Announcement]
    now: float = 1000.0
    faults: list[Fault | None] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)

    def start(self, port: int) -> None:
        retained = RetainedTopics("fer-edge/kiosk/availability")
        retained.announce(self.announced)
        refused = RefusedEvents(TOPICS.events, FaultBoard(self.faults.append), Backoff(0.05, 0.05))
        self.sender = MessageSender(
            TOPICS,
            self.outbox,
            retained,
            Refusals(refused, RefusedTopics(Backoff(0.05, 0.05))),
            delivery=EventDelivery(lambda payload: payload, None, lambda: None, lambda: self.now),
            handle_command=lambda name, *_: self.commands.append(name),
        )
        self.connection = BrokerConnection(
            MqttSettings(host="127.0.0.1", port=port, device="kiosk"),
            "kiosk",
            will="fer-edge/kiosk/availability",
            subscriptions=Subscriptions((f"{TOPICS.commands}+", *retained.birth_topics), Backoff(0.05, 0.05)),
            backoff=Backoff(0.05, 0.05),
            listener=self.sender,
        )
        self.connection.start()

    def add(self, *ids: str) -> None:
        self.outbox.add([b'{"id":"%s"}' % one.encode() for one in ids])
        self.connection.wake()

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.connection.wake()


@contextmanager
def sending(folder: Path, port: int, *announced: Announcement) -> Iterator[Sending]:
    outbox = Outbox(folder / "outbox.db", 100)
    made = Sending(outbox, announced)
    made.start(port)
    yield made
    made.connection.stop()
    made.connection.join(5)
    outbox.close()


def test_an_event_over_which_connections_end_is_tried_again_after_ten_minutes(broker: Broker, tmp_path: Path) -> None:
    """On the same connection: a good network may keep it for weeks."""
    with (
        cutting(broker.port, 10, lambda data, _: b'"poison"' in data) as proxy,
        listening(broker.port) as listener,
        sending(tmp_path, proxy.port) as device,
    ):
        device.add("1", "poison", "2")
        wait_until(lambda: proxy.cuts == 10 and set(listener.ids()) == {"1", "2"}, 15)
        assert device.faults[-1]
        assert "connections end again and again" in device.faults[-1].sentence
        device.pass_time(599)
        device.add("3")
        wait_until(lambda: "3" in listener.ids() and device.outbox.figures.waiting == 1, 5)
        assert "poison" not in listener.ids()
        device.pass_time(1)
        wait_until(lambda: not device.outbox.figures.waiting, 5)
        assert listener.ids()[-1] == "poison"
        assert device.faults[-1] is None


def test_what_gets_no_answer_is_sent_again_on_a_new_connection(
    broker: Broker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A broker may hang while its computer still acknowledges what TCP brings. Of too many replies the newest count."""
    with (
        caplog.at_level(logging.WARNING),
        listening(broker.port) as listener,
        sending(tmp_path, broker.port) as device,
    ):
        wait_until(lambda: device.connection.up, 5)
        broker.freeze()
        replies = [Reply(command="pause", id=str(number), ok=True) for number in range(23)]
        for reply in replies[:20]:
            device.sender.put_reply(reply)
        device.connection.wake()
        wait_until(lambda: not device.sender.busy, 5)  # the 20 messages that may be in flight are
        for reply in replies[20:]:
            device.sender.put_reply(reply)
        device.add("1")
        assert device.sender.busy
        device.pass_time(30)
        device.pass_time(0.1)
        wait_until(lambda: "no acknowledgement in 30 s" in caplog.text, 5)
        broker.thaw()
        wait_until(lambda: not device.sender.busy and not device.outbox.figures.waiting, 10)
        wait_until(lambda: listener.ids()[-1:] == ["1"], 5)
        received = [reply["id"] for reply in listener.json("reply")]
    assert received[-20:] == [str(number) for number in range(3, 23)]


def test_announcements_are_sent_again_when_their_reader_starts_and_only_then(broker: Broker, tmp_path: Path) -> None:
    """Not when it ends, and not on each connection because its last start is retained."""
    status, config = "homeassistant/status", "homeassistant/device/x/config"
    with listening(broker.port) as listener:
        listener.client.publish(status, "online", qos=1, retain=True).wait_for_publish(5)
        with sending(tmp_path, broker.port, Announcement(config, b"{}", status)) as device:

            def announced(after: str) -> int:
                """How often, once the device has received all that was said before, and five seconds have passed."""
                listener.send(f"command/{after}")
                wait_until(lambda: device.commands[-1:] == [after], 5)
                device.pass_time(5)
                device.sender.put_reply(Reply(command=after, id=after, ok=True))
                device.connection.wake()
                wait_until(lambda: f'"id":"{after}"' in (listener.last("reply") or ""), 5)
                return sum(topic == config for topic, _, _ in listener.messages)

            wait_until(lambda: device.connection.up, 5)
            assert announced("connected") == 1
            listener.client.publish(status, "offline", qos=1)
            assert announced("ended") == 1
            listener.client.publish(status, "online", qos=1)
            assert announced("started") == 2
