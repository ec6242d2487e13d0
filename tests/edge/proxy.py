"""A TCP proxy before a real broker that records which events a device publishes and which of them are acknowledged."""

import json
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

_PUBLISH, _PUBACK = 3, 4


@dataclass
class Record:
    """Ids of events in the order in which they were published, acknowledged and refused; repeats too."""

    published: list[str] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def first_published(self) -> list[str]:
        return list(dict.fromkeys(self.published))


class _Packets:
    """Splits a stream of bytes into MQTT packets."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, more: bytes) -> Iterator[tuple[int, bytes]]:
        """The first byte and the rest of each packet that is complete."""
        self._bytes += more
        while len(self._bytes) >= 2:
            length, used = _variable(self._bytes, 1)
            if used == 0 or len(self._bytes) < used + length:
                return
            yield self._bytes[0], bytes(self._bytes[used : used + length])
            del self._bytes[: used + length]


def _variable(data: bytes | bytearray, at: int) -> tuple[int, int]:
    """A variable byte integer and where it ends; 0 when there is not enough."""
    value = 0
    for place in range(4):
        if at + place >= len(data):
            return 0, 0
        value |= (data[at + place] & 0x7F) << (7 * place)
        if not data[at + place] & 0x80:
            return value, at + place + 1
    raise ValueError("no variable byte integer")


class Proxy:
    """Forwards connections to ``target``, a loopback port; ``cut`` breaks them, and keeps new ones out for a while."""

    def __init__(self, target: int, version: int = 5) -> None:
        self.connections = 0
        self.refused = 0  # messages of any topic
        self._record = Record()
        self._answering = threading.Lock()
        self._target = target
        self._version = version
        self._open = True
        self._closed = False
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._lock = threading.Lock()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def record(self) -> Record:
        """What has passed so far: whatever the device has received is in it."""
        with self._answering:
            return self._record

    def cut(self) -> None:
        """Break every connection now; new ones are closed at once until ``mend``."""
        self._open = False
        with self._lock:
            for pair in self._pairs:
                for end in pair:
                    _shut(end)

    def mend(self) -> None:
        self._open = True

    @property
    def busy(self) -> bool:
        """Whether a connection is still forwarded."""
        return bool(self._pairs)

    def close(self) -> None:
        self._closed = True
        self.cut()
        _shut(self._server)
        self._server.close()
        for thread in self._threads:
            thread.join(5)

    def _accept(self) -> None:
        while not self._closed:
            try:
                device, _ = self._server.accept()
            except OSError:
                return
            if not self._open:
                device.close()
                continue
            try:
                broker = socket.create_connection(("127.0.0.1", self._target), timeout=5)
            except OSError:
                device.close()
                continue
            self.connections += 1
            thread = threading.Thread(target=self._forward, args=(device, broker), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _forward(self, device: socket.socket, broker: socket.socket) -> None:
        pair = (device, broker)
        with self._lock:
            self._pairs.add(pair)
        in_flight: dict[int, str] = {}
        packets = {device: _Packets(), broker: _Packets()}
        try:
            while True:
                for one in select.select([device, broker], [], [], 5)[0]:
                    data = one.recv(65536)
                    if not data:
                        return
                    if one is device:
                        self._note_all(packets[one].feed(data), in_flight, from_device=True)
                        self._pass_on(broker, data, to_device=False)
                    else:
                        with self._answering:
                            if self._pass_on(device, data, to_device=True):  # what is lost acknowledges nothing
                                self._note_all(packets[one].feed(data), in_flight, from_device=False)
        except (OSError, ValueError):
            return
        finally:
            with self._lock:
                self._pairs.discard(pair)
            device.close()
            broker.close()

    def _pass_on(self, end: socket.socket, data: bytes, *, to_device: bool) -> bool:
        """Send what came from the other end, and return whether it was sent; other proxies may lose or delay it."""
        end.sendall(data)
        return True

    def _note_all(self, packets: Iterator[tuple[int, bytes]], in_flight: dict[int, str], *, from_device: bool) -> None:
        for first, body in packets:
            self._note(from_device, first, body, in_flight)

    def _note(self, from_device: bool, first: int, body: bytes, in_flight: dict[int, str]) -> None:
        kind = first >> 4
        if from_device and kind == _PUBLISH and first & 0x06:
            length = int.from_bytes(body[:2], "big")
            if not body[2 : 2 + length].endswith(b"/event"):
                return
            at = 2 + length
            number = int.from_bytes(body[at : at + 2], "big")
            at += 2
            if self._version == 5:
                properties, at = _variable(body, at)
                at += properties
            in_flight[number] = json.loads(body[at:])["id"]
            self._record.published.append(in_flight[number])
        elif not from_device and kind == _PUBACK:
            refused = len(body) > 2 and body[2] >= 0x80
            self.refused += refused
            event = in_flight.pop(int.from_bytes(body[:2], "big"), None)
            if event:
                (self._record.refused if refused else self._record.acknowledged).append(event)


def _shut(end: socket.socket) -> None:
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:  # it has gone already
        return


@contextmanager
def proxied(target: int, version: int = 5) -> Iterator[Proxy]:
    proxy = Proxy(target, version)
    try:
        yield proxy
    finally:
        proxy.close()
