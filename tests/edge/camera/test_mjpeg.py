"""Streams of JPEG pictures as cameras send them, right and wrong, and HTTP servers that lead elsewhere."""

import contextlib
import io
import socket
import threading
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pytest

from edge.camera.devices import open_stream
from edge.camera.mjpeg import MultipartReader, decoding_memory
from edge.errors import SourceError
from edge.settings import CameraSettings
from tests.edge.mjpeg import Mjpeg

MB = 10**6
PICTURE = np.add.outer(np.arange(48, dtype=np.uint8) * 4, np.arange(64, dtype=np.uint8))


def jpeg(picture: np.ndarray, *options: int) -> bytes:
    return bytes(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 95, *options])[1].tobytes())


def parts(stream: bytes) -> list[bytes]:
    reader, found = MultipartReader(io.BytesIO(stream)), []
    with contextlib.suppress(EOFError):
        while len(found) < 9:
            found.append(bytes(reader.next_part()))
    return found


@pytest.mark.parametrize(
    "stream",
    [
        b"--b\r\nContent-Type: image/jpeg\r\nContent-Length: 4\r\n\r\nA--B\r\n--b\r\nContent-Length: 2\r\n\r\nCD\r\n",
        b"--b\ncontent-length:4\n\nA--B--b\nCONTENT-LENGTH :2\n\nCD",
        b"\r\nhello\r\n--b\r\n\r\nA--B\r\n--b\r\n\r\nCD\r\n--b\r\n",
        b"--b\r\nContent-Length: -3\r\n\r\nA--B\r\n--b\r\nContent-Length: x\r\n\r\nCD\r\n--b--\r\n",
        b"--b\r\nContent-Length: 4\r\n\r\nA--B\r\n----b\r\n\r\nCD\r\n----b\r\n\r\n and half a picture",
    ],
    ids=["lengths", "bare lines", "no lengths", "wrong lengths", "other separator"],
)
def test_parts_with_and_without_a_length(stream: bytes) -> None:
    assert [part.removesuffix(b"\r\n") for part in parts(stream)] == [b"A--B", b"CD"]


class Endless(io.RawIOBase):
    """A stream that gives the first bytes once, and then the others for ever; ``given`` counts."""

    def __init__(self, first: bytes, others: bytes) -> None:
        self._first, self._others, self.given = first, others, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        taken = self._first or self._others
        count = min(len(buffer), len(taken))
        buffer[:count] = taken[:count]
        self._first = self._first[count:]
        self.given += count
        return count


@pytest.mark.parametrize(
    ("first", "others"),
    [
        (b"", b"no separator\r\n" * 5000),
        (b"", b"x" * 2**16),
        (b"--b\r\n\r\n", b"x" * 2**16),
        (b"--b\r\n\r\n", b"\n" * 2**16),
        (b"--b\r\n", b"X-More: 1\r\n" * 5000),
        (b"--b\r\n", b"x" * 2**16),
        (b"--b\r\nContent-Length: 20000001\r\n\r\n", b"x" * 2**16),
        (b"--b\r\nContent-Length: " + b"9" * 4000 + b"\r\n\r\n", b"x" * 2**16),
    ],
)
def test_whatever_does_not_end_is_given_up_at_twenty_megabytes(first: bytes, others: bytes) -> None:
    stream = Endless(first, others)
    with pytest.raises(ValueError, match="picture"):
        MultipartReader(io.BufferedReader(stream, 2**16)).next_part()
    assert stream.given < 20.2 * MB


def test_memory_is_known_before_a_picture_is_decoded() -> None:
    """libjpeg keeps two bytes of each pixel and component unless one scan holds all components."""
    colour = cv2.cvtColor(PICTURE, cv2.COLOR_GRAY2BGR)
    pixels = PICTURE.size
    assert decoding_memory(bytearray(jpeg(PICTURE)), "camera") == pixels
    assert decoding_memory(bytearray(jpeg(colour)), "camera") == pixels
    progressive = jpeg(colour, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    assert decoding_memory(bytearray(progressive), "camera") == pixels * 7
    scan = jpeg(colour).index(b"\xff\xda")
    by_component = bytearray(jpeg(colour))
    by_component[scan + 4] = 1
    assert decoding_memory(by_component, "camera") == pixels * 7
    comments = b"\xff\xd8" + b"\xff\xfe\0\2" * 50 + jpeg(PICTURE)[2:]
    assert decoding_memory(bytearray(comments), "camera") == pixels


@pytest.mark.parametrize(
    "no_picture", [b"", b"\xff\xd8", b"<html>" * 9, b"\xff\xd8" + b"\xff\xfe\0\2" * 10**6, jpeg(PICTURE)[:100]]
)
def test_what_is_no_picture_is_not_decoded(no_picture: bytes) -> None:
    assert decoding_memory(bytearray(no_picture), "camera") is None


def test_a_picture_that_declares_too_many_pixels_is_refused() -> None:
    content = bytearray(jpeg(PICTURE))
    size = content.index(b"\xff\xc0") + 5
    content[size : size + 4] = b"\xff\xff\xff\xff"
    with pytest.raises(SourceError, match="camera: its frames are 65535x65535"):
        decoding_memory(content, "camera")


@contextlib.contextmanager
def server(answer: Callable[[str, int], bytes]) -> Iterator[tuple[int, list[str]]]:
    """A server that gives ``answer`` to each request and its number, and hangs up; yields port and requests."""
    requests: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    client, _ = listening.accept()
                except OSError:
                    return
                with client:
                    requests.append(client.recv(4096).decode())
                    client.sendall(answer(requests[-1], len(requests)))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1], requests
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def stream(*pictures: bytes, head: str = "Content-Type: multipart/x-mixed-replace; boundary=b") -> bytes:
    body = b"".join(b"--b\r\nContent-Length: %d\r\n\r\n%b\r\n" % (len(one), one) for one in pictures)
    return f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n".encode() + body


def chunked(content: bytes) -> bytes:
    head, _, body = content.partition(b"\r\n\r\n")
    chunks = [body[start : start + 100] for start in range(0, len(body), 100)]
    sent = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return head + b"\r\nTransfer-Encoding: chunked\r\n\r\n" + sent + b"0\r\n\r\n"


@pytest.mark.parametrize("encode", [bytes, chunked])
def test_pictures_come_as_they_were_taken_and_what_is_none_is_skipped(encode: Callable[[bytes], bytes]) -> None:
    sent = stream(b"<text>", jpeg(PICTURE), jpeg(PICTURE)[:300], jpeg(PICTURE.T))
    with server(lambda *_: encode(sent)) as (port, _):
        device = open_stream(CameraSettings(f"http://127.0.0.1:{port}/s"))
        first = device.read().gray
        last = device.read().gray
        with pytest.raises(SourceError, match=r"^http://127.0.0.1:\d+/s: the stream ended. Is the server running\?$"):
            device.read()
        device.close()
    assert np.abs(first.astype(int) - PICTURE).max() <= 4
    assert last.shape == PICTURE.T.shape


def test_a_progressive_picture_that_would_take_too_much_memory_is_refused() -> None:
    large = jpeg(np.zeros((2304, 4096, 3), np.uint8), cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    with server(lambda *_: stream(large)) as (port, _), pytest.raises(SourceError, match="would take 66 MB"):
        open_stream(CameraSettings(f"http://127.0.0.1:{port}/s"))


def test_user_and_password_go_to_the_same_server_only() -> None:
    wanted = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=x\r\n\r\n"

    def other(_request: str, _number: int) -> bytes:
        return stream(jpeg(PICTURE))

    def guarded(request: str, _number: int) -> bytes:
        if "Authorization" not in request:
            return wanted.encode()
        return f"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{elsewhere}/s\r\n\r\n".encode()

    def first(request: str, _number: int) -> bytes:
        return guarded(request, 0) if "/live" in request else b"HTTP/1.1 307 X\r\nLocation: /live?a=%20\r\n\r\n"

    with server(other) as (elsewhere, asked_there), server(first) as (port, asked):
        open_stream(CameraSettings(f"http://us%23er:SECRET@127.0.0.1:{port}/")).close()
    assert [request.splitlines()[0] for request in asked] == ["GET / HTTP/1.1", *["GET /live?a=%20 HTTP/1.1"] * 2]
    assert ["Authorization: Basic dXMjZXI6U0VDUkVU" in request for request in asked] == [False, False, True]
    assert len(asked_there) == 1
    assert "Authorization" not in asked_there[0]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("302 Found\r\nLocation: /again", "its server redirects again and again"),
        ("302 Found\r\nLocation: file:///etc/passwd", "its server redirects to another kind of address"),
        ("302 Found\r\nLocation: http://[bad/", "its server redirects to an address that cannot be parsed"),
        ("302 Found", "refused (302). Is the address right?"),
        ("503 Busy", "refused (503). Is the address right?"),
        ("401 No\r\nWWW-Authenticate: Basic realm=x", "refused (401). Check camera.username"),
    ],
)
def test_a_server_that_gives_no_stream_is_reported(answer: str, expected: str) -> None:
    with (
        server(lambda *_: f"HTTP/1.1 {answer}\r\n\r\n".encode()) as (port, asked),
        pytest.raises(SourceError) as raised,
    ):
        open_stream(CameraSettings(f"http://u:SECRET@127.0.0.1:{port}/s"))
    assert expected in str(raised.value)
    assert "SECRET" not in str(raised.value)
    assert len(asked) <= 6


def test_a_page_in_place_of_a_stream_is_named_by_its_type_if_that_is_one() -> None:
    page = "HTTP/1.1 200 OK\r\nContent-Type: {}\r\n\r\n<html>"
    for given, told in (
        ("Text/HTML; charset=utf-8", "in the text/html that its server sends"),
        ("\x1b[2J/x", "within"),
    ):
        answer = page.format(given).encode()
        with server(lambda *_, answer=answer: answer) as (port, _), pytest.raises(SourceError) as raised:
            open_stream(CameraSettings(f"http://127.0.0.1:{port}/s"))
        assert f"/s: no video stream {told}" in str(raised.value)


def test_a_single_picture_in_place_of_a_stream_is_named() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n\r\n" + jpeg(PICTURE)
    with server(lambda *_: answer) as (port, _):
        device = open_stream(CameraSettings(f"http://127.0.0.1:{port}/snapshot.jpg"))
        assert device.read().gray.shape == PICTURE.shape
        with pytest.raises(SourceError, match=r"a single picture \(image/jpeg\)\. Give the"):
            device.read()
        device.close()


@pytest.mark.slow
def test_a_stream_without_a_picture_is_not_said_to_have_ended() -> None:
    def no_picture() -> Iterator[bytes]:
        yield from ()

    with Mjpeg(no_picture) as camera, pytest.raises(SourceError, match="no video stream within 10 s"):
        open_stream(CameraSettings(camera.url))


@pytest.mark.parametrize("greeting", [b"ICY 200 OK\r\n\r\n", b"HTTP/1.0 200 OK\r\nContent-Type: video/mp4\r\n\r\n"])
def test_ffmpeg_is_asked_about_everything_else(greeting: bytes) -> None:
    with server(lambda *_: greeting) as (port, asked), pytest.raises(SourceError, match="no video stream"):
        open_stream(CameraSettings(f"http://127.0.0.1:{port}/s"))
    assert "User-Agent: fer-edge" in asked[0]
    assert "User-Agent: Lavf" in asked[1]
