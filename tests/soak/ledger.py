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

    ``acknowledged`` is how many acknowledgements the proxy had recorded by then. ``dropped``, ``lost`` and ``damaged``
    are the outbox's own counts. ``is_kept_twice`` says whether its inventory is whole in both places.
    """

    ids: frozenset[str]
    dropped: int = 0
    lost: int = 0
    damaged: int = 0
    acknowledged: int = 0
    is_kept_twice: bool = False


@dataclass(frozen=True)
class Evidence:
    """Ids in the proxy's order, repeats too, and the content of the outbox's file after each process."""

    published: Sequence[str]
    acknowledged: Sequence[str]
    outboxes: Sequence[OutboxContent]


@dataclass(frozen=True)
class Balance:
    """``committed`` events are ``acknowledged``, ``waiting`` at the end, ``dropped``, or ``lost`` by a damaged file.

    The last two are the outbox's counts, and so is ``damaged``, the files that it has set aside. ``sent_again`` counts
    repeats. ``violations`` has a sentence for each part of the contract that was broken.
    """

    committed: int
    acknowledged: int
    waiting: int
    dropped: int
    lost: int
    damaged: int
    sent_again: int
    violations: list[str] = field(default_factory=list)


def balance(evidence: Evidence) -> Balance:
    """Check a whole soak."""
    published, acknowledged, outboxes = evidence.published, evidence.acknowledged, evidence.outboxes
    last = outboxes[-1]
    committed = _committed([*published, *(one for file in outboxes for one in file.ids)])
    left = _left(acknowledged, outboxes)
    unaccounted = committed - left - last.ids
    first = list(dict.fromkeys(published))
    violations = []
    if len(unaccounted) != last.dropped + last.lost:
        some = ", ".join(sorted(unaccounted)[:5]) or "none"
        violations.append(
            f"{len(unaccounted)} events were neither acknowledged nor wait ({some}), but {last.dropped} were counted "
            f"as dropped and {last.lost} as lost"
        )
    if unknown := set(acknowledged) - set(published):
        violations.append(f"{len(unknown)} events were acknowledged and never published")
    if late := _out_of_order(first):
        violations.append(f"first occurrences do not keep their order: {', '.join(late[:5])}")
    return Balance(
        len(committed),
        len(left & committed),
        len(last.ids),
        last.dropped,
        last.lost,
        last.damaged,
        len(published) - len(first),
        violations,
    )


def _left(acknowledged: Sequence[str], outboxes: Sequence[OutboxContent]) -> set[str]:
    """The events that were acknowledged, and were not in the file after that.

    A damaged file may return to an earlier state: what has left it once and is in it again has left it for good.
    """
    left: set[str] = set()
    answered: set[str] = set()  # since it was last in the file
    begin = 0
    for file in outboxes:
        answered.update(acknowledged[begin : file.acknowledged])
        begin = file.acknowledged
        answered -= file.ids
        left |= answered
    return left | answered | set(acknowledged[begin:])


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
