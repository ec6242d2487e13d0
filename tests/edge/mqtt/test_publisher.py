"""Against a real mosquitto on loopback."""

import json
import logging
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from edge.errors import DeliveryError, SettingsError
from edge.events.episodes import Change
from edge.events.factory import EventFactory
from edge.labels import FER2013_LABELS
from edge.model.preprocessing import expression
from edge.monitoring.statistics import StatisticsCollector
from edge.mqtt.outbox import Outbox
from edge.mqtt.publisher import MqttPublisher
from edge.mqtt.retained import Announcement
from edge.records import Event, EventKind, Fault
from edge.settings import HomeAssistantSettings, MqttSettings, load_settings
from edge.system.clock import live_time, moment
from tests.conftest import ROOT, Broker, free_port, wait_until
from tests.edge.listener import listening
from tests.edge.monitoring.test_statistics import given, pi
from tests.edge.proxy import proxied

pytestmark = pytest.mark.slow

TIME = "2026-11-22T11:00:00+00:00"
FACTORY, ORIGIN = EventFactory(), live_time()


def event(kind: EventKind, track: int = 1, label: str = "happy") -> Event:
    return FACTORY.event(
        Change(track, kind, expression(np.eye(7)[FER2013_LABELS.index(label)], FER2013_LABELS), 0.0), moment(ORIGIN)
    )


def settings(port: int, **more: str | int) -> MqttSettings:
    return MqttSettings(host="127.0.0.1", port=port, device="kiosk", **more)


Start = Callable[..., MqttPublisher]
HOME_ASSISTANT = HomeAssistantSettings(enabled=True, event_max_age=3.0)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts publishers that share an outbox file, and tries again quickly; closes what a test leaves open."""
    made: list[MqttPublisher] = []

    def starting(
        mqtt: MqttSettings, *announcements: Announcement, most: int = 1000, **more: HomeAssistantSettings
    ) -> MqttPublisher:
        publisher = MqttPublisher(mqtt, Outbox(tmp_path / "outbox.db", most), announcements, longest_wait=0.2, **more)
        publisher.set_camera(is_open=True)
        publisher.start()
        made.append(publisher)
        return publisher

    yield starting
    for publisher in made:
        if publisher._connection.is_alive():
            publisher.close(1)


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_events_state_and_availability_reach_a_subscriber(broker: Broker, start: Start, protocol: str) -> None:
    with listening(broker.port) as listener:
        publisher = start(settings(broker.port, protocol=protocol))
        sent = [event("appeared"), event("appeared", 2, "sad"), event("changed", 1, "neutral"), event("left", 1)]
        for one in sent:
            publisher.publish_event(one)
        wait_until(lambda: len(listener.of("event")) == 4 and listener.json("state")[-1]["faces"] == 1, 5)
        states = listener.json("state")
        assert publisher.close(5) == 0
        wait_until(lambda: "offline" in listener.of("availability"), 5)
    assert listener.of("availability") == ["online", "offline"]
    assert listener.ids() == [one.id for one in sent]
    for received in listener.json("event"):
        jsonschema.validate(received, json.loads((ROOT / "docs" / "event.schema.json").read_text()))
    assert states[-1] == {
        "faces": 1,
        "track": 2,
        "expression": "sad",
        "confidence": 1.0,
        "reason": None,
        "since": sent[1].time,
    }


def test_state_is_retained_and_events_are_not(broker: Broker, start: Start) -> None:
    publisher = start(settings(broker.port))
    publisher.publish_event(event("appeared"))
    wait_until(lambda: not publisher.undelivered, 5)
    with listening(broker.port) as late:
        wait_until(lambda: late.of("availability") == ["online"] and bool(late.of("state")), 5)
        assert late.of("event") == []
        assert late.json("state")[-1]["expression"] == "happy"


def test_a_device_that_stops_leaves_no_faces_in_the_retained_state(broker: Broker, start: Start) -> None:
    """After a fault it used to name the last faces until the next connection."""
    publisher = start(settings(broker.port))
    publisher.publish_event(event("appeared"))
    publisher.faults.set("service", Fault(5, "no camera", "2026-11-22T11:00:00+00:00"))
    assert publisher.close(5) == 0
    with listening(broker.port) as late:
        wait_until(lambda: late.of("availability") == ["offline"] and bool(late.of("fault")), 5)
        state = late.json("state")[-1]
        assert (state.pop("faces"), set(state.values())) == (0, {None})


def test_availability_comes_after_the_state_on_every_connection(broker: Broker, start: Start) -> None:
    with proxied(broker.port) as proxy, listening(broker.port) as listener:
        publisher = start(settings(proxy.port))
        wait_until(lambda: listener.last("availability") == "online", 5)
        proxy.cut()
        wait_until(lambda: listener.last("availability") == "offline", 5)
        publisher.publish_event(event("appeared"))
        proxy.mend()
        wait_until(lambda: listener.last("availability") == "online", 5)
        order = [topic.rpartition("/")[2] for topic, _, _ in listener.messages]
        again = order[order.index("availability") + 2 :]
        assert again.index("state") < again.index("availability")
        assert listener.json("state")[-1]["faces"] == 1


def test_old_events_reach_no_automation_but_every_other_subscriber(broker: Broker, start: Start) -> None:
    with proxied(broker.port) as proxy, listening(broker.port) as listener:
        publisher = start(settings(proxy.port), homeassistant=HOME_ASSISTANT)
        now = event("appeared")
        publisher.publish_event(now)
        wait_until(lambda: listener.of("homeassistant/event") and listener.of("event"), 5)
        proxy.cut()
        wait_until(lambda: listener.last("availability") == "offline", 5)
        old = event("changed")
        publisher.publish_event(old)
        time.sleep(3.2)
        young = event("left")
        publisher.publish_event(young)
        proxy.mend()
        wait_until(lambda: len(set(listener.ids())) == 3 and len(listener.of("homeassistant/event")) == 2, 10)
        live = listener.json("homeassistant/event")
    assert [one["id"] for one in live] == [now.id, young.id]
    assert all(one["late"] < 3.0 for one in live)
    assert all("late" in one for one in listener.json("event"))


def test_a_camera_that_closes_is_not_one_that_sees_nobody(broker: Broker, start: Start) -> None:
    with listening(broker.port) as listener:
        publisher = start(settings(broker.port))
        publisher.publish_event(event("appeared"))
        wait_until(lambda: listener.of("state") and listener.json("state")[-1]["faces"] == 1, 5)
        publisher.faults.set("service", Fault(10, "the camera hangs", "2026-11-22T11:00:00+00:00"))
        publisher.close(5)
        wait_until(lambda: listener.last("availability") == "offline", 5)
        order = [(topic.rpartition("/")[2], payload) for topic, payload, _ in listener.messages]
    after = order[order.index(("camera", "offline")) :]
    assert [json.loads(payload)["faces"] for topic, payload in after if topic == "state"] == [0]


def test_a_device_without_a_frame_stays_offline_and_names_its_fault(broker: Broker, tmp_path: Path) -> None:
    """Each attempt used to be online for a second."""
    publisher = MqttPublisher(settings(broker.port), Outbox(tmp_path / "o.db", 10), homeassistant=HOME_ASSISTANT)
    with listening(broker.port) as listener:
        publisher.start()
        wait_until(lambda: listener.of("state"), 5)
        publisher.faults.set("service", Fault(5, "no camera", TIME))
        publisher.close(5)
        wait_until(lambda: listener.of("fault") and listener.of("homeassistant/fault"), 5)
    assert set(listener.of("availability")) == {"offline"}
    assert listener.json("homeassistant/fault")[-1] == {
        "problem": True,
        "code": 5,
        "sentence": "no camera",
        "time": TIME,
    }


def test_the_fault_for_home_assistant_says_also_that_there_is_none(broker: Broker, start: Start) -> None:
    publisher = start(settings(broker.port), homeassistant=HOME_ASSISTANT)
    publisher.faults.set("service", None)
    wait_until(lambda: not publisher._sender.busy, 5)
    with listening(broker.port) as late:
        wait_until(lambda: late.of("homeassistant/fault"), 5)
        assert late.json("homeassistant/fault") == [{"problem": False, "code": None, "sentence": None, "time": None}]


def test_the_same_state_is_not_sent_again(broker: Broker, start: Start) -> None:
    with listening(broker.port) as listener:
        publisher = start(settings(broker.port))
        for _ in range(50):
            publisher.set_paused(False)
            publisher.faults.set("service", None)
        publisher.set_paused(True)
        wait_until(lambda: listener.last("paused") == "ON", 5)
        assert len(listener.of("paused")) <= 2
        assert len(listener.of("fault")) <= 1


def test_a_device_whose_connection_breaks_is_offline_by_its_last_will(broker: Broker, start: Start) -> None:
    with proxied(broker.port) as proxy, listening(broker.port) as listener:
        start(settings(proxy.port))
        wait_until(lambda: listener.of("availability") == ["online"], 5)
        proxy.cut()
        wait_until(lambda: listener.of("availability") == ["online", "offline"], 5)


def test_a_device_that_stops_beside_a_slow_broker_is_offline_all_the_same(broker: Broker, start: Start) -> None:
    """The broker allows one message without an answer, and that is an event: there is no room to say offline."""
    broker.stop()
    broker.options += "\nmax_inflight_messages 1"
    broker.start()
    with listening(broker.port) as listener:
        publisher = start(settings(broker.port))
        wait_until(lambda: listener.last("availability") == "online", 5)
        broker.freeze()
        publisher.publish_event(event("appeared"))
        assert publisher.close(1) == 1
        broker.thaw()
        wait_until(lambda: listener.last("availability") == "offline", 5)


def test_events_published_while_the_broker_is_absent_arrive_when_it_comes(
    broker: Broker, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    broker.stop()
    with caplog.at_level(logging.WARNING):
        publisher = start(settings(broker.port))
        for kind in ("appeared", "left"):
            publisher.publish_event(event(kind))
        wait_until(lambda: "no MQTT broker answers" in caplog.text, 5)
    assert publisher.undelivered == 2
    broker.start()
    wait_until(lambda: not publisher.undelivered, 15)
    assert publisher.close(5) == 0


def test_a_broker_that_refuses_is_not_connected_and_says_why(
    broker: Broker, start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broker.stop()
    broker.options = broker.options.replace("allow_anonymous true", "allow_anonymous false")
    broker.start()
    password = tmp_path / "password"
    password.write_text("secret\n")
    with caplog.at_level(logging.WARNING):
        publisher = start(settings(broker.port, username="kiosk", password_file=str(password)))
        publisher.publish_event(event("appeared"))
        wait_until(lambda: "refuses the connection" in caplog.text, 5)
        assert publisher.close(0.2) == 1
    assert "Not authorized" in caplog.text
    assert "secret" not in caplog.text


def test_the_same_failure_over_and_over_is_logged_once(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        publisher = start(settings(free_port()))
        attempts: list[int] = []
        wait_until(lambda: attempts.append(1) or len(attempts) > 50, 5)
        publisher.close(0.2)
    assert caplog.text.count("no MQTT broker answers") == 1


HINT = "is the network bad, or has another device the same name?"


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_two_devices_with_one_name_are_reported(
    broker: Broker, tmp_path: Path, caplog: pytest.LogCaptureFixture, protocol: str
) -> None:
    mqtt = settings(broker.port, protocol=protocol)
    publishers = [MqttPublisher(mqtt, Outbox(tmp_path / f"{n}.db", 10), longest_wait=0.5) for n in range(2)]
    with caplog.at_level(logging.WARNING):
        for publisher in publishers:
            publisher.start()
        wait_until(lambda: HINT in caplog.text, 10)
        for publisher in publishers:
            publisher.close(1)


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_network_that_breaks_again_and_again_is_not_taken_for_another_device(
    broker: Broker, start: Start, caplog: pytest.LogCaptureFixture, protocol: str
) -> None:
    """Connections are short, as those of two devices are; but the network stays away for a while each time."""
    with proxied(broker.port, 5 if protocol == "5" else 4) as proxy, caplog.at_level(logging.WARNING):
        publisher = start(settings(proxy.port, protocol=protocol))
        for breaks in range(1, 6):
            wait_until(lambda: caplog.text.count("connected to the MQTT broker") >= breaks, 10)  # noqa: B023
            proxy.cut()
            wait_until(lambda: caplog.text.count("closes the connection without a reason") >= breaks, 10)  # noqa: B023
            proxy.mend()
        assert caplog.text.count("lost the MQTT broker") == 5
        publisher.close(1)
    assert HINT not in caplog.text


def test_an_announcement_is_retained_repeated_at_birth_and_taken_back(broker: Broker, start: Start) -> None:
    topic, done = "homeassistant/device/x/config", []
    with listening(broker.port) as listener:
        publisher = start(settings(broker.port), Announcement(topic, b"{}", "homeassistant/status"))

        def announced() -> list[str]:
            return [payload for heard, payload, _ in listener.messages if heard == topic]

        wait_until(lambda: announced() == ["{}"], 5)
        listener.client.publish("homeassistant/status", "online", qos=1)
        wait_until(lambda: announced() == ["{}", "{}"], 8)
        publisher.close(2)
        start(settings(broker.port), Announcement(topic, b"", done=lambda: done.append(topic)))
        wait_until(lambda: announced()[-1] == "" and done == [topic], 5)
    with listening(broker.port) as late:
        wait_until(lambda: late.of("availability"), 5)
        assert not [heard for heard, _, _ in late.messages if heard == topic]


def test_an_unusable_password_or_certificate_file_is_a_settings_error(tmp_path: Path) -> None:
    absent = str(tmp_path / "absent")
    for wrong in (
        {"username": "kiosk", "password_file": absent},
        {"ca_file": absent},
        {"cert_file": absent},
    ):
        outbox = Outbox(tmp_path / "outbox.db", 10)
        with pytest.raises(SettingsError, match="absent"):
            MqttPublisher(settings(free_port(), **wrong), outbox)
        outbox.close()


def certificates(folder: Path) -> None:
    """Two authorities, and of the first a certificate of the broker and one of the device, as openssl makes them."""

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    for name in ("stranger", "ca"):
        subject = ("-subj", f"/CN={name}", "-days", "2")
        openssl("req", "-x509", *new_key, "-keyout", f"{name}.key", "-out", f"{name}.pem", *subject)
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    for name in ("broker", "device"):
        openssl("req", *new_key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names", "-days", "2")
        openssl("x509", "-req", "-in", f"{name}.csr", *signing, "-out", f"{name}.pem")


@pytest.mark.parametrize("scheme", ["mqtts", "ws", "wss"])
def test_a_broker_is_reached_by_its_address(broker: Broker, start: Start, tmp_path: Path, scheme: str) -> None:
    port = free_port()
    broker.stop()
    broker.options += f"\nlistener {port} 127.0.0.1\nallow_anonymous true"
    ca_file = ""
    if scheme != "mqtts":
        broker.options += "\nprotocol websockets"
    if scheme != "ws":
        certificates(tmp_path)
        broker.options += f"\ncertfile {tmp_path}/broker.pem\nkeyfile {tmp_path}/broker.key"
        ca_file = str(tmp_path / "ca.pem")
    broker.start()
    config = tmp_path / "config.toml"
    config.write_text(f'[mqtt]\nurl = "{scheme}://127.0.0.1:{port}"\ndevice = "kiosk"\nca_file = "{ca_file}"\n')
    with listening(broker.port) as listener:
        publisher = start(load_settings(config).mqtt)
        for _ in range(30):
            publisher.publish_event(event("appeared"))
        wait_until(lambda: len(listener.of("event")) == 30, 10)
        assert publisher.close(5) == 0
        wait_until(lambda: "offline" in listener.of("availability"), 5)


@pytest.mark.parametrize("own", [True, False])
def test_a_broker_that_wants_the_devices_certificate(
    broker: Broker, start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture, *, own: bool
) -> None:
    certificates(tmp_path)
    broker.stop()
    broker.options += "\nrequire_certificate true"
    for option, file in (("cafile", "ca.pem"), ("certfile", "broker.pem"), ("keyfile", "broker.key")):
        broker.options += f"\n{option} {tmp_path / file}"
    broker.start()
    ours = {"cert_file": str(tmp_path / "device.pem"), "key_file": str(tmp_path / "device.key")} if own else {}
    with caplog.at_level(logging.WARNING):
        publisher = start(settings(broker.port, ca_file=str(tmp_path / "ca.pem"), **ours))
        publisher.publish_event(event("appeared"))
        if own:
            wait_until(lambda: not publisher.undelivered, 5)
        else:
            wait_until(lambda: "Does it want a certificate of this device (mqtt.cert_file)?" in caplog.text, 5)
            assert publisher.close(0.5) == 1


# paho leaves closing a socket whose handshake has failed to the garbage collector, which does so at once.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_broker_with_a_strangers_certificate_gets_nothing(
    broker: Broker, start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    certificates(tmp_path)
    broker.stop()
    broker.options += f"\ncertfile {tmp_path}/broker.pem\nkeyfile {tmp_path}/broker.key"
    broker.start()
    with caplog.at_level(logging.WARNING):
        publisher = start(settings(broker.port, ca_file=str(tmp_path / "stranger.pem")))
        publisher.publish_event(event("appeared"))
        wait_until(lambda: "is not trusted" in caplog.text, 5)
        assert "Does mqtt.ca_file name the authority that signed it" in caplog.text
        assert "no MQTT broker answers" not in caplog.text, "it does answer"
        descriptors = len(list(Path("/proc/self/fd").iterdir()))
        attempts = publisher._connection._backoff._failures
        wait_until(lambda: publisher._connection._backoff._failures > attempts + 5, 10)
        assert len(list(Path("/proc/self/fd").iterdir())) <= descriptors + 2, "they are not used up"
        assert publisher.close(0.5) == 1


def test_of_all_but_events_only_the_newest_is_sent(broker: Broker, start: Start, tmp_path: Path) -> None:
    labels = ["happy", "sad", "happy", "fear", "neutral"]
    with proxied(broker.port) as proxy, listening(broker.port) as listener:
        proxy.cut()
        publisher = start(settings(proxy.port))
        collector = StatisticsCollector(1.0, pi(tmp_path))
        for number, label in enumerate(labels):
            publisher.publish_event(event("changed", 1, label))
            publisher.set_paused(number % 2 == 0)
            publisher.publish_statistics(collector.collect({}, replace(given(), frames_dropped=number)))
        wait_until(lambda: publisher._outbox.figures.waiting == 5 and not publisher._committer.uncommitted, 5)
        proxy.mend()
        wait_until(lambda: len(listener.of("event")) == 5 and listener.of("statistics"), 10)
        assert publisher.close(5) == 0
        assert [one["frames_dropped"] for one in listener.json("statistics")] == [4]
        assert listener.of("paused") == ["ON"]
        # The last one has no face.
        assert [one["expression"] for one in listener.json("state")] == ["neutral", None]
        assert [one["expression"]["label"] for one in listener.json("event")] == labels


def test_the_fault_that_began_first_is_published_until_it_ends(broker: Broker, start: Start) -> None:
    with listening(broker.port) as listener:
        publisher = start(settings(broker.port))
        publisher.faults.set("service", Fault(5, "no camera", "2026-11-22T11:00:00+00:00"))
        publisher.faults.set("outbox", Fault(18, "no disk", "2026-11-22T11:00:01+00:00"))
        wait_until(lambda: listener.of("fault") != [], 5)
        assert publisher.figures().fault == 5
        publisher.faults.set("service", None)
        wait_until(lambda: json.loads(listener.last("fault") or "{}").get("code") == 18, 5)
        publisher.faults.set("outbox", None)
        wait_until(lambda: listener.last("fault") == "", 5)
        assert publisher.figures().fault is None


@pytest.mark.parametrize("ends_with", [None, 5])
def test_with_offline_the_fault_says_why_it_ended_and_nothing_else(
    broker: Broker, start: Start, ends_with: int | None
) -> None:
    """It used to name a full disk for ever, though the process had ended in order."""
    with listening(broker.port) as listener:
        publisher = start(settings(broker.port))
        publisher.faults.set("outbox", Fault(18, "no disk", "2026-11-22T11:00:01+00:00"))
        wait_until(lambda: listener.json("fault"), 5)
        if ends_with:
            publisher.faults.set("service", Fault(ends_with, "no camera", "2026-11-22T11:00:02+00:00"))
        assert publisher.close(5) == 0
        wait_until(lambda: listener.last("availability") == "offline", 5)
        assert json.loads(listener.last("fault") or "{}").get("code") == ends_with


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_ends_with_a_bug_is_noticed(broker: Broker, tmp_path: Path) -> None:
    def bug(*_: object) -> None:
        raise ValueError("a bug")

    publisher = MqttPublisher(settings(broker.port), Outbox(tmp_path / "outbox.db", 10))
    publisher.set_camera(is_open=True)
    publisher.start(bug)
    publisher.check_threads()
    with listening(broker.port) as listener:
        wait_until(lambda: listener.last("availability") == "online", 5)
        listener.send("command/verify")
        wait_until(lambda: not publisher._connection.is_alive(), 5)
    with pytest.raises(DeliveryError, match="ended with a bug"):
        publisher.check_threads()
    publisher.close(0.5)
