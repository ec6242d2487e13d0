"""Wall-clock time of what a source showed, and whether the clock can be trusted. Nothing but the standard library."""

import ctypes
import errno
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

Stamp = Callable[[float], datetime]
"""Turns a time of the source (seconds since its start) into wall-clock time with zone."""

_TIME_ERROR: Final = 5  # adjtimex(2): the clock is not synchronized
_TIMEX_BYTES: Final = 208  # sizeof(struct timex) on 64-bit Linux, and more than enough on 32-bit


def now() -> datetime:
    """Wall-clock time with zone."""
    return datetime.now(UTC).astimezone()


def media_time(started: datetime) -> Stamp:
    """Time of a file's frames: the run's start plus the media time."""
    return lambda at: started + timedelta(seconds=at)


def live_time() -> Stamp:
    """Time of a camera's frames; right even when the wall clock is set while the camera runs."""
    opened = time.monotonic()
    return lambda at: datetime.now(UTC).astimezone() - timedelta(seconds=time.monotonic() - opened - at)


def clock_synced() -> bool:
    """Whether a time server set this device's clock, as the kernel knows it (adjtimex(2), which only reads here)."""
    libc = ctypes.CDLL(None, use_errno=True)
    state = libc.adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    if state == -1 and ctypes.get_errno() == errno.EPERM:  # the service's system-call filter denies the clock calls
        return Path("/run/systemd/timesync/synchronized").exists()
    return bool(state not in (-1, _TIME_ERROR))
