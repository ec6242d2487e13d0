"""Counts people per interval instead of reporting single ones, under ``privacy.aggregate_only``. Pure.

A count of fewer people than ``minimum_people`` is never given, neither of all nor of those who showed one expression.
An interval with fewer is reported all the same, without a count: so silence tells nothing, not even that nobody came.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from edge.events.episodes import Change
from edge.settings import PrivacySettings


@dataclass(frozen=True, slots=True)
class IntervalCounts:
    """Counts of the ``seconds`` before ``end`` (source time, seconds); fields as in edge.mqtt.messages.Aggregate.

    ``people`` is None when they were fewer than ``minimum_people``, or nobody.
    """

    end: float
    seconds: float
    people: int | None
    expressions: dict[str, int]
    presets: dict[str, int]


class AggregateCounter:
    """Counts tracks per interval, from the start of the source on; a track counts in each interval it is there."""

    def __init__(self, privacy: PrivacySettings) -> None:
        self._seconds = privacy.interval_seconds
        self._minimum = privacy.minimum_people
        self._ended = 0  # intervals
        self._present: dict[int, str | None] = {}
        self._start_over()

    @property
    def _end(self) -> float:
        """When this interval ends."""
        return (self._ended + 1) * self._seconds

    def update(self, changes: Iterable[Change], now: float) -> Iterator[IntervalCounts]:
        """Take the changes until ``now``; yields each interval that has ended.

        There are several after a long time without a frame. In all but the first nobody was seen.
        """
        if now >= self._end:
            yield self._close(self._end)
            self._ended += 1
        while now >= self._end:
            yield IntervalCounts(self._end, round(self._seconds, 3), None, {}, {})
            self._ended += 1
        for change in changes:
            self._count(change)

    def end(self, now: float) -> Iterator[IntervalCounts]:
        """The source has ended, and with it this interval, which may be shorter; yields it if enough people came."""
        counts = self._close(now)
        if counts.people is not None:
            yield counts

    def _count(self, change: Change) -> None:
        if change.kind == "left":
            self._present.pop(change.track, None)
            return
        label = change.expression.label if change.expression else None
        self._present[change.track] = label
        self._add(change.track, label)
        if change.name:
            self._presets.setdefault(change.name, set()).add(change.track)

    def _add(self, track: int, label: str | None) -> None:
        self._people.add(track)
        if label:
            self._expressions.setdefault(label, set()).add(track)

    def _close(self, end: float) -> IntervalCounts:
        people = len(self._people) if len(self._people) >= self._minimum else None
        counts = (self._reportable(self._expressions), self._reportable(self._presets))
        self._start_over()
        return IntervalCounts(end, round(end - self._ended * self._seconds, 3), people, *counts)

    def _reportable(self, groups: dict[str, set[int]]) -> dict[str, int]:
        return {name: len(tracks) for name, tracks in sorted(groups.items()) if len(tracks) >= self._minimum}

    def _start_over(self) -> None:
        self._people: set[int] = set()
        self._expressions: dict[str, set[int]] = {}
        self._presets: dict[str, set[int]] = {}
        for track, label in self._present.items():
            self._add(track, label)
