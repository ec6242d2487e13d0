"""From what happened to the message that is sent: ids, wall-clock time, JSON, and the schema that documents it."""

import ctypes
import errno
import json
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec

from edge.episodes import Change
from edge.records import Event

Stamp = Callable[[float], datetime]
"""Turns a time of the source (seconds since its start) into wall-clock time with zone."""

_TIME_ERROR: Final = 5  # adjtimex(2): the clock is not synchronized
_TIMEX_BYTES: Final = 208  # sizeof(struct timex) on 64-bit Linux, and more than enough on 32-bit


class EventMaker:
    """Gives each change its id, ``<run id>-<sequence>``, and its time."""

    def __init__(self, stamp: Stamp, clock_synced: Callable[[], bool], run_id: str | None = None) -> None:
        self._stamp = stamp
        self._clock_synced = clock_synced
        self._run_id = run_id or secrets.token_hex(6)
        self._sequence = 0

    def event(self, change: Change) -> Event:
        """The event of one change; each call takes the next sequence number, starting at 1."""
        self._sequence += 1
        return Event(
            id=f"{self._run_id}-{self._sequence}",
            time=self._stamp(change.time).isoformat(timespec="milliseconds"),
            clock_synced=self._clock_synced(),
            track=change.track,
            kind=change.kind,
            expression=change.expression,
        )


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


def to_json(event: Event) -> bytes:
    """One line of JSON."""
    return msgspec.json.encode(event)


def schema() -> dict[str, Any]:
    """JSON Schema of an event, made from its type; ``docs/event.schema.json`` is this."""
    return msgspec.json.schema(Event)


if __name__ == "__main__":
    print(json.dumps(schema(), indent=2))
