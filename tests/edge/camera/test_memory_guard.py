"""The guard of the memory works when nothing else does."""

import os
import resource
from collections.abc import Iterator

import pytest

from edge.camera.memory_guard import MemoryGuard, resident_bytes
from edge.errors import SourceError


@pytest.fixture
def no_more_files() -> Iterator[None]:
    """This process may open nothing more, but keep what is open."""
    resident_bytes()  # as when the camera was opened
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("no_more_files")
def test_memory_is_measured_when_no_file_can_be_opened() -> None:
    with pytest.raises(OSError, match="Too many open files"):
        os.open(os.devnull, os.O_RDONLY)
    MemoryGuard("camera", resident_bytes).check()
    before = resident_bytes()
    ballast = b"x" * 30_000_000
    assert resident_bytes() - before > len(ballast) // 2


def test_memory_that_cannot_be_measured_is_an_error_of_the_camera() -> None:
    def fails() -> int:
        raise OSError(24, "Too many open files")

    with pytest.raises(SourceError, match="camera: cannot be watched: Too many open files"):
        MemoryGuard("camera", fails)
