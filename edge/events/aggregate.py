"""Counts people per interval instead of reporting single ones, under ``privacy.aggregate_only``. Pure.

A count of fewer people than ``minimum_people`` is never given, neither of all nor of those who showed one expression.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from edge.events.episodes import Change
from edge.settings import PrivacySettings


@dataclass(frozen=True, slots=True)
class IntervalCounts:
    """Counts of the ``seconds`` before ``end`` (source time, seconds); fields as in edge.mqtt.messages.Aggregate."""

    end: float
    seconds: float
    people: int
    expressions: dict[str, int]
    presets: dict[str, int]


class AggregateCounter:
    """Counts tracks per interval, from the start of the source on; a track counts in each interval it is there."""

    def __init__(self, privacy: PrivacySettings) -> None:
        self._seconds = privacy.interval_seconds
        self._minimum = privacy.minimum_people
        self._begin = 0.0
        self._present: dict[int, str | None] = {}
        self._start_over()

    def update(self, changes: Iterable[Change], now: float) -> Iterator[IntervalCounts]:
        """Take the changes until ``now``; yields the interval that has ended, unless too few people were there."""
        if now >= self._begin + self._seconds:
            yield from self._close(self._begin + self._seconds)
            self._begin = now - now % self._seconds
        for change in changes:
            self._count(change)

    def end(self, now: float) -> Iterator[IntervalCounts]:
        """The source has ended, and with it this interval, which may be shorter; yields it like :meth:`update`."""
        yield from self._close(now)

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

    def _close(self, end: float) -> Iterator[IntervalCounts]:
        if len(self._people) >= self._minimum:
            counts = (self._reportable(self._expressions), self._reportable(self._presets))
            yield IntervalCounts(end, round(end - self._begin, 3), len(self._people), *counts)
        self._start_over()

    def _reportable(self, groups: dict[str, set[int]]) -> dict[str, int]:
        return {name: len(tracks) for name, tracks in sorted(groups.items()) if len(tracks) >= self._minimum}

    def _start_over(self) -> None:
        self._people: set[int] = set()
        self._expressions: dict[str, set[int]] = {}
        self._presets: dict[str, set[int]] = {}
        for track, label in self._present.items():
            self._add(track, label)
