"""A device or a broker that is killed in the middle of its work."""

import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.conftest import Broker, wait_until
from tests.edge.listener import Listener, listening
from tests.edge.mqtt.delivery import (
    device,
    first_occurrences,
    persistent_session,
    ranges,
)
from tests.edge.proxy import proxied

pytestmark = pytest.mark.slow


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


def test_kill_9_at_random_points(persistent_broker: Broker, tmp_path: Path) -> None:
    chance = random.Random(9)
    committed: list[str] = []
    with proxied(persistent_broker.port) as proxy, persistent_session(persistent_broker) as listener:
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
        acknowledged = first_occurrences(proxy.record.acknowledged)
        # A kill between a commit and the line that reports it leaves some more, which are the last of their run.
        unreported = set(acknowledged) - set(committed)
        for event in unreported:
            run, number = map(int, event.split("-"))
            assert number > max(int(e.split("-")[1]) for e in committed if e.startswith(f"{run}-"))
        assert set(committed) <= set(acknowledged)
        wait_until(lambda: set(acknowledged) <= set(listener.ids()), 10)
        order = [tuple(map(int, event.split("-"))) for event in first_occurrences(listener.ids())]
        assert order == sorted(order), "first occurrences keep their order, from run to run too"
        print(
            f"{len(committed)} commits reported, {len(unreported)} more acknowledged, "
            f"{len(proxy.record.published) - len(acknowledged)} sent again, 5 kills"
        )


def test_kill_9_of_the_broker_loses_only_what_it_had_acknowledged(persistent_broker: Broker, tmp_path: Path) -> None:
    persistent_broker.stop()
    persistent_broker.options += "\nautosave_on_changes true\nautosave_interval 100"
    persistent_broker.start()
    with proxied(persistent_broker.port) as proxy, device(tmp_path, proxy.port) as kiosk:
        Listener(persistent_broker.port, "session").close()
        before_the_kill: set[str] = set()
        for _ in range(3):
            kiosk.publish(300)
            wait_until(lambda: len(proxy.record.acknowledged) > len(before_the_kill) + 200, 10)  # noqa: B023
            persistent_broker.kill()
            wait_until(lambda: not kiosk.publisher._connection.up, 10)
            before_the_kill = set(proxy.record.acknowledged)
            kiosk.publish(100)
            persistent_broker.start()
        kiosk.wait_until_delivered()
        with listening(persistent_broker.port, "session") as listener:
            # What was acknowledged after the last kill is there; and with it, in order, what else there is.
            wait_until(lambda: set(kiosk.published) - before_the_kill <= set(listener.ids()), 20)
            heard = set(listener.ids())
        missing = [event for event in kiosk.published if event not in heard]
        assert set(kiosk.published) == set(proxy.record.acknowledged), "the device has kept the contract"
        assert len(missing) < len(kiosk.published)
        print(f"{len(missing)} of {len(kiosk.published)} were in the killed brokers memory only: {ranges(missing)}")
