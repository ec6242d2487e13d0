"""A network camera whose visitors come and go in seconds, and which fails on demand."""

import itertools
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from typing import Any, Final, Literal

import cv2
import numpy as np

from tests.conftest import PORTRAIT
from tests.edge.mjpeg import jpeg

Mode = Literal["works", "gone", "stalled", "frozen", "corrupt"]

_FPS: Final = 10
_SIZE: Final = (240, 320)  # rows, columns
_VARIANTS: Final = 8  # of each scene, with different noise, so that no picture equals the one before
# The visitors and for how many frames they stay: nobody, one on the left, both, one on the right.
_VISITS: Final = (("", 5), ("l", 5), ("lr", 6), ("r", 5), ("", 5), ("r", 5), ("lr", 5))


def _pictures() -> dict[str, list[bytes]]:
    """JPEG pictures of each scene, which differ in sensor noise."""
    portrait = cv2.imread(str(PORTRAIT))
    assert portrait is not None
    rows, columns = portrait.shape[:2]
    face = portrait[int(0.05 * rows) : int(0.55 * rows), int(0.12 * columns) : int(0.62 * columns)]
    face = cv2.resize(face, (140, 140), interpolation=cv2.INTER_AREA)
    noise = np.random.default_rng(1)
    made: dict[str, list[bytes]] = {}
    for who in ("", "l", "r", "lr"):
        scene = np.full((*_SIZE, 3), 120, np.uint8)
        for side, left in (("l", 10), ("r", 170)):
            if side in who:
                scene[50:190, left : left + 140] = face if side == "l" else face[:, ::-1]
        made[who] = [jpeg(cv2.add(scene, noise.integers(0, 12, scene.shape, np.uint8))) for _ in range(_VARIANTS)]
    return made


class Camera:
    """An MJPEG server over HTTP that reads its ``mode`` for each frame; ``empty`` keeps visitors away."""

    def __init__(self) -> None:
        self.mode: Mode = "works"
        self.empty = False
        self._ended = threading.Event()
        self._pictures = _pictures()
        self._chance = Random(1)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/stream"

    def close(self) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()

    def _visits(self) -> Iterator[bytes]:
        variant = 0
        for who, frames in itertools.cycle(_VISITS):
            for _ in range(frames):
                variant = (variant + 1) % _VARIANTS
                yield self._pictures["" if self.empty else who][variant]

    def _send(self, client: Any) -> None:
        picture = b""
        for newest in self._visits():
            if self._ended.wait(1 / _FPS) or self.mode == "gone":
                return
            if self.mode == "stalled":
                continue
            picture = picture if self.mode == "frozen" and picture else newest
            sent = self._damaged(picture) if self.mode == "corrupt" else picture
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(sent)}\r\n\r\n"
            client.write(head.encode() + sent + b"\r\n")

    def _damaged(self, picture: bytes) -> bytes:
        """A picture that is cut off, partly overwritten, replaced by noise, or intact."""
        at = self._chance.randrange(len(picture))
        noise = self._chance.randbytes(64)
        return self._chance.choice((picture[:at], picture[:at] + noise + picture[at + 64 :], noise, picture))

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        camera = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if camera.mode == "gone":
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                try:
                    camera._send(self.wfile)
                except OSError:  # the client has disconnected
                    return

            def log_message(self, *_: object) -> None:
                pass

            def handle(self) -> None:
                try:
                    super().handle()
                except OSError:  # the client disconnected during its request
                    return

        return Handler
