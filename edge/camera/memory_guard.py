"""Ends a camera that fills the memory: a picture without end, or of absurd size.

MJPEG by HTTP has its own bounds (edge.camera.mjpeg). FFmpeg, which reads all else, collects a picture before it gives
it away, and has no option that bounds one. So the memory of the whole process is measured while a picture is waited
for. Nothing else grows then.
"""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edge.errors import SourceError

CHECK_SECONDS: Final = 0.1
OPENING_CAMERA: Final = 300_000_000  # bytes; picamera2 takes most of it
OPENING_STREAM: Final = 200_000_000  # bytes; the decoder of a 4K stream takes most of it
_PICTURE: Final = 64_000_000  # bytes; a part of 20 MB, while FFmpeg enlarges its buffer

_STATM: Final = Path("/proc/self/statm")
_LONGEST: Final = 200  # bytes


def resident_bytes() -> int:
    """The resident memory of this process (proc(5), statm). Raises OSError when the first call cannot open the file."""
    return int(os.pread(_statm(), _LONGEST, 0).split()[1]) * os.sysconf("SC_PAGE_SIZE")


@functools.cache
def _statm() -> int:
    """Opened once, because a process that may open no file more still has to know."""
    return os.open(_STATM, os.O_RDONLY | os.O_CLOEXEC)


class MemoryGuard:
    """Raises SourceError when the process grows too much while one picture of the camera ``name`` is waited for.

    ``opening`` is how many bytes opening the camera may take.
    """

    def __init__(self, name: str, opening: int = OPENING_CAMERA, resident: Callable[[], int] = resident_bytes) -> None:
        self._name = name
        self._resident = resident
        try:
            self._before = resident()
        except OSError as error:
            raise SourceError(f"{name}: cannot be watched: {error.strerror}") from error
        self._most = opening

    def start(self) -> None:
        """A new wait begins, after the camera is open."""
        self._before = self._resident()
        self._most = _PICTURE

    def check(self) -> None:
        """Raise SourceError when this wait has taken too much memory."""
        grown = self._resident() - self._before
        if grown > self._most:
            raise SourceError(
                f"{self._name}: {grown / 1e6:.0f} MB came, and no picture that ends. Does the address give a video "
                "stream, and is the camera in order?"
            )
