"""How late an event is when it is sent, which only the moment of sending can tell."""

from collections.abc import Callable
from datetime import datetime

import msgspec

from edge.system import clock


class _StoredTime(msgspec.Struct, frozen=True):
    """The fields of a stored event that say when it happened."""

    id: str
    time: datetime
    clock_synced: bool


class DeliveryDelay:
    """Adds ``late`` to stored events: the seconds between happening and sending; null where the clock cannot tell.

    The clock can tell when a time server had set it at both moments. If none had at either, it still can for events of
    this process: it has only run on. ``synced`` says whether a time server has set the clock by now.
    """

    def __init__(
        self, now: Callable[[], datetime] = clock.now, synced: Callable[[], bool] = clock.clock_synced
    ) -> None:
        self._now = now
        self._synced = synced
        self._own_runs: set[str] = set()

    def happened(self, event_id: str) -> None:
        """An event with this id has happened in this process."""
        self._own_runs.add(_run_of(event_id))

    def stamp(self, payload: bytes) -> bytes:
        """A stored event, as JSON, with ``late``."""
        return payload[:-1] + b',"late":' + msgspec.json.encode(self._late(payload)) + b"}"

    def _late(self, payload: bytes) -> float | None:
        try:
            stored = msgspec.json.decode(payload, type=_StoredTime)
        except msgspec.DecodeError:  # of a version whose events had other fields
            return None
        if stored.clock_synced != self._synced():
            return None
        if not stored.clock_synced and _run_of(stored.id) not in self._own_runs:
            return None
        return max(0.0, round((self._now() - stored.time).total_seconds(), 3))


def _run_of(event_id: str) -> str:
    return event_id.rpartition("-")[0]
