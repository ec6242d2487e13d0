"""A bound of the memory that one step of a program may take, whatever a file declares."""

import contextlib
import ctypes
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_LIBC: Final = ctypes.CDLL(None)
_M_MMAP_THRESHOLD: Final = -3  # of malloc.h
_LARGE: Final = 2**22  # bytes


@contextlib.contextmanager
def memory_budget(most: int) -> Iterator[None]:
    """Let this process allocate at most ``most`` bytes more while this lasts (RLIMIT_DATA).

    Beyond it allocations fail: MemoryError in Python, cv2.error or "no picture" in OpenCV. The bound is the process's,
    so other threads share it: use it for short steps. What the process had freed before its first budget may be used
    again besides. Where the kernel says nothing of its memory, there is no bound.
    """
    if set_option := getattr(_LIBC, "mallopt", None):  # glibc would keep what was freed, and use it beyond the bound
        set_option(_M_MMAP_THRESHOLD, _LARGE)
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[5])
    except (OSError, ValueError, IndexError):
        yield
        return
    wanted = pages * resource.getpagesize() + most
    lowest = min((limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY), default=wanted)
    resource.setrlimit(resource.RLIMIT_DATA, (min(wanted, lowest), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
