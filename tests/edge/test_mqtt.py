"""Against a real mosquitto on loopback."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jsonschema
import numpy as np
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edge.classify import expression
from edge.clock import live_time
from edge.contract import LABELS
from edge.episodes import Change
from edge.errors import SettingsError
from edge.events import EventMaker, schema
from edge.mqtt import MqttSink, device_id
from edge.records import Event, EventKind
from edge.settings import Mqtt
from tests.conftest import Broker, free_port, wait_until

pytestmark = pytest.mark.slow

MAKER = EventMaker(live_time(), lambda: False)


def event(kind: EventKind, track: int = 1, label: str = "happy") -> Event:
    return MAKER.event(Change(track, kind, expression(np.eye(7)[LABELS.index(label)]), 0.0))


class Listener:
    """A subscriber that notes every message: (topic, payload, retained)."""

    def __init__(self, port: int) -> None:
        self.messages: list[tuple[str, str, bool]] = []
        self._ready = False
        self.client = paho.Client(CallbackAPIVersion.VERSION2)
        self.client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        self.client.on_subscribe = lambda *_: setattr(self, "_ready", True)
        self.client.on_message = lambda _c, _d, m: self.messages.append((m.topic, m.payload.decode(), m.retain))
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        wait_until(lambda: self._ready, 5)

    def of(self, topic: str) -> list[str]:
        return [payload for heard, payload, _retained in self.messages if heard == f"fer-edge/kiosk/{topic}"]


@contextmanager
def listening(port: int) -> Iterator[Listener]:
    listener = Listener(port)
    yield listener
    listener.client.disconnect()
    listener.client.loop_stop()


def settings(port: int, **more: str) -> Mqtt:
    return Mqtt(host="127.0.0.1", port=port, device="kiosk", **more)


def test_events_state_and_availability_reach_a_subscriber(broker: Broker) -> None:
    with listening(broker.port) as listener:
        sink = MqttSink(settings(broker.port))
        sent = [event("appeared"), event("appeared", 2, "sad"), event("changed", 1, "neutral"), event("left", 1)]
        for one in sent:
            sink.tell(one)
        assert sink.close(5) == 0
        wait_until(lambda: "offline" in listener.of("availability"), 5)
    assert listener.of("availability") == ["online", "offline"]
    received = [json.loads(payload) for payload in listener.of("event")]
    assert [one["id"] for one in received] == [one.id for one in sent]
    for one in received:
        jsonschema.validate(one, schema())
    states = [json.loads(payload) for payload in listener.of("state")]
    assert states[-1] == {"faces": 1, "track": 2, "expression": "sad", "confidence": 1.0}


def test_state_is_retained_and_events_are_not(broker: Broker) -> None:
    sink = MqttSink(settings(broker.port))
    sink.tell(event("appeared"))
    assert sink.close(5) == 0
    with listening(broker.port) as late:
        wait_until(lambda: late.of("availability") == ["offline"] and bool(late.of("state")), 5)
        assert late.of("event") == []
        assert json.loads(late.of("state")[-1])["expression"] == "happy"


def test_a_device_that_dies_is_offline_by_its_last_will(broker: Broker) -> None:
    with listening(broker.port) as listener:
        sink = MqttSink(settings(broker.port))
        wait_until(lambda: listener.of("availability") == ["online"], 5)
        socket = sink._client.socket()
        assert socket is not None
        sink._client.loop_stop()
        socket.close()
        wait_until(lambda: listener.of("availability") == ["online", "offline"], 5)


def test_events_told_while_the_broker_is_absent_arrive_when_it_comes(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    broker.stop()
    with caplog.at_level(logging.WARNING):
        sink = MqttSink(settings(broker.port))
        sent = [event("appeared"), event("left")]
        for one in sent:
            sink.tell(one)
        wait_until(lambda: "no MQTT broker answers" in caplog.text, 5)
    assert sink.unacknowledged() == 4
    broker.start()
    with listening(broker.port) as listener:
        wait_until(lambda: len(listener.of("event")) == 2, 15)
        assert [json.loads(payload)["id"] for payload in listener.of("event")] == [one.id for one in sent]
        assert sink.close(5) == 0


def test_a_restart_of_the_broker_is_survived(broker: Broker) -> None:
    sink = MqttSink(settings(broker.port))
    with listening(broker.port) as listener:
        sink.tell(event("appeared"))
        wait_until(lambda: len(listener.of("event")) == 1, 5)
    broker.stop()
    sink.tell(event("left"))
    broker.start()
    with listening(broker.port) as listener:
        wait_until(lambda: listener.of("availability")[-1:] == ["online"] and len(listener.of("event")) == 1, 15)
        assert sink.close(5) == 0


def test_a_broker_that_refuses_is_not_connected_and_says_why(
    broker: Broker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broker.stop()
    broker.options = broker.options.replace("allow_anonymous true", "allow_anonymous false")
    broker.start()
    password = tmp_path / "password"
    password.write_text("secret\n")
    with caplog.at_level(logging.WARNING):
        sink = MqttSink(settings(broker.port, username="kiosk", password_file=str(password)))
        sink.tell(event("appeared"))
        wait_until(lambda: "refuses the connection" in caplog.text, 5)
        assert sink.close(0.2) == 2
    assert "Not authorized" in caplog.text
    assert "secret" not in caplog.text


def test_an_unusable_password_or_certificate_file_is_a_settings_error(tmp_path: Path) -> None:
    absent = str(tmp_path / "absent")
    with pytest.raises(SettingsError, match="absent"):
        MqttSink(settings(free_port(), username="kiosk", password_file=absent))
    with pytest.raises(SettingsError, match="absent"):
        MqttSink(settings(free_port(), ca_file=absent))


def test_the_device_is_named_by_the_settings_or_by_the_machine() -> None:
    assert device_id(Mqtt(device="kiosk")) == "kiosk"
    assert device_id(Mqtt())
