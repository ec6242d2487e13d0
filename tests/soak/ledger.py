"""Checks the outbox's contract: a committed event is acknowledged, or dropped and counted. Pure.

It relies on no report of the device itself. Which events were committed follows from their ids, whose numbers begin at
1 in each run and have no gaps. An event was committed when it was published, or is in the outbox's file after a process
has ended; so were all events before it. How an event left the outbox follows from the proxy's record: it was
acknowledged after it was last in the file. Otherwise it must have been dropped, and be in the outbox's own count.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class OutboxContent:
    """What the outbox's file held when a process had ended.

    ``acknowledged`` is how many acknowledgements the proxy had recorded by then.
    """

    ids: frozenset[str]
    dropped: int
    damaged: int
    acknowledged: int


@dataclass(frozen=True)
class Evidence:
    """Ids in the proxy's order, repeats too, and the content of the outbox's file after each process."""

    published: Sequence[str]
    acknowledged: Sequence[str]
    outboxes: Sequence[OutboxContent]


@dataclass(frozen=True)
class Balance:
    """``committed`` events are ``acknowledged``, ``waiting`` at the end, or ``dropped``, which is the outbox's count.

    ``sent_again`` counts repeats. ``violations`` has a sentence for each part of the contract that was broken.
    """

    committed: int
    acknowledged: int
    waiting: int
    dropped: int
    sent_again: int
    violations: list[str] = field(default_factory=list)


def balance(evidence: Evidence) -> Balance:
    """Check a whole soak."""
    published, acknowledged, outboxes = evidence.published, evidence.acknowledged, evidence.outboxes
    last = outboxes[-1]
    committed = _committed([*published, *(one for file in outboxes for one in file.ids)])
    since = {event: file.acknowledged for file in outboxes for event in file.ids}  # the last file counts
    left = {event for place, event in enumerate(acknowledged) if place >= since.get(event, 0)}
    unaccounted = committed - left - last.ids
    first = list(dict.fromkeys(published))
    violations = []
    if len(unaccounted) != last.dropped:
        some = ", ".join(sorted(unaccounted)[:5]) or "none"
        violations.append(
            f"{len(unaccounted)} events were neither acknowledged nor wait ({some}), but {last.dropped} were counted "
            "as dropped"
        )
    if last.damaged:
        violations.append(f"the outbox's file was damaged {last.damaged} times")
    if unknown := set(acknowledged) - set(published):
        violations.append(f"{len(unknown)} events were acknowledged and never published")
    if late := _out_of_order(first):
        violations.append(f"first occurrences do not keep their order: {', '.join(late[:5])}")
    repeats = len(published) - len(first)
    return Balance(len(committed), len(set(acknowledged) & committed), len(last.ids), last.dropped, repeats, violations)


def _committed(ids: Iterable[str]) -> set[str]:
    """All events up to the last one of each run."""
    last: dict[str, int] = defaultdict(int)
    for run, number in map(_split, ids):
        last[run] = max(last[run], number)
    return {f"{run}-{number}" for run, most in last.items() for number in range(1, most + 1)}


def _out_of_order(first: Sequence[str]) -> list[str]:
    """Events that came after a later one of their run, or after one of a later run."""
    runs: dict[str, int] = {}
    late, newest = [], (0, 0)
    for event in first:
        run, number = _split(event)
        place = (runs.setdefault(run, len(runs)), number)
        if place < newest:
            late.append(event)
        newest = max(newest, place)
    return late


def _split(event: str) -> tuple[str, int]:
    run, _, number = event.rpartition("-")
    return run, int(number)
