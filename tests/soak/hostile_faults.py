"""A hostile broker, and hostile clients of the metrics page."""

import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from random import Random
from typing import Final
from urllib.parse import urlsplit

from tests.edge.mqtt.packets import message, packet
from tests.soak.injection import FaultGroup, Inject, Recovered
from tests.soak.plan import Fault

_COMMAND: Final = b"fer-edge/kiosk/command/"
_REASONS: Final = (0x00, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x90, 0x93, 0x95, 0x97, 0x99, 0x9D, 0xFF)
_HUGE: Final = 1_000_000
_DECLARED: Final = 256_000_000
_PINGS: Final = 2000
_NEVER_SENT: Final = 65_000  # packet ids begin at 1 in each connection, which never has so many


def _published(topic: bytes, payload: bytes) -> bytes:
    return message(topic, b"\0" + payload)  # MQTT 5.0 has properties, here none


class BrokerFaults(FaultGroup):
    """What a broker must not send. Some of it breaks the connection, the rest must change nothing."""

    @property
    def kinds(self) -> Mapping[str, Inject]:
        return {
            "broker-garbage": lambda fault: self._breaking(fault, _garbage(Random(fault.variant))),
            "broker-endless": lambda fault: self._breaking(fault, packet(0x30, _DECLARED) + bytes(_HUGE), cut=True),
            "broker-goodbye": lambda fault: self._breaking(fault, bytes((0xE0, 2, _reason(fault), 0))),
            "broker-topics": lambda fault: self._harmless(_topics(Random(fault.variant))),
            "broker-payload": lambda fault: self._harmless(_published(_COMMAND + b"pause", b'"' * _HUGE)),
            "broker-answers": lambda fault: self._harmless(_answers(Random(fault.variant))),
            "broker-pings": lambda fault: self._harmless(b"\xd0\x00" * _PINGS),
        }

    def _breaking(self, fault: Fault, data: bytes, *, cut: bool = False) -> Recovered:
        proxy = self.world.proxy
        self.until(lambda: proxy.inject(data), "the device connects")
        self.hold(fault)
        if cut:
            proxy.cut()
        acknowledged = self.world.is_acknowledged()
        if cut:
            proxy.mend()
        return acknowledged

    def _harmless(self, data: bytes) -> Recovered:
        self.until(lambda: self.world.proxy.inject(data), "the device connects")
        return self.world.sees_frames()


def _reason(fault: Fault) -> int:
    return _REASONS[fault.variant % len(_REASONS)]


def _garbage(chance: Random) -> bytes:
    """Packets whose fixed header is right, of any type, with random content; then no packets at all."""
    packets = []
    for _ in range(chance.randint(1, 5)):
        body = chance.randbytes(chance.choice((0, 1, 2, 3, 5, 20, 300)))
        packets.append(
            packet(chance.choice((0x00, 0x10, 0x20, 0x36, 0x62, 0x90, 0xF0, chance.randrange(256))), len(body)) + body
        )
    # No acknowledgement of a message: the broker would be believed.
    harmless = [one for one in packets if one[0] >> 4 not in (4, 5, 6, 7)]
    return b"".join(harmless) + b"\x00\xff\xff\xff\xff\xff"


def _topics(chance: Random) -> bytes:
    topics = (
        _COMMAND + b"\xff\xfe", b"\xc3\x28", b"", b"#", b"\0", _COMMAND + b"x" * 60_000, _COMMAND + b"../../etc/passwd",
        b"homeassistant/status", "fer-edge/kiosk/command/\u202e\ud7ff".encode(), chance.randbytes(50),
    )  # fmt: skip
    return b"".join(_published(topic, b'{"on":true}' if b"pause" not in topic else b"") for topic in topics)


def _answers(chance: Random) -> bytes:
    """PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK and UNSUBACK with ids that were never sent."""
    numbers = [_NEVER_SENT + chance.randrange(500) for _ in range(20)]
    kinds = (0x40, 0x50, 0x62, 0x70, 0x90, 0xB0)
    return b"".join(
        packet(kind, 4) + struct.pack("!HBB", number, 0, 0) for number in numbers for kind in [chance.choice(kinds)]
    )


class PageFaults(FaultGroup):
    """Clients of the metrics page that do not mean well."""

    @property
    def kinds(self) -> Mapping[str, Inject]:
        return {
            "page-half-requests": lambda fault: self._clients(fault, 60, _half_request),
            "page-slow-readers": lambda fault: self._clients(fault, 20, _whole_request),
            "page-garbage": lambda fault: self._clients(fault, 5, _no_request),
            "page-resets": lambda fault: self._clients(fault, 30, _reset),
        }

    def _clients(self, fault: Fault, count: int, behave: Callable[[socket.socket, Random], None]) -> Recovered:
        device, chance = self.world.device, Random(fault.variant)
        self.until(lambda: device.metrics(of_now=True), "the metrics page answers")
        with self._connections(count) as connections:
            for connection in connections:
                with suppress(OSError):  # the device has closed it
                    behave(connection, chance)
            self.hold(fault)
        return lambda: bool(device.metrics(of_now=True))

    @contextmanager
    def _connections(self, count: int) -> Iterator[list[socket.socket]]:
        address = urlsplit(self.world.device.page)
        assert address.hostname
        assert address.port
        with ExitStack() as stack:
            made = []
            for _ in range(count):
                with suppress(OSError):  # its process has ended meanwhile
                    connection = socket.create_connection((address.hostname, address.port), timeout=3)
                    made.append(stack.enter_context(connection))
            yield made


def _half_request(connection: socket.socket, chance: Random) -> None:
    request = b"GET /metrics HTTP/1.1\r\nHost: kiosk\r\nAccept: text/plain"
    connection.sendall(request[: chance.randrange(len(request))])


def _whole_request(connection: socket.socket, _chance: Random) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: kiosk\r\n\r\n")


def _no_request(connection: socket.socket, chance: Random) -> None:
    connection.sendall(
        chance.choice(
            (
                chance.randbytes(500),
                b"GET " + b"x" * 70_000,
                b"GET /metrics HTTP/9.9\r\n\r\n",
                b"POST /metrics HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
                b"GET /../../etc/passwd\0 HTTP/1.0\r\n\r\n",
                b"GET /metrics?" + b"name[]=%ff&" * 3000 + b" HTTP/1.1\r\n\r\n",
                b"GET /metrics HTTP/1.1\r\n" + b"a: b\r\n" * 5000,
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
            )
        )
    )


def _reset(connection: socket.socket, chance: Random) -> None:
    """Close it so that the device gets a reset, before or within its request."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if chance.random() < 0.5:
        connection.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
    connection.close()
