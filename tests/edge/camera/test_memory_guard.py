"""The guard of the memory works when nothing else does."""

import mmap
import os

import pytest

from edge.camera.memory_guard import MemoryGuard, resident_bytes
from edge.errors import SourceError
from tests.conftest import no_more_files


def test_memory_is_measured_when_no_file_can_be_opened() -> None:
    guard = MemoryGuard("camera", resident=resident_bytes)
    with no_more_files():
        with pytest.raises(OSError, match="Too many open files"):
            os.open(os.devnull, os.O_RDONLY)
        guard.check()
        before = resident_bytes()
        with mmap.mmap(-1, 30_000_000) as ballast:  # new pages, where a bytes object may get what was freed before
            ballast.write(bytes(30_000_000))
            assert resident_bytes() - before > len(ballast) // 2


def test_memory_that_cannot_be_measured_is_an_error_of_the_camera() -> None:
    def fails() -> int:
        raise OSError(24, "Too many open files")

    with pytest.raises(SourceError, match="camera: cannot be watched: Too many open files"):
        MemoryGuard("camera", resident=fails)
