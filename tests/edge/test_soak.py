"""The soak's plan, damages and checks, and a small version of ``python -m tests.soak``."""

import dataclasses
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest

from tests.soak.damage import How, damage
from tests.soak.device import unit_environ
from tests.soak.disk import can_be_mounted
from tests.soak.kinds import DAMAGING, KINDS
from tests.soak.ledger import Evidence, OutboxContent, balance
from tests.soak.operator import Keeper, Operator
from tests.soak.plan import storm
from tests.soak.report import Total, growth_violations
from tests.soak.rounds import ROUND_FAULTS, Journal, rounds
from tests.soak.run import soak
from tests.soak.watch import Sample, growth, written


def test_the_process_has_the_environment_of_the_unit() -> None:
    assert unit_environ() == {"PYTHONFAULTHANDLER": "1", "MALLOC_ARENA_MAX": "1"}


def test_a_storm_follows_from_its_seed_and_has_every_kind() -> None:
    faults = storm("7", 1000)
    assert faults == storm("7", 1000)
    assert faults != storm("8", 1000)
    assert [fault.number for fault in faults] == list(range(1000))
    assert {fault.kind for fault in storm("7", 10_000)} == set(KINDS)
    assert {fault.kind for fault in storm("7", 2 * len(KINDS))} == set(KINDS)
    assert all(KINDS[fault.kind].hold[0] <= fault.hold <= KINDS[fault.kind].hold[1] for fault in faults)


def test_the_first_part_of_a_storm_has_only_what_a_process_lives_through() -> None:
    faults = storm("7", 1000)
    calm = Counter(fault.kind for fault in faults if fault.part == 0)
    assert calm.total() == 400
    assert all(KINDS[kind].calm for kind in calm)
    assert storm("1", 5, ["kill"]) == tuple(fault for fault in storm("1", 5, ["kill"]) if fault.part == 1)


def ids(run: str, first: int, last: int) -> list[str]:
    return [f"{run}-{number}" for number in range(first, last + 1)]


def content(*waiting: str, acknowledged: int, dropped: int = 0, lost: int = 0) -> OutboxContent:
    return OutboxContent(frozenset(waiting), dropped, lost, acknowledged=acknowledged)


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


def test_an_event_that_a_damaged_file_has_lost_has_to_be_counted() -> None:
    gap = [event for event in EVENTS if event != "a-3"]
    waited = content("a-3", acknowledged=5)
    assert balance(Evidence(EVENTS, gap, [waited, content(acknowledged=9, lost=1)])).violations == []
    assert "0 as lost" in balance(Evidence(EVENTS, gap, [waited, content(acknowledged=9)])).violations[0]
    assert "1 as lost" in balance(Evidence(EVENTS, EVENTS, [content(acknowledged=10, lost=1)])).violations[0]


def test_what_a_damaged_file_brings_back_has_left_it_before() -> None:
    back = content("a-5", acknowledged=10)
    assert (
        balance(Evidence(EVENTS, EVENTS, [content(acknowledged=10), back, content(acknowledged=10)])).violations == []
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


def test_a_changed_order_and_an_unknown_acknowledgement_are_found() -> None:
    assert "order: a-1" in violations(["a-2", "a-1"], ["a-2", "a-1"])[0]
    assert "order: b-2" in violations(["b-1", "a-1", "b-2"], ["b-1", "a-1", "b-2"])[0]
    assert "1 events were acknowledged and never published" in violations(acknowledged=[*EVENTS, "c-1"])[0]


def samples(slope: float, files: int = 0) -> list[Sample]:
    """Two processes; the second lives for 300 faults in 300 seconds and grows."""
    short = [Sample(float(at), at, 1, 150.0 + at, 90, 1000 * at) for at in range(5)]
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


def test_more_memory_than_is_allowed_is_found_unless_a_fault_fills_it() -> None:
    full = [*samples(0.0), Sample(400.0, 300, 2, 170.0, 12, 0, "kill")]
    assert "170 MB were resident during kill" in growth_violations(growth(full))[-1]
    assert growth(samples(0.0)).rss_mb_most == 154.0
    full[-1] = dataclasses.replace(full[-1], rss_mb=700.0, during="camera-endless")
    assert "700" not in " ".join(growth_violations(growth(full)))


def test_what_all_processes_wrote_is_added_up() -> None:
    assert written(samples(0.0)) == 4000 + 150_000


@pytest.mark.parametrize("variant", range(20))
def test_damage_changes_a_file(tmp_path: Path, variant: int) -> None:
    file = tmp_path / "file"
    content = bytes(range(1, 200))
    hows: tuple[How, ...] = ("flips", "lost")
    for how in hows:
        file.write_bytes(content)
        damage(file, how, variant)
        assert not file.exists() or file.read_bytes() != content
        first = file.exists() and file.read_bytes()
        file.write_bytes(content)
        damage(file, how, variant)
        assert (file.exists() and file.read_bytes()) == first, "it follows from the variant"


class Commands:
    """An operator that notes what it sends."""

    wants_open = True
    pauses = 0

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes]] = []

    def send(self, command: str, payload: bytes) -> None:
        self.sent.append((command, payload))


@pytest.mark.parametrize("reason", ["the process had stored as many openings as it may", ""])
def test_a_camera_that_had_to_stay_closed_is_opened_and_one_that_had_not_is_found(reason: str) -> None:
    closed: list[bool | None] = [False]
    operator, opened = Commands(), []
    keeper = Keeper(cast(Operator, operator), lambda: closed[0], lambda: reason, lambda: opened.append(True))
    assert not keeper.look()
    closed[0] = True
    operator.wants_open = False
    assert not keeper.look(), "the operator has closed it"
    operator.wants_open = True
    assert keeper.look()
    assert keeper.look(), "the command did not arrive"
    closed[0] = None
    assert not keeper.look(), "a process that is gone is no open camera"
    assert opened == []
    closed[0] = False
    assert not keeper.look()
    assert operator.sent == [("pause", b'{"on":false,"id":"keeper"}')] * 2
    assert (len(keeper.reopened), len(keeper.violations), opened) == (bool(reason), not reason, [True])


def test_a_page_that_comes_after_a_short_pause_is_no_closed_camera() -> None:
    operator = Commands()

    def paused_meanwhile() -> bool:
        operator.pauses += 1
        return True

    keeper = Keeper(cast(Operator, operator), paused_meanwhile, lambda: "", lambda: None)
    assert not keeper.look()
    assert (keeper.violations, operator.sent) == ([], [])


def test_a_long_storm_has_rounds_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    first, second, third = wanted = list(rounds(1, 2 * ROUND_FAULTS + 7, list(KINDS)))
    assert [one.faults for one in wanted] == [ROUND_FAULTS, ROUND_FAULTS, 7]
    assert first.plan() != second.plan()
    assert {fault.kind for one in rounds(1, 10_000, list(KINDS)) for fault in one.plan()} == set(KINDS)
    assert len({one.lane for one in KINDS.values()}) == 5
    assert set(KINDS) > DAMAGING
    journal = Journal(tmp_path / "soak.jsonl")
    assert journal.of(wanted) == []
    journal.add({"round": second.identity(), "violations": []})
    journal.add({"round": [9, *third.identity()[1:]], "violations": []})
    assert [line["round"] for line in journal.of(wanted)] == [second.identity()]


@pytest.mark.slow
def test_a_small_storm_is_weathered_and_a_lost_acknowledgement_would_have_been_found(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if not shutil.which("mosquitto") or not shutil.which("gcc"):
        pytest.skip("mosquitto or gcc is not installed (apt install mosquitto gcc libc6-dev)")
    kinds = ["broker-kill", "clock-back", "bad-command", "tpu-vanishes", "kill"]
    kinds += ["disk-full"] if can_be_mounted() else []
    faults = storm("8", 8, kinds)
    assert {fault.kind for fault in faults} == set(kinds)
    lines: list[str] = []
    report = soak(faults, tmp_path, lines.append)
    print(Total([report.as_line()]).as_text())
    assert report.violations == []
    assert [outcome.number for outcome in report.outcomes] == list(range(8))
    assert report.balance.committed > 10
    assert report.balance.waiting == 0
    first, *others = report.evidence.acknowledged
    lost = next(event for event in others if event != first)
    tampered = [first if event == lost else event for event in report.evidence.acknowledged]
    [violation] = balance(dataclasses.replace(report.evidence, acknowledged=tampered)).violations
    assert f"1 events were neither acknowledged nor wait ({lost})" in violation
