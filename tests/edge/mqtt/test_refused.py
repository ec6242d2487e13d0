"""Events that the broker does not take: they wait, and do not hold up others."""

import logging
import time
from pathlib import Path

import pytest

from edge.events.episodes import Change
from edge.mqtt.retained import Announcement
from tests.conftest import Broker, wait_until
from tests.edge.listener import listening
from tests.edge.mqtt.delivery import HAPPY, MOMENT, device, first_occurrences, persistent_session
from tests.edge.proxy import proxied

pytestmark = pytest.mark.slow


def restrict(broker: Broker, may: str) -> Path:
    """Start the broker again with an access list, and return its file."""
    rights = broker.folder / "rights"
    rights.write_text(may)
    broker.stop()
    broker.options += f"\nacl_file {rights}"
    broker.start()
    return rights


def test_refused_events_stay_and_are_delivered_once_they_may(persistent_broker: Broker, tmp_path: Path) -> None:
    rights = restrict(persistent_broker, "topic read #\ntopic write fer-edge/kiosk/fault\n")
    with (
        proxied(persistent_broker.port) as proxy,
        persistent_session(persistent_broker) as listener,
        device(tmp_path, proxy.port) as kiosk,
    ):
        kiosk.publish(100)
        wait_until(lambda: len(proxy.record.refused) > 25, 10)
        wait_until(lambda: listener.json("fault"), 5)
        assert "refuses events: Not authorized" in listener.json("fault")[-1]["sentence"]
        assert listener.json("fault")[-1]["code"] == kiosk.publisher.figures().fault == 8
        assert (proxy.record.acknowledged, kiosk.publisher.undelivered) == ([], 100)
        refused = len(proxy.record.refused)
        time.sleep(0.5)
        assert len(proxy.record.refused) - refused < 20, "tried with pauses, not in a storm"
        counted = kiosk.publisher.figures().refused
        assert counted <= 100, "each event counts once"
        proxy.cut()
        proxy.mend()
        wait_until(lambda: kiosk.publisher.figures().refused > counted, 5)  # and once more on another connection
        rights.write_text("topic readwrite #\n")
        persistent_broker.reread()
        kiosk.wait_until_delivered()
        assert set(proxy.record.acknowledged) == set(kiosk.published)
        wait_until(lambda: first_occurrences(listener.ids()) == kiosk.published and listener.last("fault") == "", 5)


def test_topics_that_were_refused_are_said_once_they_may_be(
    broker: Broker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The connection stays: mosquitto takes a changed access list without ending any."""
    rights = restrict(broker, "topic read #\n")
    with (
        caplog.at_level(logging.WARNING),
        proxied(broker.port) as proxy,
        listening(broker.port) as listener,
        device(tmp_path, proxy.port) as kiosk,
    ):
        kiosk.publisher.set_camera(is_open=True)
        wait_until(lambda: caplog.text.count("refuses fer-edge/kiosk/") == 3, 5)
        wait_until(lambda: not kiosk.publisher._sender.busy, 5)  # a refusal is an answer: nobody waits for another
        time.sleep(1.0)
        assert proxy.refused < 3 * 25, "tried with pauses, not in a storm"
        assert caplog.text.count("refuses fer-edge/kiosk/availability") == 1, "said once"
        rights.write_text("topic readwrite #\n")
        broker.reread()
        wait_until(lambda: listener.last("availability") == listener.last("camera") == "online", 5)
        assert proxy.connections == 1


@pytest.mark.parametrize("option", ["message_size_limit 350", "max_packet_size 390"])
def test_an_event_that_is_too_large_for_the_broker_does_not_hold_up_the_others(
    persistent_broker: Broker, tmp_path: Path, option: str
) -> None:
    persistent_broker.stop()
    persistent_broker.options += f"\n{option}"
    persistent_broker.start()
    with proxied(persistent_broker.port) as proxy, device(tmp_path, proxy.port) as kiosk:
        kiosk.publish(50)
        large = kiosk.factory.event(Change(1, "changed", HAPPY.__class__("x" * 400, 1.0, {}), 0.0), MOMENT)
        kiosk.publisher.publish_event(large)
        kiosk.publish(50)
        wait_until(lambda: set(kiosk.published) <= set(proxy.record.acknowledged), 10)
        wait_until(lambda: kiosk.publisher.figures().refused, 5)
        sent = len(proxy.record.published)
        time.sleep(0.5)
        assert len(proxy.record.published) - sent < 20, "no storm"
        assert proxy.connections <= 6, "found by a few lost connections, or stated by the broker beforehand"
        assert (kiosk.publisher.undelivered, kiosk.publisher.figures().fault) == (1, 8), (
            "it is kept, reported as a fault, and not counted as sent"
        )


def test_the_fault_ends_when_the_full_outbox_has_dropped_what_was_refused(
    persistent_broker: Broker, tmp_path: Path
) -> None:
    persistent_broker.stop()
    persistent_broker.options += "\nmax_packet_size 390"
    persistent_broker.start()
    with device(tmp_path, persistent_broker.port, most=3) as kiosk:
        large = kiosk.factory.event(Change(1, "changed", HAPPY.__class__("x" * 400, 1.0, {}), 0.0), MOMENT)
        kiosk.publisher.publish_event(large)
        wait_until(lambda: kiosk.publisher.figures().fault == 8, 5)
        kiosk.publish(100)
        kiosk.wait_until_delivered()
        wait_until(lambda: kiosk.publisher.figures().fault is None, 5)
        kiosk.publisher.announce([Announcement("homeassistant/device/x/config", b"x" * 400)])
        wait_until(lambda: not kiosk.publisher._sender.busy, 5)  # nobody waits for what is too large to be sent
        assert kiosk.publisher.figures().outbox.dropped
