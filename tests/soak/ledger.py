"""Whether the outbox has kept its word: what was committed is acknowledged, or was dropped and counted. Pure.

The word of nobody inside the device is taken for it. What was committed follows from the ids, whose numbers begin at
1 in each run and have no gaps: an event that was published, or that is in the outbox's file when a process has ended,
was committed, and so were those before it. How an event left follows from what the proxy before the broker saw: it was
acknowledged after it was last found in the file, or it must have been dropped, and the outbox's own count says how
many were.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Found:
    """What the outbox's file held when a process had ended.

    ``acknowledged`` is how many acknowledgements the proxy had seen by then.
    """

    ids: frozenset[str]
    dropped: int
    damaged: int
    acknowledged: int


@dataclass(frozen=True)
class Evidence:
    """Ids in the order in which the proxy saw them, repeats too, and the outbox's file after each process."""

    published: Sequence[str]
    acknowledged: Sequence[str]
    found: Sequence[Found]


@dataclass(frozen=True)
class Balance:
    """``committed`` events are ``acknowledged``, ``waiting`` at the end, or ``dropped``, which is the outbox's count.

    ``sent_again`` counts repeats. ``wrong`` has a sentence for each promise that was not kept.
    """

    committed: int
    acknowledged: int
    waiting: int
    dropped: int
    sent_again: int
    wrong: list[str] = field(default_factory=list)


def balance(evidence: Evidence) -> Balance:
    """Judge a whole soak."""
    published, acknowledged, found = evidence.published, evidence.acknowledged, evidence.found
    last = found[-1]
    committed = _committed([*published, *(one for file in found for one in file.ids)])
    since = {event: file.acknowledged for file in found for event in file.ids}  # the last file counts
    left = {event for place, event in enumerate(acknowledged) if place >= since.get(event, 0)}
    unaccounted = committed - left - last.ids
    first = list(dict.fromkeys(published))
    wrong = []
    if len(unaccounted) != last.dropped:
        some = ", ".join(sorted(unaccounted)[:5]) or "none"
        wrong.append(
            f"{len(unaccounted)} events were neither acknowledged nor wait ({some}), but {last.dropped} were counted "
            "as dropped"
        )
    if last.damaged:
        wrong.append(f"the outbox's file was damaged {last.damaged} times")
    if unknown := set(acknowledged) - set(published):
        wrong.append(f"{len(unknown)} events were acknowledged and never published")
    if late := _out_of_order(first):
        wrong.append(f"first occurrences do not keep their order: {', '.join(late[:5])}")
    repeats = len(published) - len(first)
    return Balance(len(committed), len(set(acknowledged) & committed), len(last.ids), last.dropped, repeats, wrong)


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
