"""Topics that the broker does not let a device listen to, and then does."""

import logging
import socket
import time

import pytest

from tests.conftest import wait_until
from tests.edge.mqtt.packets import message, packet
from tests.edge.mqtt.scripted_broker import connected

REFUSED = {"3.1.1": 0x80, "5": 0x87}
GRANTED = 1


def asked(broker: socket.socket) -> tuple[bytes, bytes]:
    """The packet id and the topics of the next SUBSCRIBE; the topics are what follows, with lengths and options."""
    broker.settimeout(5)
    received = broker.recv(4096)
    assert received[0] == 0x82, "nothing but a SUBSCRIBE is sent"
    return received[2:4], received[4:]


def answer(protocol: str, packet_id: bytes, *codes: int) -> bytes:
    """A SUBACK (MQTT 3.1.1, 3.9)."""
    body = packet_id + (b"\0" if protocol == "5" else b"") + bytes(codes)
    return packet(0x90, len(body)) + body


@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
def test_what_was_refused_is_asked_for_again_on_the_same_connection(
    protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.WARNING),
        connected(protocol=protocol, topics=("c/+", "birth")) as (heard, device, broker),
    ):
        packet_id, topics = asked(broker)
        assert b"c/+" in topics
        broker.sendall(answer(protocol, packet_id, REFUSED[protocol], GRANTED))
        for _ in range(2):
            packet_id, topics = asked(broker)
            assert b"c/+" in topics
            assert b"birth" not in topics, "it is listened to already; a broker would send what it retains again"
            broker.sendall(answer(protocol, packet_id, REFUSED[protocol]))
        packet_id, _ = asked(broker)
        command = b"\0{}" if protocol == "5" else b"{}"  # with no properties
        broker.sendall(answer(protocol, packet_id, GRANTED) + message(b"c/pause", command))
        wait_until(lambda: heard.messages == [("c/pause", 2)], 5)
        assert (device.up, heard.connections) == (True, 1)
        assert caplog.text.count("does not let this device listen to c/+") == 1, "said once"


def test_what_is_granted_is_asked_for_once() -> None:
    with connected() as (_, device, broker):
        packet_id, _ = asked(broker)
        broker.sendall(answer("3.1.1", packet_id, GRANTED))
        broker.settimeout(1.5)
        with pytest.raises(TimeoutError):
            broker.recv(4096)
        assert device.up


def test_refusals_make_no_storm() -> None:
    with connected() as (_, _, broker):
        until, answers = time.monotonic() + 2.0, 0
        while time.monotonic() < until:
            packet_id, _ = asked(broker)
            broker.sendall(answer("3.1.1", packet_id, 0x80))
            answers += 1
        assert answers < 2.0 / 0.02, "each wait is at least a tenth of 0.2 s"
