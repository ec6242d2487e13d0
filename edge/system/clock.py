"""Wall-clock time of a source's frames, and whether a time server has set the clock."""

import ctypes
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

TimeOrigin = Callable[[], datetime]
"""Gives the wall-clock time, with zone, of a source's second 0, by what the clock says now."""

# Made once: each library and each buffer type makes a class, which only the cyclic garbage collector would free.
_LIBC: Final = ctypes.CDLL(None)
_TIMESYNCD_MARK: Final = Path("/run/systemd/timesync/synchronized")
_TIME_ERROR: Final = 5  # adjtimex(2): the clock is not synchronized
_Timex: Final = ctypes.c_char * 208  # sizeof(struct timex) on 64-bit Linux, and more than enough on 32-bit


def now() -> datetime:
    """Wall-clock time with the local zone."""
    return datetime.now(UTC).astimezone()


def media_time(started: datetime) -> TimeOrigin:
    """For a file: second 0 is the run's start."""
    return lambda: started


def live_time() -> TimeOrigin:
    """For a camera that is opened now; right even when the wall clock is set while it runs."""
    opened = time.monotonic()
    return lambda: now() - timedelta(seconds=time.monotonic() - opened)


@dataclass(frozen=True, slots=True)
class Moment:
    """What the clock says at one moment: the time of the source's second 0, and whether a time server has set it."""

    origin: datetime
    synced: bool

    def text(self, time: float) -> str:
        """A source time in seconds as RFC 3339 with zone, to the millisecond."""
        return (self.origin + timedelta(seconds=time)).isoformat(timespec="milliseconds")


def moment(origin: TimeOrigin) -> Moment:
    """The moment of now; its origin is truncated to milliseconds."""
    exact = origin()
    return Moment(exact.replace(microsecond=exact.microsecond // 1000 * 1000), clock_synced())


def clock_synced() -> bool:
    """Whether a time server set this device's clock, as the kernel knows it (adjtimex(2), which only reads here).

    The kernel forgets it after nine hours without the time server, and some containers do not let it be asked. So the
    mark that systemd-timesyncd makes counts too.
    """
    return _LIBC.adjtimex(_Timex()) not in (-1, _TIME_ERROR) or _TIMESYNCD_MARK.exists()
