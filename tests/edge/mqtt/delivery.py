"""A device that publishes events, and checks that none of them is lost.

A proxy between device and broker records what the broker acknowledged; a subscriber with a persistent session records
what it received.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from edge.events.episodes import Change
from edge.events.factory import EventFactory
from edge.labels import FER2013_LABELS
from edge.model.preprocessing import expression
from edge.mqtt.outbox import Outbox
from edge.mqtt.publisher import MqttPublisher
from edge.settings import MqttSettings
from edge.system.clock import Moment
from tests.conftest import Broker, wait_until
from tests.edge.listener import Listener, listening
from tests.edge.proxy import Proxy

MOMENT = Moment(datetime(2026, 11, 22, 10, 0, tzinfo=UTC), synced=False)
HAPPY = expression(np.eye(7)[3], FER2013_LABELS)


class CommitCounter(Outbox):
    """An outbox that counts how many events it has committed: the contract is about those whose commit returned."""

    def __init__(self, file: Path, most: int) -> None:
        super().__init__(file, most)
        self.committed = 0

    def add(self, payloads: Sequence[bytes]) -> bool:
        committed = super().add(payloads)
        self.committed += len(payloads) * committed
        return committed


class Device:
    """The part of a device that delivers: an outbox, a publisher, and events with growing ids."""

    def __init__(self, folder: Path, port: int, most: int = 100_000, **more: str | int) -> None:
        self.outbox = CommitCounter(folder / "outbox.db", most)
        mqtt = MqttSettings(host=str(more.pop("host", "127.0.0.1")), port=port, device="kiosk", **more)
        self.publisher = MqttPublisher(mqtt, self.outbox, longest_wait=0.2)
        self.publisher.start()
        self.factory = EventFactory()
        self.published: list[str] = []

    def publish(self, count: int, at: float = 0.0) -> None:
        for _ in range(count):
            event = self.factory.event(Change(1, "changed", HAPPY, at), MOMENT)
            self.publisher.publish_event(event)
            self.published.append(event.id)

    def wait_until_delivered(self, seconds: float = 15) -> None:
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


@contextmanager
def persistent_session(broker: Broker, user: tuple[str, str] | None = None) -> Iterator[Listener]:
    """A subscriber whose session outlives its connections."""
    Listener(broker.port, "session", user).close()
    with listening(broker.port, "session", user) as listener:
        yield listener


def first_occurrences(ids: list[str]) -> list[str]:
    return list(dict.fromkeys(ids))


def ranges(ids: list[str]) -> str:
    """Sequence numbers, in order, as ranges."""
    numbers = [int(one.split("-")[1]) for one in ids]
    begins = [n for n in numbers if n - 1 not in numbers]
    ends = [n for n in numbers if n + 1 not in numbers]
    return ", ".join(f"{begin}-{end}" for begin, end in zip(begins, ends, strict=True)) or "none"


def assert_none_lost(published: list[str], proxy: Proxy, listener: Listener) -> None:
    wait_until(lambda: set(published) <= set(listener.ids()), 20)
    assert set(proxy.record.acknowledged) == set(published)
    assert proxy.record.first_published() == published, "first occurrences keep their order"
    assert first_occurrences(listener.ids()) == published
