"""The result of a soak as text and JSON, and the limits of growth."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Final

from tests.soak.ledger import Balance, Evidence
from tests.soak.plan import KINDS
from tests.soak.watch import Growth

MOST_MB_PER_1000_FAULTS: Final = 10.0
MOST_MORE_FILES: Final = 10
_ENOUGH_FAULTS: Final = 200  # in the life of one process, half of them for a slope

_EVENTS_AN_HOUR: Final = 200
"""Of a kiosk, as docs/mqtt.md assumes."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of one fault: seconds from the end of its cause to recovery; None and a ``problem`` without one."""

    number: int
    kind: str
    seconds: float | None
    problem: str = ""


@dataclass(frozen=True)
class Report:
    """The whole result; ``violations`` is empty when all promises were kept.

    ``evidence`` is what ``balance`` was made from.
    """

    seed: int
    minutes: float
    outcomes: Sequence[Outcome]
    balance: Balance
    starts: int
    growth: Growth
    bytes_written: int
    violations: list[str]
    evidence: Evidence

    @property
    def hours_of_a_kiosk(self) -> float:
        """The hours in which a kiosk has as many events."""
        return self.balance.committed / _EVENTS_AN_HOUR

    def as_json(self) -> str:
        """The result as one JSON object."""
        kinds = {kind: _figures(self._of(kind)) for kind in KINDS if self._of(kind)}
        result: dict[str, Any] = {
            "seed": self.seed,
            "minutes": self.minutes,
            "faults": len(self.outcomes),
            "recovered": sum(outcome.seconds is not None for outcome in self.outcomes),
            "kinds": kinds,
            "events": asdict(self.balance),
            "starts": self.starts,
            "growth": asdict(self.growth),
            "bytes_written": self.bytes_written,
            "hours_of_a_kiosk": round(self.hours_of_a_kiosk, 1),
            "violations": self.violations,
        }
        return json.dumps(result, indent=2)

    def as_text(self) -> str:
        """Tables for a terminal."""
        lines = [f"{'fault':16}{'injected':>9}{'recovered':>10}{'median s':>9}{'longest s':>10}"]
        for kind in KINDS:
            if outcomes := self._of(kind):
                figures = _figures(outcomes)
                lines.append(
                    f"{kind:16}{figures['injected']:>9}{figures['recovered']:>10}{figures['median_s']:>9}{figures['longest_s']:>10}"
                )
        recovered = sum(outcome.seconds is not None for outcome in self.outcomes)
        lines.append(f"{'all':16}{len(self.outcomes):>9}{recovered:>10}")
        events, grown = self.balance, self.growth
        hours = self.hours_of_a_kiosk
        per_event = self.bytes_written / max(1, events.committed)
        acknowledged = events.committed - events.waiting - events.dropped
        lines += [
            "",
            f"events    {events.committed} committed = {acknowledged} acknowledged "
            f"+ {events.dropped} dropped and counted + {events.waiting} waiting; {events.sent_again} sent again",
            f"time      {self.minutes:.1f} minutes, {self.starts} starts; as many events as a kiosk has in {hours:.0f} "
            f"hours ({_EVENTS_AN_HOUR} an hour)",
            f"memory    {grown.rss_mb_first:.0f} MB, {grown.rss_mb_last:.0f} MB after {grown.faults} faults in "
            f"{grown.seconds / 60:.1f} minutes of the longest-lived process; "
            f"in its second half {_slope(grown.rss_mb_per_1000_faults)} MB in 1,000 faults, "
            f"{_slope(grown.rss_mb_per_hour)} MB in an hour",
            f"          at ten moments: {', '.join(f'{rss:.1f}' for rss in grown.rss_mb_course)} MB",
            f"files     {grown.files_first} open, {grown.files_last} at its end, {grown.files_most} at most",
            f"disk      {self.bytes_written / 1e6:.1f} MB written, {per_event / 1e3:.1f} KB an event: "
            f"{per_event * _EVENTS_AN_HOUR / 1e6:.1f} MB in an hour of a kiosk",
            "",
            *(f"VIOLATED  {violation}" for violation in self.violations),
            "not all promises were kept" if self.violations else "all promises were kept",
        ]
        return "\n".join(lines)

    def _of(self, kind: str) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.kind == kind]


def growth_violations(growth: Growth) -> list[str]:
    """A sentence for each figure that grew beyond its limit."""
    found = []
    slope = growth.rss_mb_per_1000_faults
    if growth.faults >= _ENOUGH_FAULTS and slope is not None and slope > MOST_MB_PER_1000_FAULTS:
        found.append(f"memory grows by {slope} MB in 1,000 faults; {MOST_MB_PER_1000_FAULTS:.0f} are allowed")
    if growth.files_last > growth.files_first + MOST_MORE_FILES:
        found.append(f"open files grew from {growth.files_first} to {growth.files_last}")
    return found


def _figures(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    seconds = [outcome.seconds for outcome in outcomes if outcome.seconds is not None]
    return {
        "injected": len(outcomes),
        "recovered": len(seconds),
        "median_s": round(median(seconds), 1) if seconds else None,
        "longest_s": round(max(seconds), 1) if seconds else None,
    }


def _slope(value: float | None) -> str:
    return "?" if value is None else f"{value:+.1f}"
