"""The contract of the outbox, with a real mosquitto: what was committed is acknowledged, or dropped and counted."""

import random
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest

from tests.conftest import Broker, wait_until
from tests.edge.mqtt.delivery import (
    assert_none_lost,
    device,
    persistent_session,
)
from tests.edge.proxy import proxied

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("protocol", "version"), [("5", 5), ("3.1.1", 4)])
def test_thousands_of_events_over_connections_that_break(
    persistent_broker: Broker, tmp_path: Path, protocol: str, version: int
) -> None:
    chance = random.Random(1)
    proxying, starting = proxied(persistent_broker.port, version), partial(device, tmp_path, protocol=protocol)
    with proxying as proxy, persistent_session(persistent_broker) as listener, starting(proxy.port) as kiosk:
        for _ in range(15):
            kiosk.publish(200)
            time.sleep(chance.uniform(0, 0.1))
            proxy.cut()
            kiosk.publish(20)
            time.sleep(chance.uniform(0, 0.05))
            proxy.mend()
        while proxy.connections <= 5:  # how many there were is up to chance: attempts are jittered
            before = proxy.connections
            proxy.cut()
            kiosk.publish(20)
            proxy.mend()
            wait_until(lambda: proxy.connections > before, 20)  # noqa: B023  called before the next round
        kiosk.wait_until_delivered()
        assert (kiosk.outbox.committed, kiosk.outbox.figures.dropped) == (len(kiosk.published), 0)
        assert_none_lost(kiosk.published, proxy, listener)
        repeats = len(proxy.record.published) - len(kiosk.published)
        print(f"{len(kiosk.published)} events, {proxy.connections} connections, {repeats} sent again")
        assert repeats <= 20 * proxy.connections, "no more than a window is sent again for each connection"


def test_orderly_restarts_of_the_broker(persistent_broker: Broker, tmp_path: Path) -> None:
    with (
        proxied(persistent_broker.port) as proxy,
        persistent_session(persistent_broker) as listener,
        device(tmp_path, proxy.port) as kiosk,
    ):
        for _ in range(3):
            kiosk.publish(500)
            time.sleep(0.1)
            persistent_broker.stop()
            kiosk.publish(50)
            persistent_broker.start()
        kiosk.wait_until_delivered()
        assert_none_lost(kiosk.published, proxy, listener)


def test_a_broker_absent_at_boot_and_an_outbox_that_overflows(persistent_broker: Broker, tmp_path: Path) -> None:
    persistent_broker.stop()
    with device(tmp_path, persistent_broker.port, most=500) as kiosk:
        kiosk.publish(1200)
        wait_until(lambda: not kiosk.publisher._committer.uncommitted, 10)
        published = kiosk.published
        assert (kiosk.outbox.figures.waiting, kiosk.outbox.figures.dropped) == (500, 700)
    persistent_broker.start()
    with proxied(persistent_broker.port) as proxy, persistent_session(persistent_broker) as listener:
        with device(tmp_path, proxy.port, most=500) as kiosk:
            kiosk.wait_until_delivered()
            assert kiosk.outbox.figures.dropped == 700, "counted for ever"
        assert len(published) == len(set(proxy.record.acknowledged)) + 700
        assert_none_lost(published[700:], proxy, listener)


def test_a_wrong_password_that_is_then_corrected(persistent_broker: Broker, tmp_path: Path) -> None:
    subprocess.run(["mosquitto_passwd", "-b", "-c", tmp_path / "users", "kiosk", "sesame"], check=True)
    subprocess.run(["mosquitto_passwd", "-b", tmp_path / "users", "watcher", "watching"], check=True)
    persistent_broker.stop()
    persistent_broker.options = persistent_broker.options.replace(
        "anonymous true", f"anonymous false\npassword_file {tmp_path / 'users'}"
    )
    persistent_broker.start()
    password = tmp_path / "password"
    password.write_text("wrong\n")
    mqtt = {"username": "kiosk", "password_file": str(password)}
    watcher = persistent_session(persistent_broker, ("watcher", "watching"))
    with proxied(persistent_broker.port) as proxy, watcher as listener, device(tmp_path, proxy.port, **mqtt) as kiosk:
        kiosk.publish(1000)
        wait_until(lambda: proxy.connections > 3, 10)
        assert proxy.record.published == []
        password.unlink()
        time.sleep(0.3)
        password.write_text("sesame\n")
        kiosk.wait_until_delivered()
        assert_none_lost(kiosk.published, proxy, listener)


def test_the_disk_is_tried_again_while_the_broker_is_away(persistent_broker: Broker, tmp_path: Path) -> None:
    file = tmp_path / "outbox.db"
    file.mkdir()  # nothing can be stored there
    with (
        proxied(persistent_broker.port) as proxy,
        persistent_session(persistent_broker) as listener,
        device(tmp_path, proxy.port) as kiosk,
    ):
        kiosk.publish(1)
        kiosk.wait_until_delivered()
        persistent_broker.freeze()
        kiosk.publish(3)
        wait_until(lambda: proxy.record.first_published() == kiosk.published, 10)
        proxy.cut()
        persistent_broker.thaw()
        kiosk.publish(2)
        assert not kiosk.outbox.figures.durable
        file.rmdir()
        wait_until(lambda: kiosk.outbox.figures.durable, 10)
        assert (kiosk.outbox.figures.waiting, kiosk.outbox.disk.error) == (5, "")
        proxy.mend()
        kiosk.wait_until_delivered()
        assert_none_lost(kiosk.published, proxy, listener)
        assert kiosk.outbox.figures.lost == kiosk.outbox.figures.dropped == 0


def test_a_full_disk_is_a_counted_published_fault_and_nothing_is_lost(
    persistent_broker: Broker, small_disk: Path
) -> None:
    with (
        proxied(persistent_broker.port) as proxy,
        persistent_session(persistent_broker) as listener,
        device(small_disk, proxy.port) as kiosk,
    ):
        kiosk.publish(50)
        kiosk.wait_until_delivered()
        ballast = small_disk / "ballast"
        with pytest.raises(OSError, match="No space left"):
            ballast.write_bytes(b"x" * 1_000_000)
        wait_until(lambda: kiosk.publish(50) or kiosk.outbox.disk.error, 10)
        wait_until(lambda: listener.json("fault"), 5)
        fault = listener.json("fault")[-1]
        assert (fault["code"], "database or disk is full" in fault["sentence"]) == (18, True)
        kiosk.wait_until_delivered()
        assert not kiosk.outbox.figures.durable
        ballast.unlink()
        wait_until(lambda: listener.last("fault") == "", 20)
        assert (kiosk.outbox.figures.durable, kiosk.outbox.figures.failed >= 1) == (True, True)
        kiosk.publish(50)
        kiosk.wait_until_delivered()
        assert_none_lost(kiosk.published, proxy, listener)


def test_a_clock_that_is_set_back(persistent_broker: Broker, tmp_path: Path) -> None:
    with (
        proxied(persistent_broker.port) as proxy,
        persistent_session(persistent_broker) as listener,
        device(tmp_path, proxy.port) as kiosk,
    ):
        kiosk.publish(300, at=0.0)
        proxy.cut()
        kiosk.publish(300, at=-86_400.0)
        proxy.mend()
        kiosk.wait_until_delivered()
        kiosk.publish(300, at=-3600.0)
        kiosk.wait_until_delivered()
        assert_none_lost(kiosk.published, proxy, listener)
        times = [event["time"] for event in listener.json("event")]
        assert times != sorted(times)
