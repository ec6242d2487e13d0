"""``fer-train build`` on a little noise: a whole plan, an interrupted one, and what it refuses before it trains."""

import dataclasses
import json
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="the train extra is not installed")
pytestmark = pytest.mark.slow

import tf_keras as keras  # noqa: E402

from edge.errors import FerEdgeError, UsageError  # noqa: E402
from train.build import Build  # noqa: E402
from train.checkpoints import read_history  # noqa: E402
from train.cli import _parser, main  # noqa: E402
from train.distributed import Workers  # noqa: E402
from train.models.registry import MODELS  # noqa: E402
from train.plans import PLANS, Cycle, Mean, Plan  # noqa: E402
from train.recipes import RECIPES, Recipe, customize  # noqa: E402
from train.run import Run, RunInputs  # noqa: E402
from train.training import train_recipe  # noqa: E402

BRIEF = ("epochs=1", "small_epochs=0", "teachers=", "votes=0", "batch=16", "precision=float32")
SETS = [word for value in BRIEF for word in ("--set", value)]


def shallow(**changes: object) -> Recipe:
    return dataclasses.replace(RECIPES["shallow"], **changes)  # type: ignore[arg-type]


TINY = Plan(
    "tiny",
    (
        Cycle("first", shallow(), None, 0.1),
        Cycle("second", shallow(seed=2, degradation=0.5), "first", 0.1),
        Mean("tiny", ("second", "first"), (0.75, 0.25)),
    ),
)


@pytest.fixture(autouse=True)
def _precision() -> Iterator[None]:
    """Training sets Keras's precision for the whole process."""
    policy = keras.mixed_precision.global_policy()
    yield
    keras.mixed_precision.set_global_policy(policy)


def build(blobs: Path, out: Path, plan: Plan = TINY) -> Build:
    return Build(plan, RunInputs((blobs,)), BRIEF, out)


@pytest.fixture(scope="module")
def begun(blobs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a build that ended after its first cycle."""
    out = tmp_path_factory.mktemp("begun") / "out"
    assert build(blobs, out, Plan("tiny", TINY.runs[:1])).run() is None
    return out


def test_hours_are_told_also_where_a_machine_trains_in_float32(blobs: Path, tmp_path: Path) -> None:
    title = next(Build(TINY, RunInputs((blobs,)), ("precision=float32",), tmp_path / "out").describe())
    assert "about 0.2 hours on two AVX-512 cores" in title
    assert "AVX-512" not in next(build(blobs, tmp_path / "out").describe())


def weights_of(run: Path) -> list[np.ndarray]:
    return [variable.numpy() for variable in Run.load(run).model(run).trainable_variables]


def test_a_build_goes_on_where_it_was_interrupted_and_keeps_what_is_finished(
    begun: Path, blobs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shutil.copytree(begun, tmp_path / "out")
    first = (out / "first" / "run.json").read_text()
    capsys.readouterr()
    figures = build(blobs, out).run()
    told = capsys.readouterr().err
    assert figures is not None
    assert "run 1 of 3, first: finished, " in told
    assert "run 2 of 3, second: to be made\n" in told
    assert (out / "first" / "run.json").read_text() == first
    for one, two, mean in zip(*(weights_of(out / name) for name in ("first", "second", "tiny")), strict=True):
        np.testing.assert_allclose(mean, 0.25 * one + 0.75 * two, atol=1e-6)

    assert build(blobs, out).run() is None  # all is finished

    by_hand = out.with_name("by-hand")  # a cycle is what the single command makes of the same weights
    second = TINY.runs[1]
    assert isinstance(second, Cycle)
    inputs = RunInputs((blobs,), str(out / "first"))
    train_recipe(customize(second.recipe, list(BRIEF)), inputs, by_hand, Workers())
    assert read_history(by_hand)[0].loss == pytest.approx(read_history(out / "second")[0].loss, rel=1e-3)
    assert Run.load(by_hand).command == Run.load(out / "second").command

    stored = json.loads((out / "second" / "run.json").read_text())  # killed at the end of the second, before the mean
    (out / "second" / "run.json").write_text(json.dumps(stored | {"best": None}))
    with pytest.raises(UsageError, match=r"tiny exists, but .*second, which it is made of, is not finished"):
        build(blobs, out).check()
    (out / "tiny").rename(tmp_path / "moved")
    capsys.readouterr()
    build(blobs, out).run()
    assert "run 2 of 3, second: goes on" in capsys.readouterr().err
    assert len(read_history(out / "second")) == 1
    again, before = (Run.load(folder) for folder in (out / "tiny", tmp_path / "moved"))
    assert again == before
    assert before.command.startswith("fer-train build tiny --data fer2013.csv --set epochs=1 --set small_epochs=0")
    assert _parser().parse_args(shlex.split(before.command)[1:]).set == list(BRIEF)
    assert [(one.role, one.name, (one.source or "").partition(" --set")[0]) for one in before.sources] == [
        ("start", "run shallow", "0.75 of: fer-train run shallow --data fer2013.csv --weights runs/first"),
        ("start", "run shallow", "0.25 of: fer-train run shallow --data fer2013.csv"),
        ("data", "Training of fer2013.csv", "without 0 pictures that other splits hold too"),
    ]


def test_what_the_folder_holds_must_be_of_this_plan_and_these_inputs(begun: Path, blobs: Path, tmp_path: Path) -> None:
    out = shutil.copytree(begun, tmp_path / "out")
    other = tmp_path / "other.csv"
    other.write_text("".join(blobs.read_text().splitlines(keepends=True)[:-1]))
    for wrong, told in (
        (build(other, out), "first holds another run, with other faces to measure on"),
        (
            Build(TINY, RunInputs((blobs,)), ("seed=3", *BRIEF), out),
            "first holds another run, with seed=1 instead of 3",
        ),
        (
            Build(TINY, RunInputs((blobs,), str(out / "first")), BRIEF, out),
            "another run, with other weights to start from",
        ),
        (build(blobs, out / "first"), "first is a run. Give --out a folder for all runs"),
        (build(blobs, blobs), "fer2013.csv is a file. Give another --out"),
    ):
        with pytest.raises(UsageError, match=told):
            wrong.check()
    (out / "second").mkdir()
    (out / "tiny").mkdir()
    with pytest.raises(UsageError, match=r"tiny exists, but .*second, which it is made of, is not finished"):
        build(blobs, out).check()
    assert not (out / "second" / "run.json").exists()


def test_what_a_later_run_lacks_is_told_before_the_first_one_is_trained(blobs: Path, tmp_path: Path) -> None:
    def with_second(**changes: object) -> Build:
        plan = Plan(
            "tiny",
            (
                Cycle("first", customize(shallow(), list(BRIEF)), None, 0.1),
                Cycle("second", shallow(**changes), "first", 0.1),
            ),
        )
        return Build(plan, RunInputs((blobs,)), (), tmp_path / "out")

    for wrong, told in (
        (with_second(teachers=(), votes=0.5), "give --votes fer2013new.csv"),
        (with_second(teachers=("co-teacher",)), "made for other training faces"),
        (with_second(teachers=("nobody",)), "no view bank"),
        (Build(TINY, RunInputs((tmp_path / "none.csv",)), BRIEF, tmp_path / "out"), "none.csv"),
    ):
        with pytest.raises(FerEdgeError, match=told):
            wrong.run()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", PLANS)
def test_a_dry_run_prints_the_single_commands(
    name: str, blobs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["fer-train", "build", name, "--data", blobs, "--weights", "none", *SETS, "--out", tmp_path / "out"]
    monkeypatch.setattr(sys, "argv", [*map(str, command), "--dry-run"])
    assert main() == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("#")]
    assert len(lines) == len(PLANS[name].runs) + 1
    assert lines[-1].startswith(f"fer-export bundle {tmp_path / 'out' / name} --data")
    for planned, line in zip(PLANS[name].runs, lines, strict=False):
        arguments = _parser().parse_args(shlex.split(line)[1:])
        assert arguments.out == tmp_path / "out" / planned.name
        if isinstance(planned, Cycle):
            assert arguments.recipe == planned.recipe.name
            assert customize(RECIPES[arguments.recipe], arguments.set) == customize(planned.recipe, list(BRIEF))
            start = str(tmp_path / "out" / planned.start) if planned.start else "none"
            assert arguments.weights == start
        else:
            assert arguments.shares == planned.shares
            assert arguments.members == [str(tmp_path / "out" / member) for member in planned.made_of]
    assert not (tmp_path / "out").exists()


def test_every_cycle_starts_from_weights_that_its_network_takes() -> None:
    for plan in PLANS.values():
        networks: dict[str, str] = {}
        for run in plan.runs:
            networks[run.name] = run.recipe.model if isinstance(run, Cycle) else networks[run.made_of[0]]
            if isinstance(run, Cycle):
                architecture = MODELS[run.recipe.model]
                assert networks[run.start] in architecture.sources if run.start else architecture.weights == "faceres"
