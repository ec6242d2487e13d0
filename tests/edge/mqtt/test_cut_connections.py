"""Retained topics after connections that were cut at the worst moments, with a real broker."""

import logging
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge.mqtt.messages import Reply
from tests.conftest import Broker, wait_until
from tests.edge.listener import listening
from tests.edge.mqtt.delivery import device

pytestmark = pytest.mark.slow

CONNACK = 0x20


class CuttingProxy:
    """Forwards the first ``count`` connections until ``cut`` is true of a part of the device's bytes; then all."""

    def __init__(self, target: int, count: int, cut: Callable[[bytes, float], bool]) -> None:
        self.cuts = 0
        self._target = target
        self._count = count
        self._cut = cut
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def mend(self) -> None:
        self._count = 0

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._forward, args=(connection,), daemon=True).start()

    def _forward(self, connection: socket.socket) -> None:
        accepted = None
        with connection, socket.create_connection(("127.0.0.1", self._target)) as broker:
            while True:
                ready, _, _ = select.select([connection, broker], [], [], 0.01)
                for one in ready:
                    data = one.recv(65536)
                    if not data:
                        return
                    if one is broker and data[0] == CONNACK:
                        accepted = time.monotonic()
                    if accepted and one is connection and self._cuts_now(data, time.monotonic() - accepted):
                        return
                    (broker if one is connection else connection).sendall(data)
                if accepted and self._cuts_now(b"", time.monotonic() - accepted):
                    return

    def _cuts_now(self, data: bytes, seconds: float) -> bool:
        cuts = self.cuts < self._count and self._cut(data, seconds)
        self.cuts += cuts
        return cuts


@contextmanager
def cutting(target: int, count: int, cut: Callable[[bytes, float], bool]) -> Iterator[CuttingProxy]:
    proxy = CuttingProxy(target, count, cut)
    try:
        yield proxy
    finally:
        proxy.close()


def test_a_topic_over_which_connections_end_is_said_again(
    broker: Broker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Ten connections end when it is sent. Then the network is whole: nothing else makes a new connection."""
    with (
        caplog.at_level(logging.WARNING),
        cutting(broker.port, 10, lambda data, _: b"fer-edge/kiosk/availability" in data) as proxy,
        listening(broker.port) as listener,
        device(tmp_path, proxy.port) as kiosk,
    ):
        kiosk.publisher.set_camera(is_open=True)
        wait_until(lambda: proxy.cuts == 10, 15)
        wait_until(lambda: listener.last("availability") == "online", 10)
    assert "too large" not in caplog.text


def test_replies_on_their_way_when_the_connection_is_cut_arrive_later_in_their_order(
    broker: Broker, tmp_path: Path
) -> None:
    with (
        cutting(broker.port, 2, lambda data, _: b"kiosk/reply" in data) as proxy,
        listening(broker.port) as listener,
        device(tmp_path, proxy.port) as kiosk,
    ):
        kiosk.publisher.set_camera(is_open=True)
        for name in ("first", "second", "third"):
            kiosk.publisher.publish_reply(Reply(command="pause", id=name, ok=True))
        wait_until(lambda: len(listener.of("reply")) == 3, 15)
        assert proxy.cuts == 2
    assert [reply["id"] for reply in listener.json("reply")] == ["first", "second", "third"]


def test_a_reply_over_which_connections_end_is_lost_and_the_next_one_waits(
    broker: Broker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.WARNING),
        cutting(broker.port, 40, lambda data, _: b"kiosk/reply" in data) as proxy,
        listening(broker.port) as listener,
        device(tmp_path, proxy.port) as kiosk,
    ):
        kiosk.publisher.set_camera(is_open=True)
        kiosk.publisher.publish_reply(Reply(command="pause", id="poison", ok=True))
        lost = "kiosk/reply is on its way; it is lost, and the next one is sent later"
        wait_until(lambda: lost in caplog.text, 30)
        cuts = proxy.cuts
        kiosk.publisher.publish_reply(Reply(command="pause", id="waits", ok=True))
        wait_until(lambda: listener.last("availability") == "online", 10)
        kiosk.publish(1)
        kiosk.wait_until_delivered()
        assert proxy.cuts == cuts, "it waits, and all else goes on"
        proxy.mend()
        wait_until(lambda: listener.of("reply"), 10)
    assert [reply["id"] for reply in listener.json("reply")] == ["waits"]


def test_state_speaks_after_connections_that_were_cut_right_after_the_connack(broker: Broker, tmp_path: Path) -> None:
    """As on a radio link that takes the device's bytes and loses them: nothing is answered within 0.15 s."""
    with (
        cutting(broker.port, 10, lambda data, seconds: bool(data) or seconds > 0.15) as proxy,
        listening(broker.port) as listener,
        device(tmp_path, proxy.port, protocol="3.1.1") as kiosk,
    ):
        kiosk.publisher.set_camera(is_open=True)
        wait_until(lambda: proxy.cuts == 10, 15)
        wait_until(lambda: '"faces":0' in (listener.last("state") or ""), 10)
        wait_until(lambda: listener.last("availability") == "online", 10)
