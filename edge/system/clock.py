"""Wall-clock time of what a source showed, and whether the clock can be trusted. Nothing but the standard library."""

import ctypes
import errno
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

TimeOrigin = Callable[[], datetime]
"""Says when a source's second 0 was, as wall-clock time with zone, as far as is known now."""

# Once: each library, and each kind of buffer, makes a class, which only the cyclic collector would take away again.
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_TIME_ERROR: Final = 5  # adjtimex(2): the clock is not synchronized
_Timex: Final = ctypes.c_char * 208  # sizeof(struct timex) on 64-bit Linux, and more than enough on 32-bit


def now() -> datetime:
    """Wall-clock time with zone."""
    return datetime.now(UTC).astimezone()


def media_time(started: datetime) -> TimeOrigin:
    """Time of a file's frames: the run's start plus the media time."""
    return lambda: started


def live_time() -> TimeOrigin:
    """Time of a camera's frames; right even when the wall clock is set while the camera runs."""
    opened = time.monotonic()
    return lambda: now() - timedelta(seconds=time.monotonic() - opened)


@dataclass(frozen=True, slots=True)
class Moment:
    """What the clock says at one moment: when the source's second 0 was, and whether a time server has set it."""

    origin: datetime
    synced: bool

    def text(self, at: float) -> str:
        """RFC 3339 with zone of a time of the source in seconds, to the millisecond."""
        return (self.origin + timedelta(seconds=at)).isoformat(timespec="milliseconds")


def moment(origin: TimeOrigin) -> Moment:
    """The present moment; the origin is cut to milliseconds."""
    exact = origin()
    return Moment(exact.replace(microsecond=exact.microsecond // 1000 * 1000), clock_synced())


def clock_synced() -> bool:
    """Whether a time server set this device's clock, as the kernel knows it (adjtimex(2), which only reads here)."""
    state = _LIBC.adjtimex(_Timex())
    if state == -1 and ctypes.get_errno() == errno.EPERM:  # the service's system-call filter denies the clock calls
        return Path("/run/systemd/timesync/synchronized").exists()
    return bool(state not in (-1, _TIME_ERROR))
