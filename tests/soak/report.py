"""The result of a soak: of one round as data, of all rounds as text, JSON and Markdown; and the limits of growth."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Final

from tests.soak.kinds import KINDS
from tests.soak.ledger import Balance, Evidence
from tests.soak.watch import Growth

MOST_MB_PER_1000_FAULTS: Final = 10.0
MOST_MORE_FILES: Final = 10
MOST_MB: Final = 160.0
"""Resident memory of ``fer-edge run`` at any time; but a camera's picture without end is given up later."""

_ENOUGH_FAULTS: Final = 200  # in the life of one process, half of them for a slope
_FILLING: Final = "camera-endless"


@dataclass(frozen=True)
class Outcome:
    """The outcome of one fault: seconds from the end of its cause to recovery; None and a ``problem`` without one."""

    number: int
    kind: str
    seconds: float | None
    problem: str = ""


@dataclass(frozen=True)
class Report:
    """The result of one round; ``violations`` is empty when all promises were kept.

    ``evidence`` is what ``balance`` was made from.
    """

    minutes: float
    outcomes: Sequence[Outcome]
    balance: Balance
    starts: int
    reopened: int
    growth: Growth
    bytes_written: int
    violations: list[str]
    evidence: Evidence

    def as_line(self) -> dict[str, Any]:
        """What is kept of the round."""
        events = asdict(self.balance)
        del events["violations"]
        return {
            "minutes": self.minutes,
            "outcomes": [[outcome.kind, outcome.seconds] for outcome in self.outcomes],
            "events": events,
            "starts": self.starts,
            "reopened": self.reopened,
            "growth": asdict(self.growth),
            "bytes_written": self.bytes_written,
            "violations": self.violations,
        }


class Total:
    """All rounds together, from what is kept of them."""

    def __init__(self, lines: Sequence[dict[str, Any]]) -> None:
        self._lines = lines
        self.violations = [violation for line in lines for violation in line["violations"]]
        self._outcomes = [(kind, seconds) for line in lines for kind, seconds in line["outcomes"]]

    def as_json(self) -> str:
        """The result as one JSON object."""
        result: dict[str, Any] = {
            "rounds": len(self._lines),
            "minutes": round(self._sum("minutes"), 1),
            "faults": len(self._outcomes),
            "recovered": sum(seconds is not None for _, seconds in self._outcomes),
            "kinds": self._kinds(),
            "events": self._events(),
            **{name: self._sum(name) for name in ("starts", "reopened", "bytes_written")},
            "growth": [line["growth"] for line in self._lines],
            "violations": self.violations,
        }
        return json.dumps(result, indent=2)

    def as_text(self) -> str:
        """Tables for a terminal."""
        lines = [f"{'fault':20}{'injected':>9}{'recovered':>10}{'median s':>9}{'longest s':>10}"]
        for kind, of in self._kinds().items():
            lines.append(
                f"{kind:20}{of['injected']:>9}{of['recovered']:>10}{of['median_s']!s:>9}{of['longest_s']!s:>10}"
            )
        return "\n".join(
            [
                *lines,
                "",
                *(f"{name:36}{value}" for name, value in self._figures()),
                "",
                *(f"VIOLATED  {violation}" for violation in self.violations),
                "not all promises were kept" if self.violations else "all promises were kept",
            ]
        )

    def as_markdown(self) -> str:
        """Tables for docs/reliability.md."""
        rows = [
            f"| `{kind}`: {KINDS[kind].about} | {of['injected']:,} | {of['recovered']:,} | {of['median_s']} s | "
            f"{of['longest_s']} s |"
            for kind, of in self._kinds().items()
        ]
        recovered = sum(seconds is not None for _, seconds in self._outcomes)
        return "\n".join(
            [
                "| fault | injected | recovered | median | longest |",
                "|---|---|---|---|---|",
                *rows,
                f"| **all {len(rows)} kinds** | **{len(self._outcomes):,}** | **{recovered:,}** | | |",
                "",
                "| | |",
                "|---|---|",
                *(f"| {name} | {value} |" for name, value in self._figures()),
            ]
        )

    def _figures(self) -> list[tuple[str, str]]:
        events, growths = self._events(), [line["growth"] for line in self._lines]
        slopes = [of["rss_mb_per_1000_faults"] for of in growths if of["rss_mb_per_1000_faults"] is not None]
        slope = f"; {median(slopes):+.1f} MB in 1,000 faults (median)" if slopes else ""
        return [
            ("faults", f"{len(self._outcomes):,} in {len(self._lines)} rounds"),
            (
                "events",
                f"{events['committed']:,} committed = {events['acknowledged']:,} acknowledged + {events['dropped']:,} "
                f"dropped and counted + {events['lost']:,} lost and counted + {events['waiting']} waiting",
            ),
            ("again", f"{events['sent_again']:,} sent again, with the same id"),
            ("damaged", f"{events['damaged']} files of the outbox set aside"),
            ("camera", f"{self._sum('reopened')} times opened again by the operator, after its state was damaged"),
            ("starts", f"{self._sum('starts'):,}"),
            ("time", f"{self._sum('minutes'):.0f} minutes of rounds, some of them at the same time"),
            (
                "memory",
                f"{max(of['rss_mb_most'] for of in growths):.0f} MB at most{slope}",
            ),
            (
                "memory of the longest-lived process",
                f"{median(of['rss_mb_first'] for of in growths):.1f} MB at first, "
                f"{median(of['rss_mb_last'] for of in growths):.1f} MB at its end (medians of the rounds)",
            ),
            ("files", f"{max(of['files_most'] for of in growths)} open at most"),
            ("disk", f"{self._sum('bytes_written') / 1e6:.1f} MB written"),
        ]

    def _kinds(self) -> dict[str, dict[str, Any]]:
        found = {kind: [seconds for one, seconds in self._outcomes if one == kind] for kind in KINDS}
        return {kind: _of_kind(outcomes) for kind, outcomes in found.items() if outcomes}

    def _events(self) -> dict[str, int]:
        names = self._lines[0]["events"] if self._lines else ()
        return {name: sum(line["events"][name] for line in self._lines) for name in names}

    def _sum(self, name: str) -> Any:
        return sum(line[name] for line in self._lines)


def growth_violations(growth: Growth) -> list[str]:
    """A sentence for each figure that grew beyond its limit."""
    found = []
    slope = growth.rss_mb_per_1000_faults
    if growth.faults >= _ENOUGH_FAULTS and slope is not None and slope > MOST_MB_PER_1000_FAULTS:
        found.append(f"memory grows by {slope} MB in 1,000 faults; {MOST_MB_PER_1000_FAULTS:.0f} are allowed")
    if growth.files_last > growth.files_first + MOST_MORE_FILES:
        found.append(f"open files grew from {growth.files_first} to {growth.files_last}")
    if growth.rss_mb_most > MOST_MB and growth.most_during != _FILLING:
        found.append(f"{growth.rss_mb_most:.0f} MB were resident during {growth.most_during or 'no fault'}")
    return found


def _of_kind(outcomes: Sequence[float | None]) -> dict[str, Any]:
    seconds = [one for one in outcomes if one is not None]
    return {
        "injected": len(outcomes),
        "recovered": len(seconds),
        "median_s": round(median(seconds), 1) if seconds else None,
        "longest_s": round(max(seconds), 1) if seconds else None,
    }
