"""Reads MJPEG by HTTP: ``multipart/x-mixed-replace``, one JPEG picture in each part (RFC 2046, 5.1).

FFmpeg can do that too, but has no option that bounds a part. Here a picture has a bound of memory, whatever the camera
sends. Grey pictures are decoded without their colours, which takes less time too.
"""

import http.client
from typing import Final, Protocol

import cv2
import numpy as np

from edge.camera.frame_size import require_frame_size
from edge.camera.http_stream import Answer, why_refused
from edge.errors import SourceError
from edge.records import Gray, Picture

_LARGEST_PART: Final = 20_000_000  # bytes
_LARGEST_PICTURE: Final = 48 * 2**20  # bytes: the part and what decoding it takes
_LONGEST_LINE: Final = 65_536
_MOST_HEADERS: Final = 100
_MOST_SEGMENTS: Final = 200  # of a JPEG file before its picture; large metadata has about fifty

_JPEG: Final = b"\xff\xd8"
_START_OF_FRAME: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # those three are tables
_PROGRESSIVE: Final = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_START_OF_SCAN: Final = 0xDA
_COEFFICIENT: Final = 2  # bytes


class Stream(Protocol):
    """What is used of ``http.client.HTTPResponse``."""

    def readline(self, limit: int, /) -> bytes:
        """A line, or as many bytes of it; nothing at the end."""
        ...

    def readinto(self, buffer: bytearray, /) -> int:
        """Fill the buffer; returns fewer bytes than it has at the end."""
        ...


class MultipartReader:
    """The parts of a multipart stream, one after another. Raises EOFError where it ends, ValueError at the bound.

    Servers disagree on what their boundary is, so any line that starts with ``--`` separates parts. Only in a part
    without a length it has to be the line that came before it.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._separator = b""
        self._at_head = False

    def next_part(self) -> bytearray:
        """The content of the next part."""
        skipped = 0
        while not self._at_head:
            line = self._line()
            self._at_head = line.startswith(b"--")
            self._separator = line.strip()
            skipped = _bounded(skipped + len(line))
        self._at_head = False
        length = self._read_head()
        if length is None:
            return self._until_separator()
        content = bytearray(_bounded(length))
        if self._stream.readinto(content) < length:
            raise EOFError
        return content

    def _read_head(self) -> int | None:
        """The length that the part's head states; None without one."""
        length = None
        for _ in range(_MOST_HEADERS):
            line = self._line().strip()
            if not line:
                return length
            name, _, value = line.partition(b":")
            if name.strip().lower() == b"content-length" and value.strip().isdigit():
                length = int(value[:20])
        raise ValueError("the head of a picture does not end")

    def _until_separator(self) -> bytearray:
        content = bytearray()
        while not (line := self._line()).startswith(self._separator):
            content += line
            _bounded(len(content))
        self._at_head = True
        return content

    def _line(self) -> bytes:
        line = self._stream.readline(_LONGEST_LINE)
        if not line:
            raise EOFError
        return line


def _bounded(size: int) -> int:
    if size > _LARGEST_PART:
        raise ValueError(f"{size / 1e6:.0f} MB came, and no picture that ends")
    return size


def decoding_memory(jpeg: bytearray, name: str) -> int | None:
    """The bytes that decoding a JPEG picture to grey takes; None when it is no such picture.

    libjpeg keeps all coefficients of a picture whose components are not in one scan. Raises SourceError when the
    picture has more pixels than a frame may have.
    """
    position, pixels, components, progressive = 2, 0, 0, False
    for _ in range(_MOST_SEGMENTS if jpeg.startswith(_JPEG) else 0):
        segment = jpeg[position : position + 10]
        if len(segment) < 10 or segment[0] != 0xFF:
            return None
        marker = segment[1]
        if marker in _START_OF_FRAME:
            height, width = int.from_bytes(segment[5:7]), int.from_bytes(segment[7:9])
            pixels, components = require_frame_size(width, height, name), segment[9]
            progressive = marker in _PROGRESSIVE
        if marker == _START_OF_SCAN:
            one_scan = segment[4] >= components and not progressive
            return pixels if one_scan else pixels * (1 + _COEFFICIENT * components)
        position += 2 + int.from_bytes(segment[2:4])
    return None


class MjpegDevice:
    """The pictures of an answer whose type is multipart. Messages call the camera ``name``.

    ``stall_seconds`` bounds how long one read waits after the first picture.
    """

    description = ""

    def __init__(self, answer: Answer, name: str, stall_seconds: float) -> None:
        self._answer = answer
        self._name = name
        self._parts = MultipartReader(answer.response)
        try:
            self._first: Gray | None = self._read()
            # The reader of the frames reports a stall first; this later limit only ends the call.
            answer.wait_at_most(stall_seconds + 1)
        except BaseException:
            answer.close()
            raise

    def read(self) -> Picture:
        """Wait for the next picture; parts that are no pictures are skipped.

        Raises SourceError when there are no more, or when one is too large.
        """
        first, self._first = self._first, None
        return Picture(self._read() if first is None else first)

    def close(self) -> None:
        """End the connection."""
        self._answer.close()

    def _read(self) -> Gray:
        while True:
            try:
                part = self._parts.next_part()
            except ValueError as error:
                raise SourceError(
                    f"{self._name}: {error}. Does the address give a video stream, and is the camera in order?"
                ) from error
            except TimeoutError as error:  # of the first picture: for a later one the reader of the frames waits less
                raise SourceError(f"{self._name}: {why_refused(self._name, error)}") from error
            except (OSError, EOFError, http.client.HTTPException) as error:
                raise SourceError(f"{self._name}: the stream ended. Is the server running?") from error
            picture = self._decode(part)
            if picture is not None:
                return picture

    def _decode(self, part: bytearray) -> Gray | None:
        memory = decoding_memory(part, self._name)
        if memory is None:
            return None
        if len(part) + memory > _LARGEST_PICTURE:
            raise SourceError(
                f"{self._name}: decoding a picture of {len(part) / 1e6:.1f} MB would take {memory / 1e6:.0f} MB. "
                "Choose a smaller size, or JPEG that is not progressive, in the camera"
            )
        try:
            picture = cv2.imdecode(np.frombuffer(part, np.uint8), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
        except cv2.error:  # a damaged picture; the next one may be whole
            return None
        return None if picture is None else np.asarray(picture, np.uint8)
