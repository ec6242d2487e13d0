"""The HTTP server of metrics page and preview: whoever connects can hold few resources, and each for seconds only."""

import errno
import socket
import threading
import time
from contextlib import suppress
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

MAX_CONNECTIONS: Final = 4
"""How many connections are open at a time. A page takes milliseconds. One Prometheus or one browser needs few."""
CONNECTION_SECONDS: Final = 10.0
"""After this time a connection is closed, however slowly its request comes or its answer is taken."""
_RELEASE_SECONDS: Final = 0.5
_NO_FILE_SECONDS: Final = 0.2


class PageServer(ThreadingMixIn, WSGIServer):
    """A thread for each of at most MAX_CONNECTIONS. The oldest is closed for a new one: those who wait idly lose.

    Raises OSError when it cannot listen at ``address``, a name or an IP address, and ``port``.
    """

    daemon_threads = True  # the end of the program waits for nobody's request
    request_queue_size = 64  # the kernel holds these; with few, a client waits a second and tries again

    def __init__(self, address: str, port: int, seconds: float = CONNECTION_SECONDS) -> None:
        [(self.address_family, *_, where), *_] = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)
        super().__init__((str(where[0]), port), _QuietHandler)
        self._seconds = seconds
        self._free = threading.Semaphore(MAX_CONNECTIONS)
        self._open: list[socket.socket] = []  # oldest first
        self._lock = threading.Lock()

    def server_bind(self) -> None:
        """Listen. The base class would ask a name server for this machine's name, which nothing here needs."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def get_request(self) -> Any:
        """Accept a connection. While no file can be opened it stays in the kernel's queue, and is tried again later."""
        try:
            return super().get_request()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                time.sleep(_NO_FILE_SECONDS)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a new connection in a thread; called by the thread that accepts."""
        if not self._free.acquire(blocking=False):
            with self._lock:
                _end(*self._open[:1])
            if not self._free.acquire(timeout=_RELEASE_SECONDS):
                self.shutdown_request(request)
                return
        with self._lock:
            self._open.append(request)
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # the system gives no more threads
            self._release(request)
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection, for a limited time."""
        deadline = threading.Timer(self._seconds, self._end_if_open, (request,))
        try:
            deadline.start()
            super().process_request_thread(request, client_address)
        except RuntimeError:  # the system gives no more threads, so nothing would limit the time
            self.shutdown_request(request)
        finally:
            deadline.cancel()
            self._release(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: whoever connects could fill the log."""

    def _end_if_open(self, request: socket.socket) -> None:
        with self._lock:
            if request in self._open:
                _end(request)

    def _release(self, request: socket.socket) -> None:
        with self._lock:
            self._open.remove(request)
        self._free.release()


class _QuietHandler(WSGIRequestHandler):
    """Logs no requests and no errors of connections."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the name of the base class
        """Log nothing."""


def _end(*connections: socket.socket) -> None:
    """Make reading and writing end at once. The thread of the connection closes it."""
    for connection in connections:
        with suppress(OSError):  # the other side was faster, or it is closed already
            connection.shutdown(socket.SHUT_RDWR)
