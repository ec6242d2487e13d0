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

Mode = Literal[
    "works", "gone", "stalled", "frozen", "corrupt", "trickles", "cuts", "endless", "no-video", "refuses", "resized"
]

_FPS: Final = 10
_SIZE: Final = (240, 320)  # rows, columns
_HANGING_UP: Final = ("gone", "no-video", "refuses")
_OTHER_SIZES: Final = ((320, 240), (640, 480), (96, 72), (1280, 720))
_ENDLESS_BYTES: Final = 64_000
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


def _decoded(picture: bytes) -> np.ndarray:
    decoded = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    return decoded


class Camera:
    """An MJPEG server over HTTP that reads its ``mode`` for each frame; ``empty`` keeps visitors away."""

    def __init__(self) -> None:
        self.mode: Mode = "works"
        self.empty = False
        self.opened = 0
        """How often it was asked for its stream."""
        self._ended = threading.Event()
        self._pictures = _pictures()
        self._resized = [jpeg(cv2.resize(_decoded(one), size)) for one in self._pictures["lr"] for size in _OTHER_SIZES]
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
            if self._ended.wait(0 if self.mode == "endless" else 1 / _FPS) or self.mode in _HANGING_UP:
                return
            if self.mode == "stalled":
                continue
            if self.mode == "trickles":
                client.write(b"\0\0")
                continue
            if self.mode == "endless":
                client.write(self._chance.randbytes(_ENDLESS_BYTES))
                continue
            picture = picture if self.mode == "frozen" and picture else newest
            sent = self._altered(picture)
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(sent)}\r\n\r\n"
            if self.mode == "cuts":
                client.write(head.encode() + sent[: self._chance.randrange(len(sent))])
                return
            client.write(head.encode() + sent + b"\r\n")

    def _altered(self, picture: bytes) -> bytes:
        if self.mode == "resized":
            return self._resized[self._chance.randrange(len(self._resized))]
        return self._damaged(picture) if self.mode == "corrupt" else picture

    def _damaged(self, picture: bytes) -> bytes:
        """A picture that is cut off, partly overwritten, replaced by noise, or intact."""
        at = self._chance.randrange(len(picture))
        noise = self._chance.randbytes(64)
        return self._chance.choice((picture[:at], picture[:at] + noise + picture[at + 64 :], noise, picture))

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        camera = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                camera.opened += 1
                if camera.mode == "refuses":
                    self.send_error(camera._chance.choice((401, 403, 404, 500, 503)))
                    return
                if camera.mode == "no-video":
                    self._send_text()
                    return
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

            def _send_text(self) -> None:
                text = camera._chance.choice((b"", b"<html>Log in</html>" * 100, camera._chance.randbytes(10_000)))
                self.send_response(200)
                self.send_header("Content-Type", camera._chance.choice(("text/html", "image/jpeg", "video/mp4")))
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                pass

            def handle(self) -> None:
                try:
                    super().handle()
                except OSError:  # the client disconnected during its request
                    return

        return Handler
