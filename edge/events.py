"""From what happened to the message that is sent: ids, JSON, and the schema that documents it."""

import secrets
from collections.abc import Callable
from typing import Any

import msgspec

from edge.clock import Stamp
from edge.episodes import Change
from edge.records import Event


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


def to_json(event: Event) -> bytes:
    """One line of JSON."""
    return msgspec.json.encode(event)


def schema() -> dict[str, Any]:
    """JSON Schema of an event, made from its type; ``docs/event.schema.json`` is this (edge.messages)."""
    return msgspec.json.schema(Event)
