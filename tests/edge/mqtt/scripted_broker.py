"""A broker whose every byte a test says, and the connection of a device to it."""

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from edge.mqtt.backoff import Backoff
from edge.mqtt.connection import BrokerConnection, Limits
from edge.mqtt.subscriptions import Subscriptions
from edge.settings import MqttSettings
from tests.conftest import wait_until
from tests.edge.mqtt.packets import frame, upgrade

CONNACK = {"3.1.1": b"\x20\x02\x00\x00", "5": b"\x20\x03\x00\x00\x00"}


@contextmanager
def refusing(protocol: str, code: int) -> Iterator[int]:
    """The port of a broker that refuses each connection with this code."""

    def refuse() -> None:
        while True:
            try:
                device, _ = server.accept()
            except OSError:  # it is closed
                return
            with device:
                device.recv(4096)
                device.sendall(CONNACK[protocol][:3] + bytes([code]) + CONNACK[protocol][4:])
                with suppress(OSError):  # the device has closed it already
                    device.shutdown(socket.SHUT_WR)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=refuse)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    thread.join(5)


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


def listening_to(*topics: str) -> Subscriptions:
    """Subscriptions that are tried again after at most 0.2 s."""
    return Subscriptions(topics, Backoff(0.2, 0.2))


@contextmanager
def connected(
    *, protocol: str = "3.1.1", websocket: bool = False, topics: Sequence[str] = ("c/+",)
) -> Iterator[tuple[Heard, BrokerConnection, socket.socket]]:
    """A device's connection, and the end of its broker, which it has accepted."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        url = f"ws://127.0.0.1:{port}" if websocket else ""
        settings = MqttSettings(url=url, host="127.0.0.1", port=port, protocol=protocol)
        heard = Heard()
        device = BrokerConnection(
            settings,
            "kiosk",
            will="w",
            subscriptions=listening_to(*topics),
            backoff=Backoff(0.05, 0.05),
            listener=heard,
        )
        device.start()
        broker, _ = server.accept()
        server.close()  # no other connection is made
        with broker:
            if websocket:
                broker.sendall(upgrade(broker.recv(4096)))
            broker.recv(4096)
            broker.sendall(frame(CONNACK[protocol]) if websocket else CONNACK[protocol])
            wait_until(lambda: heard.connections, 5)
            yield heard, device, broker
            device.stop()
        device.join(5)
