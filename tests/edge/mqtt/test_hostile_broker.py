"""What a broker may send: topics that are no text, packets of any size, and packets that are no MQTT."""

import random
import socket
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from edge.mqtt.backoff import Backoff
from edge.mqtt.connection import BrokerConnection, Limits
from edge.settings import MqttSettings
from tests.conftest import wait_until
from tests.edge.mqtt.packets import message, packet

CONNACK = {"3.1.1": b"\x20\x02\x00\x00", "5": b"\x20\x03\x00\x00\x00"}


class Heard:
    """A listener that notes what comes, and how long it was."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, int]] = []
        self.connections = 0
        self.asked = 0

    def connected(self, _limits: Limits) -> None:
        self.connections += 1

    def lost(self, *, blamed: bool) -> None: ...

    def send_due(self, _connection: BrokerConnection) -> float:
        self.asked += 1
        return 1.0

    def answered(self, mid: int, refusal: str, *, everything: bool) -> None: ...

    def received(self, topic: str, payload: bytes, _retained: bool) -> None:
        self.messages.append((topic, len(payload)))


@contextmanager
def connected(protocol: str = "3.1.1") -> Iterator[tuple[Heard, BrokerConnection, socket.socket]]:
    """A device's connection, and the end of its broker, which it has accepted."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        settings = MqttSettings(host="127.0.0.1", port=server.getsockname()[1], protocol=protocol)
        heard = Heard()
        device = BrokerConnection(
            settings, "kiosk", will="w", topics=("c/+",), backoff=Backoff(0.05, 0.05), listener=heard
        )
        device.start()
        broker, _ = server.accept()
        with broker:
            broker.recv(4096)
            broker.sendall(CONNACK[protocol])
            wait_until(lambda: heard.connections, 5)
            yield heard, device, broker
            device.stop()
        device.join(5)


def test_a_topic_that_is_no_text_is_left_out() -> None:
    with connected() as (heard, device, broker):
        broker.sendall(message(b"c/\xff\xfe", b"x") + message(b"c/pause", b"yz"))
        wait_until(lambda: heard.messages or not device.is_alive(), 5)
        assert heard.messages == [("c/pause", 2)]
        assert device.up


@pytest.mark.parametrize("topic", [b"c/pause", b"c/" + b"x" * 65_533])
def test_a_message_of_any_size_takes_little_memory_and_is_still_too_large(topic: bytes) -> None:
    size = 20_000_000
    with connected() as (heard, device, broker):
        tracemalloc.start()
        try:
            broker.sendall(packet(0x30, 2 + len(topic) + size) + len(topic).to_bytes(2, "big") + topic)
            part = bytes(100_000)
            for _ in range(size // len(part)):
                broker.sendall(part)
            broker.sendall(message(b"c/pause", b"yz"))
            wait_until(lambda: len(heard.messages) == 2 or not device.is_alive(), 10)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        [(name, length), following] = heard.messages
        assert (name.encode(), following) == (topic, ("c/pause", 2))
        assert 1024 < length < 100_000
        assert peak < 1_000_000
        assert device.up


def test_a_flood_is_read_many_messages_at_once_and_delays_none_by_much() -> None:
    with connected() as (heard, device, broker):
        before, began = heard.asked, time.monotonic()
        for number in range(600):  # a thousand a second
            time.sleep(max(0.0, began + number / 1000 - time.monotonic()))
            broker.sendall(message(b"c/pause", bytes(number)))
        wait_until(lambda: len(heard.messages) == 600, 5)
        took = time.monotonic() - began
        assert [length for _, length in heard.messages] == list(range(600))
        assert heard.asked - before < 10 + took * 40, "what is due is not looked for after each message"
        assert device.up


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
def test_no_packet_ends_the_thread(protocol: str) -> None:
    """200 packets of random kinds, lengths and contents; each connection goes on or is made again."""
    chance = random.Random(7)
    with socket.create_server(("127.0.0.1", 0)) as server:
        settings = MqttSettings(host="127.0.0.1", port=server.getsockname()[1], protocol=protocol)
        device = BrokerConnection(
            settings, "kiosk", will="w", topics=("c/+",), backoff=Backoff(0.001, 0.001), listener=Heard()
        )
        device.start()
        server.settimeout(5)
        for _ in range(200):
            broker, _ = server.accept()
            with broker:
                broker.recv(4096)
                broker.sendall(CONNACK[protocol])
                body = chance.randbytes(chance.choice((0, 1, 2, 3, 4, 5, 8, 20, 300)))
                broker.sendall(packet(chance.randrange(256), len(body)) + body)
                broker.shutdown(socket.SHUT_WR)
                time.sleep(0.002)
            assert device.is_alive()
        device.stop()
    device.join(5)
