"""The soak's plan and checks, and a small version of ``python -m tests.soak``."""

import dataclasses
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.soak.device import unit_environ
from tests.soak.disk import can_be_mounted
from tests.soak.ledger import Evidence, OutboxContent, balance
from tests.soak.plan import KINDS, storm
from tests.soak.report import growth_violations
from tests.soak.run import soak
from tests.soak.watch import Sample, growth, written


def test_the_process_has_the_environment_of_the_unit() -> None:
    assert unit_environ() == {"PYTHONFAULTHANDLER": "1", "MALLOC_ARENA_MAX": "1"}


def test_a_storm_follows_from_its_seed_and_has_every_kind() -> None:
    faults = storm(7, 1000)
    assert faults == storm(7, 1000)
    assert faults != storm(8, 1000)
    assert [fault.number for fault in faults] == list(range(1000))
    assert {fault.kind for fault in faults} == set(KINDS)
    assert {fault.kind for fault in storm(7, len(KINDS) + 4)} == set(KINDS)
    assert all(KINDS[fault.kind].hold[0] <= fault.hold <= KINDS[fault.kind].hold[1] for fault in faults)


def test_the_first_part_of_a_storm_has_only_what_a_process_lives_through() -> None:
    faults = storm(7, 1000)
    calm = Counter(fault.kind for fault in faults if fault.part == 0)
    assert calm.total() == 400
    assert all(KINDS[kind].calm for kind in calm)
    assert storm(1, 5, ["kill"]) == tuple(fault for fault in storm(1, 5, ["kill"]) if fault.part == 1)


def ids(run: str, first: int, last: int) -> list[str]:
    return [f"{run}-{number}" for number in range(first, last + 1)]


def content(*waiting: str, acknowledged: int, dropped: int = 0, damaged: int = 0) -> OutboxContent:
    return OutboxContent(frozenset(waiting), dropped, damaged, acknowledged)


EVENTS = [*ids("b", 1, 4), *ids("a", 1, 6)]


def violations(
    published: Sequence[str] = EVENTS, acknowledged: Sequence[str] = EVENTS, files: Sequence[OutboxContent] = ()
) -> list[str]:
    return balance(Evidence(published, acknowledged, [*files, content(acknowledged=len(acknowledged))])).violations


def test_what_is_acknowledged_in_order_is_as_promised() -> None:
    assert violations() == []
    assert violations([*ids("b", 1, 4), *ids("b", 3, 4), *ids("a", 1, 6)]) == [], "sent again"


def test_an_event_that_is_neither_acknowledged_nor_counted_is_found() -> None:
    assert (
        "1 events were neither acknowledged nor wait (a-3), but 0 were"
        in violations(acknowledged=[event for event in EVENTS if event != "a-3"])[0]
    )
    gap = [event for event in EVENTS if event != "a-3"]
    assert "(a-3)" in violations(gap, gap)[0], "its number is missing"
    died_with = content("a-7", "a-8", acknowledged=len(EVENTS))
    assert "2 events were neither" in violations(files=[died_with])[0], "it was on the disk"


def test_a_drop_has_to_be_counted_and_a_count_has_to_be_a_drop() -> None:
    gap = [event for event in EVENTS if event != "a-1"]
    last = content(acknowledged=len(gap), dropped=1)
    assert balance(Evidence(gap, gap, [last])).violations == []
    assert balance(Evidence(gap, gap, [last])).dropped == 1
    assert (
        "0 events were neither acknowledged nor wait (none), but 1 were"
        in balance(Evidence(EVENTS, EVENTS, [last])).violations[0]
    )


def test_an_acknowledgement_that_a_kill_has_undone_is_no_way_out_of_the_outbox() -> None:
    again = content("a-6", acknowledged=len(EVENTS))  # acknowledged, and still there after a kill
    assert "(a-6)" in violations(files=[again])[0]
    twice = [*EVENTS, "a-6"]
    assert violations(twice, twice, [again]) == []
    dropped = content(acknowledged=len(EVENTS), dropped=1)
    assert balance(Evidence(EVENTS, EVENTS, [again, dropped])).violations == []


def test_what_waits_at_the_end_is_not_lost() -> None:
    settled = balance(Evidence(EVENTS, EVENTS[:-1], [content("a-6", acknowledged=9)]))
    assert (settled.violations, settled.committed, settled.waiting) == ([], 10, 1)


def test_a_changed_order_a_damaged_file_and_an_unknown_acknowledgement_are_found() -> None:
    assert "order: a-1" in violations(["a-2", "a-1"], ["a-2", "a-1"])[0]
    assert "order: b-2" in violations(["b-1", "a-1", "b-2"], ["b-1", "a-1", "b-2"])[0]
    assert balance(Evidence(EVENTS, EVENTS, [content(acknowledged=10, damaged=1)])).violations == [
        "the outbox's file was damaged 1 times"
    ]
    assert "1 events were acknowledged and never published" in violations(acknowledged=[*EVENTS, "c-1"])[0]


def samples(slope: float, files: int = 0) -> list[Sample]:
    """Two processes; the second lives for 300 faults in 300 seconds and grows."""
    short = [Sample(float(at), at, 1, 500.0 + at, 90, 1000 * at) for at in range(5)]
    long = [Sample(10.0 + at, at, 2, 80.0 + slope * at / 1000, 12 + files * at // 300, 500 * at) for at in range(301)]
    return [*short, *long]


def test_memory_and_files_that_grow_are_found() -> None:
    assert growth(samples(4.0)).rss_mb_per_1000_faults == pytest.approx(4.0)
    assert growth(samples(4.0)).rss_mb_per_hour == pytest.approx(4.0 * 3.6)
    assert growth_violations(growth(samples(4.0))) == []
    assert "memory grows by 40.0 MB in 1,000 faults" in growth_violations(growth(samples(40.0)))[0]
    assert "open files grew from 14 to 42" in growth_violations(growth(samples(4.0, files=30)))[0]


def test_what_a_process_loads_at_its_start_is_no_growth() -> None:
    starting = [Sample(float(at), at, 1, 8.0 + 9 * at, 3 + 2 * at, 0) for at in range(10)]
    assert growth_violations(growth(starting)) == []


def test_memory_that_is_filled_once_is_no_growth() -> None:
    filled = [Sample(at, at, 1, 80.0 + min(at, 100) / 20, 12, 0) for at in range(400)]
    assert growth(filled).rss_mb_per_1000_faults == pytest.approx(0, abs=0.01)
    assert growth(filled).rss_mb_course[:3] == [81.0, 83.1, 85.0]


def test_what_all_processes_wrote_is_added_up() -> None:
    assert written(samples(0.0)) == 4000 + 150_000


@pytest.mark.slow
def test_a_small_storm_is_weathered_and_a_lost_acknowledgement_would_have_been_found(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if not shutil.which("mosquitto") or not shutil.which("gcc"):
        pytest.skip("mosquitto or gcc is not installed (apt install mosquitto gcc libc6-dev)")
    kinds = ["broker-kill", "clock-back", "bad-command", "tpu-vanishes", "kill"]
    kinds += ["disk-full"] if can_be_mounted() else []
    faults = storm(8, 8, kinds)
    assert {fault.kind for fault in faults} == set(kinds)
    lines: list[str] = []
    report = soak(faults, tmp_path, 8, lines.append)
    print(report.as_text())
    assert report.violations == []
    assert [outcome.number for outcome in report.outcomes] == list(range(8))
    assert report.balance.committed > 10
    assert report.balance.waiting == 0
    first, *others = report.evidence.acknowledged
    lost = next(event for event in others if event != first)
    tampered = [first if event == lost else event for event in report.evidence.acknowledged]
    [violation] = balance(dataclasses.replace(report.evidence, acknowledged=tampered)).violations
    assert f"1 events were neither acknowledged nor wait ({lost})" in violation
