"""The network before the broker, and a hostile broker: what passes can be lost, late, or joined by other packets."""

import socket
import threading
import time

from tests.edge.proxy import Proxy, _shut


class SoakProxy(Proxy):
    """Counts every acknowledgement, of any topic; loses, delays and adds what it is told to."""

    def __init__(self, target: int) -> None:
        self.answers = 0
        self.delay = 0.0
        """Seconds by which everything is late."""
        self.lost: frozenset[bool] = frozenset()
        """Which directions lose everything: True is the one to the device."""
        self._sending = threading.Lock()
        super().__init__(target)

    def refuse(self) -> None:
        """Break every connection, and close the port until ``mend``."""
        self.cut()
        _shut(self._server)
        self._server.close()

    def mend(self) -> None:
        """Let connections be made again."""
        if self._server.fileno() < 0:
            self._server = socket.create_server(("127.0.0.1", self.port))
            self._threads.append(threading.Thread(target=self._accept, daemon=True))
            self._threads[-1].start()
        super().mend()

    def inject(self, data: bytes) -> bool:
        """Send bytes to the device as if they came from the broker; returns whether it is connected."""
        with self._lock:
            devices = [device for device, _ in self._pairs]
        sent = False
        for device in devices:
            try:
                with self._sending:
                    device.sendall(data)
                sent = True
            except OSError:  # it has broken the connection
                continue
        return sent

    def _pass_on(self, end: socket.socket, data: bytes, *, to_device: bool) -> None:
        if self.delay:
            time.sleep(self.delay)
        if to_device in self.lost:
            return
        with self._sending:
            end.sendall(data)

    def _note(self, from_device: bool, first: int, body: bytes, flying: dict[int, str]) -> None:
        self.answers += not from_device and first >> 4 == 4
        super()._note(from_device, first, body, flying)
