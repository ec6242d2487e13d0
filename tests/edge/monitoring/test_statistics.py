import os
from dataclasses import replace
from pathlib import Path

import pytest

from edge.events.episodes import Change
from edge.monitoring.statistics import KernelFiles, StatisticsCollector, StatisticsInput
from edge.mqtt.figures import DeliveryFigures, OutboxFigures
from edge.system import hardware
from tests.conftest import no_more_files

FIGURES = OutboxFigures(waiting=3, most=100, dropped=1, damaged=0, lost=0, failed=0, durable=True)
DELIVERY = DeliveryFigures(FIGURES, refused=2, fault=None)


class Clock:
    """A clock that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def given(*, paused: bool = False) -> StatisticsInput:
    return StatisticsInput(paused, False, 5, "student-small", "cpu", DELIVERY, commands_ignored=4)


def pi(folder: Path, throttled: str = "50001", temperature: str = "61234") -> KernelFiles:
    """The files of a Raspberry Pi's kernel; its first zone is not the processor's."""
    for name, kind, value in (("thermal_zone0", "battery", "20000"), ("thermal_zone1", "cpu-thermal", temperature)):
        (folder / name).mkdir()
        (folder / name / "type").write_text(f"{kind}\n")
        (folder / name / "temp").write_text(f"{value}\n")
    firmware = folder / "soc" / "soc:firmware"
    firmware.mkdir(parents=True)
    (firmware / "get_throttled").write_text(f"{throttled}\n")
    return KernelFiles(folder, folder, folder)


def test_statistics_are_of_the_time_since_the_last_ones(tmp_path: Path) -> None:
    clock, written = Clock(), [1000]
    collector = StatisticsCollector(60, pi(tmp_path), clock, lambda: written[0])
    clock.now += 8  # of starting
    collector.frame()
    assert collector.due("cpu", None), "the first follow the first frame"
    at_once = collector.collect({"detect": 0.5, "classify": 0.1}, given())
    assert (at_once.uptime, at_once.fps) == (8.0, None)
    assert not collector.due("cpu", None)
    for _ in range(600):
        collector.frame()
    clock.now += 60
    assert collector.due("cpu", None)
    first = collector.collect({"detect": 6.5, "classify": 0.7}, given())
    assert (first.uptime, first.fps, first.stage_ms) == (68.0, 10.0, {"detect": 10.0, "classify": 1.0})
    assert (first.temperature, first.throttled) == (61.234, ["under-voltage"])
    assert not collector.due("cpu", None)
    for _ in range(30):
        collector.frame()
    clock.now += 60
    written[0] = 6000
    second = collector.collect({"detect": 7.1, "classify": 0.7}, given())
    assert (second.uptime, second.fps, second.stage_ms) == (128.0, 0.5, {"detect": 20.0, "classify": 0.0})
    assert second.bytes_written_last_hour == 5000
    assert (second.outbox, second.refused, second.commands_ignored) == (FIGURES, 2, 4)


def test_paused_there_are_no_frames_and_nothing_is_divided_by_them(tmp_path: Path) -> None:
    clock = Clock()
    collector = StatisticsCollector(60, pi(tmp_path), clock)
    collector.collect({"detect": 0.0}, given(paused=True))
    clock.now += 60
    statistics = collector.collect({"detect": 0.0}, given(paused=True))
    assert (statistics.paused, statistics.fps, statistics.stage_ms) == (True, 0.0, {"detect": 0.0})


def test_a_fault_and_another_accelerator_are_told_at_once_and_rates_are_of_the_interval(tmp_path: Path) -> None:
    """They used to wait for the next minute."""
    clock = Clock()
    collector = StatisticsCollector(60, pi(tmp_path), clock)
    collector.collect({"detect": 0.0}, given())
    for _ in range(20):
        collector.frame()
    clock.now += 0.5
    assert not collector.due("cpu", 21), "a fault that flaps causes no flood"
    clock.now += 1.5
    assert not collector.due("cpu", None)
    assert collector.due("cpu (degraded)", None)
    assert collector.due("cpu", 21)
    faulty = replace(given(), delivery=replace(DELIVERY, fault=21))
    early = collector.collect({"detect": 0.2}, faulty)
    assert (early.fault, early.fps, early.stage_ms) == (21, 10.0, {"detect": 10.0})
    clock.now += 2
    assert not collector.due("cpu", 21)
    assert collector.due("cpu", None), "that it is over as well"
    clock.now += 56
    assert collector.due("cpu", 21), "the interval goes on as it was"


def test_darkness_is_told_at_once(tmp_path: Path) -> None:
    clock = Clock()
    collector = StatisticsCollector(60, pi(tmp_path), clock)
    assert not collector.collect({}, given()).too_dark
    clock.now += 2
    assert not collector.due("cpu", None, too_dark=False)
    assert collector.due("cpu", None, too_dark=True)
    assert collector.collect({}, replace(given(), too_dark=True)).too_dark
    clock.now += 2
    assert not collector.due("cpu", None, too_dark=True)
    assert collector.due("cpu", None, too_dark=False), "that it is over as well"


def test_visitors_and_presets_are_counted_unless_single_people_are_not_to_be(tmp_path: Path) -> None:
    changes = [
        Change(1, "appeared", None, 0.0),
        Change(2, "appeared", None, 0.0),
        Change(1, "preset", None, 0.0, name="smile"),
        Change(1, "left", None, 0.0),
    ]
    for individuals, visitors, presets in ((True, 2, {"smile": 1}), (False, None, {})):
        collector = StatisticsCollector(60, KernelFiles(), Clock(), individuals=individuals)
        collector.frame(changes)
        statistics = collector.collect({}, given())
        assert (statistics.visitors, statistics.presets) == (visitors, presets)


def test_a_board_that_reports_nothing(tmp_path: Path) -> None:
    clock = Clock()
    collector = StatisticsCollector(1, KernelFiles(*[tmp_path / "none"] * 3), clock, lambda: None)
    clock.now += 1
    statistics = collector.collect({}, given())
    assert (statistics.temperature, statistics.throttled, statistics.bytes_written_last_hour) == (None, None, None)


def test_a_process_that_can_open_no_more_files_still_has_statistics(tmp_path: Path) -> None:
    clock = Clock()
    collector = StatisticsCollector(1, pi(tmp_path), clock)
    clock.now += 1
    with no_more_files():
        statistics = collector.collect({}, given())
    assert (statistics.temperature, statistics.throttled, statistics.fps) == (None, None, None)


@pytest.mark.parametrize("stored", ["", "not a number", "0x"])
def test_a_firmware_that_reports_nonsense(tmp_path: Path, stored: str) -> None:
    files = pi(tmp_path, stored)
    assert hardware.throttled_now(files.platform, files.hwmon) is None


def test_the_firmware_of_a_raspberry_pi_5_is_found(tmp_path: Path) -> None:
    firmware = tmp_path / "soc@107c000000" / "soc@107c000000:firmware"
    firmware.mkdir(parents=True)
    (firmware / "get_throttled").write_text("4\n")
    assert hardware.throttled_now(tmp_path, tmp_path / "none") == ["throttled"]


@pytest.mark.parametrize(("alarm", "limits"), [("0\n", []), ("1\n", ["under-voltage"]), ("", None)])
def test_without_a_file_of_the_firmware_the_voltage_sensor_is_read(
    tmp_path: Path, alarm: str, limits: list[str] | None
) -> None:
    for number, name in enumerate(("cpu_thermal", "rpi_volt")):
        (tmp_path / f"hwmon{number}").mkdir()
        (tmp_path / f"hwmon{number}" / "name").write_text(f"{name}\n")
    (tmp_path / "hwmon1/in0_lcrit_alarm").write_text(alarm)
    assert hardware.throttled_now(tmp_path / "none", tmp_path) == limits


def test_the_last_hour_forgets_what_is_older() -> None:
    hour = hardware.LastHour()
    growths = [hour.growth(minute * 60.0, minute * 10) for minute in range(181)]
    assert growths[:3] == [0, 10, 20]
    assert growths[60:] == [600] * 121


def test_this_process_knows_what_it_has_written() -> None:
    if not hardware.OWN_IO.exists():
        pytest.skip("this kernel does not count what a process writes")
    file = Path.cwd() / f".written-{os.getpid()}"  # not in /tmp, which may be memory
    before, kernel_before = hardware.bytes_written(), _kernel_count()
    try:
        with file.open("wb") as opened:
            opened.write(b"x" * 100_000)
            os.fsync(opened.fileno())
        after, kernel_after = hardware.bytes_written(), _kernel_count()
    finally:
        file.unlink()
    assert before is not None
    assert after is not None
    assert abs((after - before) - (kernel_after - kernel_before)) < 512


def _kernel_count() -> int:
    [line] = [line for line in hardware.OWN_IO.read_text().splitlines() if line.startswith("write_bytes: ")]
    return int(line.split()[1])
