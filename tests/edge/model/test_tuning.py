"""Tuning: which choice is made, when it is void, and that it is used; the tests set the clock."""

import os
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edge.model.bundle import open_bundle
from edge.model.loader import open_deployed
from edge.model.tuning import (
    MeasuredSpeed,
    RuntimeChoice,
    Tuning,
    choose,
    load_tuning,
    measure_speed,
    tuning_conditions,
)
from edge.settings import ModelSettings, Settings, StoreSettings
from edge.system.atomic_file import write_durably
from tests.conftest import StandIn


def cpu(threads: int, ms: float) -> MeasuredSpeed:
    return MeasuredSpeed("cpu", threads, ms)


@pytest.mark.parametrize(
    ("measured", "chosen"),
    [
        ([cpu(1, 1.0), cpu(2, 0.96), cpu(4, 0.97)], cpu(1, 1.0)),
        ([cpu(1, 1.0), cpu(2, 0.6), cpu(3, 0.58), cpu(4, 0.9)], cpu(2, 0.6)),
        ([cpu(1, 1.0), MeasuredSpeed("edgetpu", 1, 0.97)], cpu(1, 1.0)),
        ([cpu(1, 1.0), cpu(2, 0.7), MeasuredSpeed("edgetpu", 1, 0.3)], MeasuredSpeed("edgetpu", 1, 0.3)),
        ([cpu(1, 1.0), cpu(2, 0.31), MeasuredSpeed("edgetpu", 1, 0.3)], cpu(2, 0.31)),
        ([cpu(1, 0.4), MeasuredSpeed("edgetpu", 1, 2.4)], cpu(1, 0.4)),
    ],
)
def test_the_simplest_that_is_nearly_the_fastest_is_chosen(
    measured: list[MeasuredSpeed], chosen: MeasuredSpeed
) -> None:
    assert choose(measured) == chosen


@dataclass
class Board:
    """A board on which classifying advances the clock; in the second half it is three times slower."""

    now: float = 0.0
    faces: int = 0

    def clock(self) -> float:
        return self.now

    def choice(self, threads: int, ms: float) -> RuntimeChoice:
        def run(_face: object) -> None:
            self.faces += 1
            self.now += ms / 1000 * (3 if self.faces > 300 else 1)

        return RuntimeChoice("cpu", threads, run)


def test_a_board_that_slows_down_meanwhile_slows_all_choices_alike() -> None:
    board = Board()
    faces = [np.zeros((48, 48), np.uint8)]
    fast, slow, slower = measure_speed(
        [board.choice(1, 1.0), board.choice(2, 2.0), board.choice(3, 3.0)], faces, board.clock
    )
    assert slow.ms / fast.ms == pytest.approx(2, rel=0.01)
    assert slower.ms / fast.ms == pytest.approx(3, rel=0.01)


def tuned(standin: StandIn, chosen: MeasuredSpeed, *others: MeasuredSpeed) -> Tuning:
    return Tuning(
        tuning_conditions(open_bundle(standin.bundle)), chosen, (chosen, *others), "", "2026-11-22T12:00:00+00:00"
    )


def keep(folder: Path, what: Tuning) -> None:
    write_durably(folder / "tuned.json", msgspec.json.encode(what))


@pytest.mark.parametrize(
    "change",
    [
        {"model": "0" * 64},
        {"edgetpu_model": None},
        {"runtime": "ai-edge-litert 9.9"},
        {"machine": "vax"},
        {"cores": 99},
    ],
)
def test_a_choice_made_under_other_conditions_is_ignored(
    standin: StandIn, tmp_path: Path, change: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    bundle, choice = open_bundle(standin.bundle), tuned(standin, cpu(2, 0.5))
    keep(tmp_path, choice)
    assert load_tuning(tmp_path, bundle) == choice
    keep(tmp_path, msgspec.structs.replace(choice, holds_for=msgspec.structs.replace(choice.holds_for, **change)))
    assert load_tuning(tmp_path, bundle) is None
    assert "run fer-edge bench --autotune again" in caplog.text


@pytest.mark.parametrize("stored", [None, b"", b"{", b'{"holds_for": 1}', b"\xff"])
def test_a_missing_and_a_damaged_choice_are_none(standin: StandIn, tmp_path: Path, stored: bytes | None) -> None:
    if stored is not None:
        (tmp_path / "tuned.json").write_bytes(stored)
    assert load_tuning(tmp_path, open_bundle(standin.bundle)) is None


EDGE_TPU = MeasuredSpeed("edgetpu", 1, 0.2)


@pytest.mark.parametrize(
    ("settings", "choice", "threads", "accelerator"),
    [
        ({}, (cpu(2, 0.5),), 2, "edgetpu"),  # it was not there to be measured
        ({"threads": 3}, (cpu(2, 0.5), EDGE_TPU), 3, "cpu"),
        ({"accelerator": "edgetpu"}, (cpu(2, 0.5), EDGE_TPU), 2, "edgetpu"),
        ({}, (EDGE_TPU, cpu(2, 0.5)), 1, "edgetpu"),
        ({"accelerator": "cpu"}, (EDGE_TPU, cpu(2, 0.5)), 1, "cpu"),
        ({}, (), 1, "edgetpu"),
    ],
)
def test_the_choice_is_used_unless_the_settings_override_it(
    standin: StandIn,
    tmp_path: Path,
    settings: dict[str, str | int],
    choice: tuple[MeasuredSpeed, ...],
    threads: int,
    accelerator: str,
) -> None:
    if choice:
        keep(tmp_path, tuned(standin, *choice))
    model = ModelSettings(bundle=str(standin.bundle), edgetpu_library=str(standin.library), **settings)
    classifier = open_deployed(Settings(model=model, store=StoreSettings(str(tmp_path))), os.environ)[0]
    classifier.wait_for_accelerator()
    assert (classifier.threads, classifier.accelerator) == (threads, accelerator)


def test_a_chosen_edge_tpu_that_is_missing_is_degraded(standin: StandIn, tmp_path: Path) -> None:
    keep(tmp_path, tuned(standin, EDGE_TPU, cpu(1, 0.5)))
    standin.plays("absent")
    model = ModelSettings(bundle=str(standin.bundle), edgetpu_library=str(standin.library))
    classifier = open_deployed(Settings(model=model, store=StoreSettings(str(tmp_path))), os.environ)[0]
    classifier.wait_for_accelerator()
    assert classifier.accelerator == "cpu (degraded)"
