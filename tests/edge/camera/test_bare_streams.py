"""Videos sent as bare bytes over TCP and UDP, by a sender of this test, and read by OpenCV's own FFmpeg."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import cv2
import pytest

from edge.camera.sources import DemoSource, open_source
from edge.settings import CameraSettings
from tests.conftest import free_port

pytestmark = pytest.mark.slow

PACKET = 7 * 188  # of MPEG-TS, as senders over UDP use
FRAMES = 60


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A video that can be entered anywhere."""
    file = tmp_path_factory.mktemp("clip") / "clip.ts"
    writer = cv2.VideoWriter(str(file), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mpg2"), 25, (640, 480))
    for _, frame in zip(range(FRAMES), DemoSource().frames(), strict=False):
        writer.write(cv2.cvtColor(frame.gray, cv2.COLOR_GRAY2BGR))
    writer.release()
    return file.read_bytes()


@contextmanager
def sender(connection: socket.socket, clip: bytes) -> Iterator[None]:
    """Sends the clip again and again, a few megabytes a second, until this ends."""
    stop = threading.Event()

    def send() -> None:
        peer = connection.accept()[0] if connection.type == socket.SOCK_STREAM else connection
        with closing(peer):
            while not stop.is_set():
                for at in range(0, len(clip), PACKET):
                    try:
                        peer.send(clip[at : at + PACKET])
                    except ConnectionRefusedError:  # UDP, before the receiver listens
                        pass
                    except OSError:
                        return
                    if stop.wait(0.0005):
                        return

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def read_three(address: str) -> None:
    source = open_source(CameraSettings(source=address))
    frames = source.frames()
    assert source.live
    assert {next(frames).gray.shape for _ in range(3)} == {(480, 640)}
    source.close()


def test_a_video_is_fetched_over_tcp(clip: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, sender(server, clip):
        read_three(f"tcp://127.0.0.1:{server.getsockname()[1]}")


def test_a_video_is_received_over_udp(clip: bytes) -> None:
    port = free_port()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outgoing:
        outgoing.connect(("127.0.0.1", port))
        with sender(outgoing, clip):
            read_three(f"udp://@:{port}")
