"""Makes events from changes: ids, times, JSON."""

import secrets

import msgspec

from edge.events.episodes import Change, EpisodeSpan
from edge.records import Episode, Event
from edge.system.clock import Moment


class EventFactory:
    """Gives each change its id, ``<run id>-<sequence>``, and its time of day."""

    def __init__(self, run_id: str | None = None) -> None:
        self.run_id = run_id or secrets.token_hex(6)
        self._sequence = 0

    def next_id(self) -> str:
        """The next id; sequence numbers start at 1."""
        self._sequence += 1
        return f"{self.run_id}-{self._sequence}"

    def event(self, change: Change, moment: Moment) -> Event:
        """The event of one change; ``moment`` gives its time of day."""
        return Event(
            id=self.next_id(),
            time=moment.text(change.time),
            clock_synced=moment.synced,
            track=change.track,
            kind=change.kind,
            expression=change.expression,
            reason=change.reason,
            episode=_episode(change.episode, moment) if change.episode else None,
            name=change.name,
        )


def _episode(span: EpisodeSpan, moment: Moment) -> Episode:
    return Episode(
        span.label,
        moment.text(span.start),
        round(span.duration, 3),
        round(span.peak, 4),
        round(span.mean, 4),
    )


def to_json(message: msgspec.Struct) -> bytes:
    """One line of JSON."""
    return msgspec.json.encode(message)
