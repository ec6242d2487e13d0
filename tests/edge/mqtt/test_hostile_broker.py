"""What a broker may send: topics that are no text, packets of any size, and packets that are no MQTT."""

import random
import socket
import time
import tracemalloc

import pytest

from edge.mqtt.backoff import Backoff
from edge.mqtt.connection import BrokerConnection
from edge.settings import MqttSettings
from tests.conftest import wait_until
from tests.edge.mqtt.packets import frame, message, packet
from tests.edge.mqtt.scripted_broker import CONNACK, Heard, connected, listening_to


def test_a_topic_that_is_no_text_is_left_out() -> None:
    with connected() as (heard, device, broker):
        broker.sendall(message(b"c/\xff\xfe", b"x") + message(b"c/pause", b"yz"))
        wait_until(lambda: heard.messages or not device.is_alive(), 5)
        assert heard.messages == [("c/pause", 2)]
        assert device.up


@pytest.mark.parametrize("topic", [b"c/pause", b"c/" + b"x" * 65_533])
@pytest.mark.parametrize("websocket", [False, True], ids=["plain", "websocket"])
def test_a_message_of_any_size_takes_little_memory_and_is_still_too_large(topic: bytes, *, websocket: bool) -> None:
    size = 20_000_000
    with connected(websocket=websocket) as (heard, device, broker):
        tracemalloc.start()
        try:
            begin = packet(0x30, 2 + len(topic) + size) + len(topic).to_bytes(2, "big") + topic
            broker.sendall(frame(begin, length=len(begin) + size) if websocket else begin)
            part = bytes(100_000)
            for _ in range(size // len(part)):
                broker.sendall(part)
            following_message = message(b"c/pause", b"yz")
            broker.sendall(frame(following_message) if websocket else following_message)
            wait_until(lambda: len(heard.messages) == 2 or not device.is_alive(), 10)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        [(name, length), following] = heard.messages
        assert (name.encode(), following) == (topic, ("c/pause", 2))
        assert 1024 < length < 100_000
        assert peak < 1_000_000
        assert device.up


def test_a_websockets_frames_may_be_cut_and_joined_anywhere_and_its_pings_are_answered() -> None:
    with connected(websocket=True) as (heard, device, broker):
        one = message(b"c/pause", b"x" * 200)
        stream = (
            frame(one[:7], opcode=2) + frame(b"ping", opcode=9) + frame(one[7:] + one, opcode=0) + frame(b"", opcode=9)
        )
        for byte in stream:
            broker.sendall(bytes([byte]))
            time.sleep(0.0005)
        broker.sendall(2 * stream)
        wait_until(lambda: len(heard.messages) == 6, 5)
        assert heard.messages == 6 * [("c/pause", 200)]
        received = b""
        while b"\x8a" not in received:  # a pong; the subscription came before
            received += broker.recv(4096)
        assert device.up
        broker.sendall(frame(b"", opcode=8))
        wait_until(lambda: not device.up, 5)


@pytest.mark.parametrize("sent", [frame(b"text", opcode=1), frame(bytes(126), opcode=9), b"\x82\x81maskx"])
def test_a_websocket_that_sends_what_is_no_mqtt_is_left(sent: bytes) -> None:
    with connected(websocket=True) as (_, device, broker):
        broker.sendall(sent)
        wait_until(lambda: not device.up, 5)
        assert device.is_alive()


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
            settings,
            "kiosk",
            will="w",
            subscriptions=listening_to("c/+"),
            backoff=Backoff(0.001, 0.001),
            listener=Heard(),
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
