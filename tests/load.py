"""Many simulated devices against one real mosquitto: ``python -m tests.load --devices 500``.

Each device is fer-edge's own connection to the broker (edge.mqtt.connection: session, last will, back-off), which
publishes events of the real form at QoS 1. A device has no camera and no outbox. Messages in flight when a connection
breaks are not sent again, only counted. Devices are spread over a few processes, because select(2) is limited to 1024
descriptors. Latency is from publish to one subscriber's callback, by the machine's monotonic clock.
"""

import argparse
import json
import logging
import multiprocessing
import os
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event as Signal
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from edge.events.factory import to_json
from edge.labels import FER2013_LABELS
from edge.model.preprocessing import expression
from edge.mqtt.backoff import Backoff
from edge.mqtt.connection import BrokerConnection, Limits
from edge.mqtt.subscriptions import Subscriptions
from edge.records import Event
from edge.settings import MqttSettings
from tests.conftest import Broker, free_port, wait_until

_PREFIX = "fer-edge"
_PER_PROCESS = 125


@dataclass(frozen=True)
class Load:
    """How many devices publish, at which rate (events a second), and for how long the broker is away (seconds)."""

    devices: int = 500
    rate: float = 1.0
    seconds: float = 40.0
    down: float = 10.0
    first_wait: float = 2.0
    longest_wait: float = 60.0


@dataclass(frozen=True)
class Figures:
    """What was measured; times in seconds, latencies in milliseconds."""

    devices: int
    all_connected: float
    events: int
    received: int
    events_per_second: float
    latency_p50: float
    latency_p99: float
    storm_half: float
    storm_all: float
    storm_most_per_second: int


@dataclass(frozen=True)
class Shared:
    """Shared by the processes: how many devices are connected, whether to publish, and whether to end."""

    up: "Synchronized[int]"
    publishing: Signal
    ending: Signal


class Device:
    """One simulated device; the methods without a docstring are edge.mqtt.connection.ConnectionListener's."""

    def __init__(self, number: int, port: int, load: Load, shared: Shared) -> None:
        self.base = f"{_PREFIX}/load-{number:05}"
        self.connects: list[float] = []
        self.sent = self.acknowledged = 0
        self._shared = shared
        self._every = 1 / load.rate
        self._random = Random(number)
        self._due = 0.0
        shown = expression(np.full(len(FER2013_LABELS), 1 / len(FER2013_LABELS)), FER2013_LABELS)
        self._event = Event(
            id="", time="2026-11-22T16:03:05.004+00:00", clock_synced=True, track=1, kind="changed", expression=shown
        )
        settings = MqttSettings(host="127.0.0.1", port=port, device=self.base.rpartition("/")[2])
        self.connection = BrokerConnection(
            settings,
            self.base.replace("/", "-"),
            will=f"{self.base}/availability",
            subscriptions=Subscriptions((f"{self.base}/command/+",), Backoff(load.first_wait, load.longest_wait)),
            backoff=Backoff(load.first_wait, load.longest_wait),
            listener=self,
        )

    def connected(self, limits: Limits) -> None:
        self.connects.append(time.monotonic())
        self.connection.publish(f"{self.base}/state", b'{"faces":0}', retain=True)
        self.connection.publish(f"{self.base}/availability", b"online", retain=True)
        with self._shared.up.get_lock():
            self._shared.up.value += 1

    def lost(self, *, blamed: bool) -> None:
        with self._shared.up.get_lock():
            self._shared.up.value -= 1

    def send_due(self, _connection: BrokerConnection) -> float:
        now = time.monotonic()
        if not self._shared.publishing.is_set():
            self._due = now + self._random.uniform(0, self._every)
            return 0.5
        if now >= self._due:
            self._due += self._every
            self.sent += 1
            event = Event(**{**_fields(self._event), "id": f"{self.sent}-{time.monotonic_ns()}"})
            self.connection.publish(f"{self.base}/event", to_json(event))
        return max(0.0, min(0.5, self._due - time.monotonic()))

    def answered(self, mid: int, refusal: str, *, everything: bool) -> None:
        self.acknowledged += 1

    def received(self, topic: str, payload: bytes, retained: bool) -> None:
        pass


def _fields(event: Event) -> dict[str, Any]:
    return {name: getattr(event, name) for name in event.__struct_fields__}


def _process(numbers: range, port: int, load: Load, shared: Shared, results: Any) -> None:
    logging.disable()  # hundreds of devices would log the same lines
    devices = [Device(number, port, load, shared) for number in numbers]
    for device in devices:
        device.connection.start()
    shared.ending.wait()
    for device in devices:
        device.connection.stop()
    for device in devices:
        device.connection.join(10)
    results.put([(device.sent, device.connects) for device in devices])


class Fleet:
    """All devices, in processes that end with the context."""

    def __init__(self, load: Load, port: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.shared = Shared(context.Value("i", 0), context.Event(), context.Event())
        self._devices = load.devices
        self._results = context.Queue()
        parts = [
            range(begin, min(begin + _PER_PROCESS, load.devices)) for begin in range(0, load.devices, _PER_PROCESS)
        ]
        self._processes = [
            context.Process(target=_process, args=(part, port, load, self.shared, self._results), daemon=True)
            for part in parts
        ]

    def __enter__(self) -> "Fleet":
        for process in self._processes:
            process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shared.ending.set()
        for process in self._processes:
            process.join(30)

    def wait_until_connected(self, seconds: float) -> None:
        wait_until(lambda: self.shared.up.value == self._devices, seconds)

    def publish(self, seconds: float) -> None:
        """Let all devices publish for so long."""
        self.shared.publishing.set()
        time.sleep(seconds)
        self.shared.publishing.clear()

    def end(self) -> list[tuple[int, list[float]]]:
        """Disconnect all devices; returns how many events each published, and when it connected."""
        self.shared.ending.set()
        return [device for _ in self._processes for device in self._results.get(timeout=120)]


class Subscriber:
    """Subscribes to all events, and records the latency of each in milliseconds."""

    def __init__(self, port: int) -> None:
        self.latencies: list[float] = []
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *_: client.subscribe(f"{_PREFIX}/+/event", qos=1)
        self._client.on_message = self._note
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def _note(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        sent = int(json.loads(message.payload)["id"].partition("-")[2])
        self.latencies.append((time.monotonic_ns() - sent) / 1e6)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def run(load: Load, folder: Path) -> Figures:
    """Connect all, publish for a while, take the broker away and bring it back, and wait until all are back."""
    user = "root" if os.getuid() == 0 else "nobody"
    broker = Broker(folder, free_port(), f"allow_anonymous true\nuser {user}\nmax_queued_messages 100000")
    broker.start()
    try:
        started = time.monotonic()
        with Fleet(load, broker.port) as fleet:
            fleet.wait_until_connected(300)
            subscriber = Subscriber(broker.port)
            time.sleep(0.5)
            fleet.publish(load.seconds)
            time.sleep(2.0)  # for events in flight
            subscriber.close()
            broker.stop()
            time.sleep(load.down)
            broker.start()
            back = time.monotonic()
            fleet.wait_until_connected(10 * load.longest_wait)
            devices = fleet.end()
    finally:
        broker.stop()
    return _figures(load, devices, subscriber.latencies, started, back)


def _figures(
    load: Load, devices: list[tuple[int, list[float]]], latencies: list[float], started: float, back: float
) -> Figures:
    """``started`` and ``back`` are when the devices and the broker were started (again)."""
    first = [connects[0] - started for _, connects in devices]
    again = np.array([next(at for at in connects if at >= back - 1) - back for _, connects in devices]).clip(0)
    sent = sum(count for count, _ in devices)
    p50, p99 = np.percentile(latencies, [50, 99])
    return Figures(
        load.devices,
        round(max(first), 1),
        sent,
        len(latencies),
        round(sent / load.seconds, 1),
        round(float(p50), 2),
        round(float(p99), 2),
        round(float(np.median(again)), 1),
        round(float(again.max()), 1),
        max(Counter(again.astype(int).tolist()).values()),
    )


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser("python -m tests.load", description=__doc__)
    for name, value in asdict(Load()).items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=type(value), default=value, metavar="N", help="default: %(default)s")
    load = Load(**vars(parser.parse_args()))
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(asdict(run(load, Path(folder))), indent=2))


if __name__ == "__main__":
    main()
