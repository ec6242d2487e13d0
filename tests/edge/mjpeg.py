"""A stand-in for a network camera: an HTTP server that sends JPEG pictures one after another."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import cv2
import numpy as np

from tests.conftest import PORTRAIT

FPS = 20


def jpeg(picture: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def noisy_pictures() -> Iterator[bytes]:
    """The portrait with a sensor's noise, for ever."""
    portrait = cv2.resize(cv2.imread(str(PORTRAIT)), (320, 240), interpolation=cv2.INTER_AREA)
    noise = np.random.default_rng(1)
    while True:
        yield jpeg(cv2.add(portrait, noise.integers(0, 12, portrait.shape, np.uint8)))


class Mjpeg:
    """Serves ``pictures`` at 20 a second to each client; after the last it sends nothing more, or disconnects.

    With ``endless`` it sends a picture without end after the last.
    """

    def __init__(self, pictures: Any, *, hang_up: bool = False, endless: bool = False) -> None:
        self._pictures = pictures
        self._hang_up = hang_up
        self._endless = endless
        self._stopped = threading.Event()
        self.sent = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/stream"

    def __enter__(self) -> "Mjpeg":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                try:
                    server._send(self.wfile)
                except OSError:  # the client has disconnected
                    return

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def _send(self, client: Any) -> None:
        for picture in self._pictures():
            if self._stopped.wait(1 / FPS):
                return
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
            client.write(head.encode() + picture + b"\r\n")
            self.sent += 1
        if self._endless:
            client.write(b"--frame\r\nContent-Type: image/jpeg\r\n\r\n\xff\xd8")
        while self._endless and not self._stopped.is_set():
            client.write(bytes(2**16))
        if not self._hang_up:
            self._stopped.wait()
