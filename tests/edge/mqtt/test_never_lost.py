"""The contract of the outbox, with a real mosquitto: what was committed is acknowledged, or dropped and counted.

A proxy between device and broker notes what the broker acknowledged; a subscriber with a persistent session notes what
it got.
"""

import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from edge.events.episodes import Change
from edge.events.factory import EventFactory
from edge.model.preprocessing import expression
from edge.mqtt.outbox import Outbox
from edge.mqtt.publisher import MqttPublisher
from edge.settings import MqttSettings
from edge.system.clock import Moment
from tests.conftest import ROOT, Broker, wait_until
from tests.edge.listener import Listener, listening
from tests.edge.proxy import Proxy, proxied

pytestmark = pytest.mark.slow

MOMENT = Moment(datetime(2026, 11, 22, 10, 0, tzinfo=UTC), synced=False)
HAPPY = expression(np.eye(7)[3])


class Watched(Outbox):
    """An outbox that notes how many events it has committed: the contract is about those whose commit returned."""

    def __init__(self, file: Path, most: int) -> None:
        super().__init__(file, most)
        self.committed = 0

    def add(self, payloads: Sequence[bytes]) -> bool:
        committed = super().add(payloads)
        self.committed += len(payloads) * committed
        return committed


class Device:
    """What of a device matters here: an outbox, its sender, and events with growing ids."""

    def __init__(self, folder: Path, port: int, most: int = 100_000, **more: str | int) -> None:
        self.outbox = Watched(folder / "outbox.db", most)
        mqtt = MqttSettings(host=str(more.pop("host", "127.0.0.1")), port=port, device="kiosk", **more)
        self.publisher = MqttPublisher(mqtt, self.outbox, longest_wait=0.2)
        self.publisher.start()
        self.maker = EventFactory()
        self.told: list[str] = []

    def tell(self, count: int, at: float = 0.0) -> None:
        for _ in range(count):
            event = self.maker.event(Change(1, "changed", HAPPY, at), MOMENT)
            self.publisher.publish_event(event)
            self.told.append(event.id)

    def delivered(self, seconds: float = 15) -> None:
        wait_until(lambda: not self.publisher.undelivered, seconds)

    def end(self, seconds: float = 5) -> int:
        return self.publisher.close(seconds)


@contextmanager
def device(folder: Path, port: int, most: int = 100_000, **more: str | int) -> Iterator[Device]:
    made = Device(folder, port, most, **more)
    try:
        yield made
    finally:
        made.end(1)


@pytest.fixture
def keeping(broker: Broker) -> Broker:
    """A broker that keeps all messages of persistent sessions, also from one orderly start to the next."""
    broker.stop()
    broker.options += f"\nmax_queued_messages 100000\npersistence true\npersistence_location {broker.folder}/"
    broker.start()
    return broker


@contextmanager
def session(broker: Broker, user: tuple[str, str] | None = None) -> Iterator[Listener]:
    """A subscriber whose session outlives its connections."""
    Listener(broker.port, "session", user).close()
    with listening(broker.port, "session", user) as listener:
        yield listener


def first(ids: list[str]) -> list[str]:
    return list(dict.fromkeys(ids))


def spans(ids: list[str]) -> str:
    """Sequence numbers, in order, as ranges."""
    told = [int(one.split("-")[1]) for one in ids]
    begins = [n for n in told if n - 1 not in told]
    ends = [n for n in told if n + 1 not in told]
    return ", ".join(f"{begin}-{end}" for begin, end in zip(begins, ends, strict=True)) or "none"


def assert_none_lost(told: list[str], proxy: Proxy, listener: Listener) -> None:
    wait_until(lambda: set(told) <= set(listener.ids()), 20)
    assert set(proxy.record.acknowledged) == set(told)
    assert proxy.record.first_published() == told, "first occurrences keep their order"
    assert first(listener.ids()) == told


@pytest.mark.parametrize(("protocol", "version"), [("5", 5), ("3.1.1", 4)])
def test_thousands_of_events_over_connections_that_break(
    keeping: Broker, tmp_path: Path, protocol: str, version: int
) -> None:
    chance = random.Random(1)
    proxying, starting = proxied(keeping.port, version), partial(device, tmp_path, protocol=protocol)
    with proxying as proxy, session(keeping) as listener, starting(proxy.port) as kiosk:
        for _ in range(15):
            kiosk.tell(200)
            time.sleep(chance.uniform(0, 0.1))
            proxy.cut()
            kiosk.tell(20)
            time.sleep(chance.uniform(0, 0.05))
            proxy.mend()
        while proxy.connections <= 5:  # how many there were is up to chance: attempts are jittered
            before = proxy.connections
            proxy.cut()
            kiosk.tell(20)
            proxy.mend()
            wait_until(lambda: proxy.connections > before, 20)  # noqa: B023  called before the next round
        kiosk.delivered()
        assert (kiosk.outbox.committed, kiosk.outbox.figures.dropped) == (len(kiosk.told), 0)
        assert_none_lost(kiosk.told, proxy, listener)
        repeats = len(proxy.record.published) - len(kiosk.told)
        print(f"{len(kiosk.told)} events, {proxy.connections} connections, {repeats} sent again")
        assert repeats <= 20 * proxy.connections, "no more than a window is sent again for each connection"


def test_orderly_restarts_of_the_broker(keeping: Broker, tmp_path: Path) -> None:
    with proxied(keeping.port) as proxy, session(keeping) as listener, device(tmp_path, proxy.port) as kiosk:
        for _ in range(3):
            kiosk.tell(500)
            time.sleep(0.1)
            keeping.stop()
            kiosk.tell(50)
            keeping.start()
        kiosk.delivered()
        assert_none_lost(kiosk.told, proxy, listener)


def test_a_broker_absent_at_boot_and_an_outbox_that_overflows(keeping: Broker, tmp_path: Path) -> None:
    keeping.stop()
    with device(tmp_path, keeping.port, most=500) as kiosk:
        kiosk.tell(1200)
        wait_until(lambda: not kiosk.publisher._committer.uncommitted, 10)
        told = kiosk.told
        assert (kiosk.outbox.figures.waiting, kiosk.outbox.figures.dropped) == (500, 700)
    keeping.start()
    with proxied(keeping.port) as proxy, session(keeping) as listener:
        with device(tmp_path, proxy.port, most=500) as kiosk:
            kiosk.delivered()
            assert kiosk.outbox.figures.dropped == 700, "counted for ever"
        assert len(told) == len(set(proxy.record.acknowledged)) + 700
        assert_none_lost(told[700:], proxy, listener)


DRIVER = """
import sys, time
from pathlib import Path
import msgspec
from edge.mqtt.publisher import MqttPublisher
from edge.mqtt.outbox import Outbox
from edge.records import Event, Expression
from edge.settings import MqttSettings

class Reporting(Outbox):
    def add(self, payloads):
        committed = super().add(payloads)
        if committed:
            ids = [msgspec.json.decode(payload)["id"] for payload in payloads]
            sys.stdout.write("".join(id + chr(10) for id in ids))
            sys.stdout.flush()
        return committed

file, port, run, count = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
settings = MqttSettings(host="127.0.0.1", port=port, device="kiosk")
publisher = MqttPublisher(settings, Reporting(file, 100_000), longest_wait=0.2)
publisher.start()
for number in range(count):
    happy = Expression("happy", 1.0, {"happy": 1.0})
    name = f"{run}-{number}"
    event = Event(id=name, time="", clock_synced=False, track=1, kind="changed", expression=happy)
    publisher.publish_event(event)
    time.sleep(0.0005)
sys.exit(0 if publisher.close(20) == 0 else 1)
"""


def test_kill_9_at_random_points(keeping: Broker, tmp_path: Path) -> None:
    chance = random.Random(9)
    committed: list[str] = []
    with proxied(keeping.port) as proxy, session(keeping) as listener:
        for run in range(6):
            last = run == 5
            command = [sys.executable, "-c", DRIVER, tmp_path / "outbox.db", str(proxy.port), str(run), "600"]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout
                committed.append(process.stdout.readline().strip())
                if not last:
                    threading.Timer(chance.uniform(0, 0.5), process.kill).start()
                committed += process.stdout.read().split()
            assert process.returncode == (0 if last else -9)
        acknowledged = first(proxy.record.acknowledged)
        # A kill between a commit and the line that reports it leaves some more, which are the last of their run.
        unreported = set(acknowledged) - set(committed)
        for event in unreported:
            run, number = map(int, event.split("-"))
            assert number > max(int(e.split("-")[1]) for e in committed if e.startswith(f"{run}-"))
        assert set(committed) <= set(acknowledged)
        wait_until(lambda: set(acknowledged) <= set(listener.ids()), 10)
        order = [tuple(map(int, event.split("-"))) for event in first(listener.ids())]
        assert order == sorted(order), "first occurrences keep their order, from run to run too"
        print(
            f"{len(committed)} commits reported, {len(unreported)} more acknowledged, "
            f"{len(proxy.record.published) - len(acknowledged)} sent again, 5 kills"
        )


def test_a_wrong_password_that_is_then_corrected(keeping: Broker, tmp_path: Path) -> None:
    subprocess.run(["mosquitto_passwd", "-b", "-c", tmp_path / "users", "kiosk", "sesame"], check=True)
    subprocess.run(["mosquitto_passwd", "-b", tmp_path / "users", "watcher", "watching"], check=True)
    keeping.stop()
    keeping.options = keeping.options.replace("anonymous true", f"anonymous false\npassword_file {tmp_path / 'users'}")
    keeping.start()
    password = tmp_path / "password"
    password.write_text("wrong\n")
    mqtt = {"username": "kiosk", "password_file": str(password)}
    watcher = session(keeping, ("watcher", "watching"))
    with proxied(keeping.port) as proxy, watcher as listener, device(tmp_path, proxy.port, **mqtt) as kiosk:
        kiosk.tell(1000)
        wait_until(lambda: proxy.connections > 3, 10)
        assert proxy.record.published == []
        password.unlink()
        time.sleep(0.3)
        password.write_text("sesame\n")
        kiosk.delivered()
        assert_none_lost(kiosk.told, proxy, listener)


def test_a_full_disk_is_a_counted_published_fault_and_nothing_is_lost(keeping: Broker, small_disk: Path) -> None:
    with proxied(keeping.port) as proxy, session(keeping) as listener, device(small_disk, proxy.port) as kiosk:
        kiosk.tell(50)
        kiosk.delivered()
        ballast = small_disk / "ballast"
        with pytest.raises(OSError, match="No space left"):
            ballast.write_bytes(b"x" * 1_000_000)
        wait_until(lambda: kiosk.tell(50) or kiosk.outbox.disk.error, 10)
        wait_until(lambda: listener.json("fault"), 5)
        fault = listener.json("fault")[-1]
        assert (fault["code"], "database or disk is full" in fault["sentence"]) == (18, True)
        kiosk.delivered()
        assert not kiosk.outbox.figures.durable
        ballast.unlink()
        wait_until(lambda: listener.last("fault") == "", 20)
        assert (kiosk.outbox.figures.durable, kiosk.outbox.figures.failed >= 1) == (True, True)
        kiosk.tell(50)
        kiosk.delivered()
        assert_none_lost(kiosk.told, proxy, listener)


def test_a_clock_that_is_set_back(keeping: Broker, tmp_path: Path) -> None:
    with proxied(keeping.port) as proxy, session(keeping) as listener, device(tmp_path, proxy.port) as kiosk:
        kiosk.tell(300, at=0.0)
        proxy.cut()
        kiosk.tell(300, at=-86_400.0)
        proxy.mend()
        kiosk.delivered()
        kiosk.tell(300, at=-3600.0)
        kiosk.delivered()
        assert_none_lost(kiosk.told, proxy, listener)
        times = [event["time"] for event in listener.json("event")]
        assert times != sorted(times)


def test_kill_9_of_the_broker_loses_only_what_it_had_acknowledged(keeping: Broker, tmp_path: Path) -> None:
    keeping.stop()
    keeping.options += "\nautosave_on_changes true\nautosave_interval 100"
    keeping.start()
    with proxied(keeping.port) as proxy, device(tmp_path, proxy.port) as kiosk:
        Listener(keeping.port, "session").close()
        before_the_kill: set[str] = set()
        for _ in range(3):
            kiosk.tell(300)
            wait_until(lambda: len(proxy.record.acknowledged) > len(before_the_kill) + 200, 10)  # noqa: B023
            keeping.kill()
            wait_until(lambda: not kiosk.publisher._connection.up, 10)
            before_the_kill = set(proxy.record.acknowledged)
            kiosk.tell(100)
            keeping.start()
        kiosk.delivered()
        with listening(keeping.port, "session") as listener:
            # What was acknowledged after the last kill is there; and with it, in order, what else there is.
            wait_until(lambda: set(kiosk.told) - before_the_kill <= set(listener.ids()), 20)
            heard = set(listener.ids())
        missing = [event for event in kiosk.told if event not in heard]
        assert set(kiosk.told) == set(proxy.record.acknowledged), "the device has kept its word"
        assert len(missing) < len(kiosk.told)
        print(f"{len(missing)} of {len(kiosk.told)} were in the killed brokers memory only: {spans(missing)}")


def test_refused_events_stay_and_are_delivered_once_they_may(keeping: Broker, tmp_path: Path) -> None:
    rights = tmp_path / "rights"
    rights.write_text("topic read #\ntopic write fer-edge/kiosk/fault\n")
    keeping.stop()
    keeping.options += f"\nacl_file {rights}"
    keeping.start()
    with proxied(keeping.port) as proxy, session(keeping) as listener, device(tmp_path, proxy.port) as kiosk:
        kiosk.tell(100)
        wait_until(lambda: len(proxy.record.refused) > 25, 10)
        wait_until(lambda: listener.json("fault"), 5)
        assert "refuses events: Not authorized" in listener.json("fault")[-1]["sentence"]
        assert listener.json("fault")[-1]["code"] == kiosk.publisher.figures().fault == 8
        assert (proxy.record.acknowledged, kiosk.publisher.undelivered) == ([], 100)
        refused = len(proxy.record.refused)
        time.sleep(0.5)
        assert len(proxy.record.refused) - refused < 20, "tried with pauses, not in a storm"
        rights.write_text("topic readwrite #\n")
        keeping.reread()
        kiosk.delivered()
        assert set(proxy.record.acknowledged) == set(kiosk.told)
        wait_until(lambda: first(listener.ids()) == kiosk.told and listener.last("fault") == "", 5)


@pytest.mark.parametrize("option", ["message_size_limit 350", "max_packet_size 390"])
def test_an_event_that_is_too_large_for_the_broker_does_not_hold_up_the_others(
    keeping: Broker, tmp_path: Path, option: str
) -> None:
    keeping.stop()
    keeping.options += f"\n{option}"
    keeping.start()
    with proxied(keeping.port) as proxy, device(tmp_path, proxy.port) as kiosk:
        kiosk.tell(50)
        large = kiosk.maker.event(Change(1, "changed", HAPPY.__class__("x" * 400, 1.0, {}), 0.0), MOMENT)
        kiosk.publisher.publish_event(large)
        kiosk.tell(50)
        wait_until(lambda: set(kiosk.told) <= set(proxy.record.acknowledged), 10)
        wait_until(lambda: kiosk.publisher.figures().refused, 5)
        sent = len(proxy.record.published)
        time.sleep(0.5)
        assert len(proxy.record.published) - sent < 20, "no storm"
        assert proxy.connections <= 6, "found by a few lost connections, or told by the broker beforehand"
        assert (kiosk.publisher.undelivered, kiosk.publisher.figures().fault) == (1, 8), (
            "it is kept, told, and not counted as sent"
        )


@pytest.fixture
def namespace() -> Iterator[str]:
    """A network namespace that a cable (veth) connects with this one: 10.213.7.1 here, 10.213.7.2 there."""
    if os.getuid() != 0 or not shutil.which("ip"):
        pytest.skip("a network namespace needs root and ip (apt install iproute2)")
    name = f"fer{os.getpid()}"

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    ip("netns", "add", name)
    try:
        ip("link", "add", f"{name}a", "type", "veth", "peer", "name", f"{name}b", "netns", name)
        ip("addr", "add", "10.213.7.1/30", "dev", f"{name}a")
        ip("link", "set", f"{name}a", "up")
        ip("-n", name, "addr", "add", "10.213.7.2/30", "dev", f"{name}b")
        ip("-n", name, "link", "set", f"{name}b", "up")
        ip("-n", name, "link", "set", "lo", "up")
        yield name
    finally:
        ip("netns", "delete", name)


WATCHER = """
import sys
from tests.conftest import wait_until
from tests.edge.listener import Listener
listener = Listener(1883, "session")
print("ready", flush=True)
count = int(sys.stdin.readline())
wait_until(lambda: len(set(listener.ids())) >= count, 20)
print(*dict.fromkeys(listener.ids()))
"""


def test_a_cable_that_is_pulled_out(namespace: str, tmp_path: Path) -> None:
    """No packet says that the connection is gone: only what does not come tells."""
    config = tmp_path / "mosquitto.conf"
    config.write_text("listener 1883 0.0.0.0\nallow_anonymous true\nuser root\n")
    inside = ("ip", "netns", "exec", namespace)
    broker = subprocess.Popen([*inside, "mosquitto", "-c", config], stderr=subprocess.DEVNULL)

    def answers() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("10.213.7.2", 1883)) == 0

    wait_until(answers, 10)
    watcher = subprocess.Popen(
        [*inside, sys.executable, "-c", WATCHER], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert watcher.stdout
    assert watcher.stdout.readline() == "ready\n"

    def cable(state: str) -> None:
        subprocess.run(["ip", "link", "set", f"{namespace}a", state], check=True)

    try:
        with device(tmp_path, 1883, host="10.213.7.2", keepalive=2) as kiosk:
            kiosk.tell(200)
            kiosk.delivered()
            cable("down")
            kiosk.tell(200)
            wait_until(lambda: not kiosk.publisher._connection.up, 10)
            assert kiosk.publisher.undelivered == 200
            cable("up")
            kiosk.delivered(20)
            assert (kiosk.outbox.committed, kiosk.outbox.figures.dropped) == (400, 0)
            heard, _ = watcher.communicate("400\n", timeout=30)
            assert heard.split() == kiosk.told
    finally:
        watcher.kill()
        watcher.communicate()
        broker.terminate()
        broker.wait(5)
