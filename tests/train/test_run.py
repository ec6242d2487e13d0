"""Training runs on a few made-up faces: whole, interrupted, and refused."""

import dataclasses
import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="the train extra is not installed")
pytestmark = pytest.mark.slow

from edge.errors import DataError, UsageError  # noqa: E402
from edge.model.origin import Source  # noqa: E402
from tests.programs import PROGRAM, fer_train, start_training  # noqa: E402
from train.checkpoints import Epoch  # noqa: E402
from train.cli import _outcome  # noqa: E402
from train.data.dataset import read_splits  # noqa: E402
from train.distributed import Workers  # noqa: E402
from train.recipes import RECIPES, customize  # noqa: E402
from train.run import Run, RunInputs, command_of, refuse_another_run  # noqa: E402
from train.training import check_inputs, prepare_run, train_recipe  # noqa: E402

SMALL = ["--set", "votes=0", "--set", "teachers=", "--set", "batch=16", "--set", "epochs=3"]


def test_a_run_fits_data_with_a_further_split_that_holds_some_of_its_faces(blobs: Path, tmp_path: Path) -> None:
    lines = blobs.read_text().splitlines(keepends=True)
    complete = tmp_path / "complete.csv"
    complete.write_text("".join([*lines, *(line.replace("Training", "PrivateTest") for line in lines[1:9])]))
    before, after = read_splits(blobs), read_splits(complete)
    assert (len(before.training), len(after.training)) == (112, 104)
    hashes = (before.training.sha256(), before.public.sha256())
    run = Run(RECIPES["shallow"], "x", "", *hashes, (), 0, 0, "PublicTest", None)
    assert run.faces(tmp_path, (complete,)).training.sha256() == hashes[0]
    foreign = dataclasses.replace(run, training_sha256="0" * 64)
    with pytest.raises(UsageError, match="not the data"):
        foreign.faces(tmp_path, (complete,))


@pytest.mark.parametrize(("start", "said"), [(None, False), (0.69, False), (0.7, True), (0.71, True)])
def test_a_run_that_never_beat_its_start_says_so(start: float | None, said: bool) -> None:
    best = Epoch(3, 1.0, 0.7, 0.6, 1e-3, 100.0, 0.0)
    run = Run(RECIPES["shallow"], "x", "", "", "", (), 0, 0, "PublicTest", best, start)
    text = _outcome(Path("runs/x"), run)
    assert "runs/x: epoch 4, chosen by PublicTest: accuracy 70.00%" in text
    assert (f"weights that it began with ({start or 0:.2%})" in text) == said


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "history.jsonl").read_text().splitlines()]


def test_a_run_is_repeatable_and_survives_kill_9(blobs: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    command = ["run", "shallow", "--data", blobs, *SMALL]
    done = subprocess.run([PROGRAM, *map(str, command), "--out", whole], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "chosen by PublicTest: accuracy" in done.stdout
    known = ("shallow epoch ", "112 training", "parsing")
    assert all(line.startswith(known) for line in done.stderr.splitlines())
    killed = start_training(*command, "--out", cut)
    killed.wait_for("epoch 1/3")
    killed.kill()
    assert len(losses(cut)) < 3
    assert fer_train(*command, "--out", cut).returncode == 0
    np.testing.assert_allclose(losses(cut), losses(whole), rtol=1e-3)
    run = Run.load(cut)
    assert run.best is not None
    assert run.command.startswith("fer-train run shallow --data fer2013.csv --set epochs=3 --set batch=16")
    assert run.recipe.epochs == 3


def test_a_start_from_a_run_that_has_not_ended_is_told(blobs: Path, tmp_path: Path) -> None:
    first = tmp_path / "first"
    command = ["run", "shallow", "--data", blobs, *SMALL[:-1], "epochs=1", "--out"]
    assert fer_train(*command, first).returncode == 0
    again = [*command[:-1], "--weights", first, "--out"]
    assert "warning" not in fer_train(*again, tmp_path / "second").stderr
    stored = json.loads((first / "run.json").read_text())
    (first / "run.json").write_text(json.dumps({**stored, "best": None}))  # as before its last epoch
    done = fer_train(*again, tmp_path / "third")
    assert done.returncode == 0, done.stderr
    [line] = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert f"{first}: the run is not finished. Continue it: fer-train run shallow" in line


def test_a_finished_run_stays_finished_when_its_command_is_given_again_and_fails(blobs: Path, tmp_path: Path) -> None:
    """`fer-export bundle` refused it from then on. Here the checkpoint is lost; it may as well be interrupted."""
    recipe = customize(RECIPES["shallow"], ["teachers=", "batch=16", "epochs=2", "precision=float32"])
    inputs = RunInputs((blobs,))
    best = Epoch(1, 1.0, 0.7, 0.6, 1e-3, 100.0, 0.0)
    finished = dataclasses.replace(prepare_run(recipe, inputs, read_splits(blobs)).run, best=best)
    finished.save(tmp_path)
    (tmp_path / "history.jsonl").write_text(2 * (json.dumps(dataclasses.asdict(best)) + "\n"))
    with pytest.raises(UsageError, match="its checkpoint holds 0 epochs"):
        train_recipe(recipe, inputs, tmp_path, Workers())
    assert Run.load(tmp_path) == finished


def test_another_data_set_or_recipe_is_not_mixed_into_a_run(blobs: Path, tmp_path: Path) -> None:
    command = ["run", "student-quarter", "--data", blobs, "--out", tmp_path / "run", *SMALL[:-1], "epochs=2"]
    command += ["--set", "small_epochs=1"]
    assert fer_train(*command).returncode == 0
    done = fer_train(*command, "--set", "seed=2")
    assert (done.returncode, "with seed=1 instead of 2." in done.stderr) == (2, True), done.stderr


def test_a_run_goes_on_with_its_faces_in_another_file_and_tells_what_else_differs(tmp_path: Path) -> None:
    def run_of(name: str, **changes: object) -> Run:
        sources = (Source("start", "a.h5", sha256="3" * 64), Source("data", f"Training of {name}", sha256="1" * 64))
        run = Run(RECIPES["shallow"], name, "", "1" * 64, "2" * 64, sources, 0, 0, "PublicTest", None)
        return dataclasses.replace(run, **changes)

    run_of("fer2013.csv").save(tmp_path)
    refuse_another_run(tmp_path, run_of("fer2013.csv.xz"))
    weights = (Source("start", "b.h5", sha256="4" * 64), *run_of("fer2013.csv").sources[1:])
    other = dataclasses.replace(RECIPES["shallow"], epochs=2, teachers=())
    for changes, told in (
        ({"recipe": other}, "with epochs=16 instead of 2, teachers=co-teacher instead of none."),
        ({"recipe": RECIPES["paper"]}, "with recipe shallow instead of paper."),
        ({"training_sha256": "5" * 64}, "with other training faces."),
        ({"measured": "test"}, "with other faces to measure on."),
        ({"sources": weights}, "with other weights to start from."),
        ({"sources": (*run_of("x").sources, Source("data", "votes", sha256="6" * 64))}, "with other votes."),
    ):
        with pytest.raises(UsageError, match=re.escape(f"{tmp_path} holds another run, {told}")):
            refuse_another_run(tmp_path, run_of("fer2013.csv", **changes))


def test_a_recipe_that_learns_from_votes_needs_them(blobs: Path, tmp_path: Path) -> None:
    done = fer_train("run", "student-small", "--data", blobs, "--out", tmp_path / "run")
    assert (done.returncode, "--votes fer2013new.csv" in done.stderr) == (2, True), done.stderr


def test_votes_that_a_recipe_does_not_learn_from_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = customize(RECIPES["shallow"], ["teachers="])
    with pytest.raises(DataError, match=r"none\.csv"):
        train_recipe(recipe, RunInputs((tmp_path / "none.csv",), votes=tmp_path / "votes.csv"), tmp_path, Workers())
    told = f"warning: {tmp_path}/votes.csv is not used: the recipe has votes=0. To learn from it: --set votes=0.5"
    assert told in capsys.readouterr().err.splitlines()


def test_a_missing_teacher_is_told_before_the_data_is_read(tmp_path: Path) -> None:
    (tmp_path / "fer2013.csv").write_text("no faces")
    done = fer_train("run", "shallow", "--data", tmp_path / "fer2013.csv", "--set", "teachers=nobody")
    assert (done.returncode, "no view bank" in done.stderr) == (7, True), done.stderr


def test_a_missing_file_of_votes_is_told_before_the_data_is_read(tmp_path: Path) -> None:
    inputs = RunInputs((tmp_path / "none.csv",), votes=tmp_path / "absent.csv")
    recipe = customize(RECIPES["shallow"], ["teachers="])
    with pytest.raises(DataError, match=r"absent\.csv"):
        check_inputs(dataclasses.replace(recipe, votes=0.5), inputs)
    check_inputs(dataclasses.replace(recipe, votes=0.0), inputs)


def test_a_folder_that_cannot_be_made_is_told_before_the_data_is_read(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    done = fer_train("run", "shallow", "--data", tmp_path / "none.csv", "--out", file / "run")
    assert (done.returncode, done.stderr) == (
        2,
        f"fer-train: error: {file}/run: no folder can be made there: {file} is a file. Give another --out\n",
    )


def test_models_and_recipes_are_listed() -> None:
    models = fer_train("models").stdout
    for line in ("paper                3,823,367   3,819,399", "student-small        1,087,239"):
        assert line in models
    assert "student-small     model=student-small" in fer_train("recipes").stdout


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a training run"):
        Run.load(tmp_path)


def test_a_run_whose_file_never_ends_or_nests_is_none(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes(b'{"x":' + b"[" * 100_000)
    with pytest.raises(UsageError, match="not a training run"):
        Run.load(tmp_path)
    (tmp_path / "run.json").unlink()
    os.mkfifo(tmp_path / "run.json")
    with pytest.raises(UsageError, match="this is a named pipe, not a file"):
        Run.load(tmp_path)


def test_a_run_of_a_later_version_is_named_with_what_is_unknown_here(tmp_path: Path) -> None:
    """It was called no training run."""
    best = Epoch(0, 1.0, 0.7, 0.6, 1e-3, 100.0, 0.0)
    Run(RECIPES["shallow"], "x", "", "", "", (), 0, 0, "PublicTest", best).save(tmp_path)
    stored = json.loads((tmp_path / "run.json").read_text())
    stored["host"] = stored["recipe"]["swa"] = stored["best"]["gradient_norm"] = 0.5
    (tmp_path / "run.json").write_text(json.dumps(stored))
    with pytest.raises(UsageError, match="a later version made this run, with gradient_norm, host, swa"):
        Run.load(tmp_path)


def test_a_run_of_an_earlier_version_lists_its_sources_too(tmp_path: Path) -> None:
    """It had one line for each of weights, teachers and votes."""
    earlier = {
        "recipe": dataclasses.asdict(RECIPES["shallow"]),
        "command": "fer-train run shallow",
        "revision": "",
        "training_sha256": "1" * 64,
        "public_sha256": "2" * 64,
        "votes": f"FERPlus fer2013new.csv, sha256 {'3' * 64}",
        "teachers": [
            f"fer-train run paper (PublicTest 67.76%; weights: random; votes: none); logits sha256 {'4' * 64}"
        ],
        "excluded": 351,
        "skipped": 0,
        "measured": "PublicTest",
        "init": "random",
        "best": None,
    }
    (tmp_path / "run.json").write_text(json.dumps(earlier))
    run = Run.load(tmp_path)
    assert [(source.role, source.name, source.sha256) for source in run.sources] == [
        ("teacher", "view bank of run paper", "4" * 64),
        ("teacher", "run paper", None),
        ("data", "FER2013 Training", "1" * 64),
        ("data", "fer2013new.csv", "3" * 64),
    ]
    run.save(tmp_path)
    assert Run.load(tmp_path) == run
    stored = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(stored | {"sources": [{"role": "friend", "name": "x"}]}))
    with pytest.raises(UsageError, match="not a training run"):
        Run.load(tmp_path)


def test_the_command_of_a_run_keeps_names_with_spaces_together(tmp_path: Path) -> None:
    earlier = tmp_path / "my runs" / "an earlier one"
    earlier.mkdir(parents=True)
    (earlier / "run.json").touch()
    inputs = RunInputs((tmp_path / "my faces.csv",), str(earlier), tmp_path / "my votes.csv")
    command = command_of(customize(RECIPES["student-small"], ["teachers=my bank.npz"]), inputs)
    assert shlex.split(command)[3:] == [
        *("--data", "my faces.csv", "--weights", "runs/an earlier one"),
        *("--votes", "my votes.csv", "--set", "teachers=my bank.npz"),
    ]


def test_the_command_of_a_run_distinguishes_an_earlier_run_from_a_bundle(tmp_path: Path) -> None:
    """Both may be called student-small, and only one of them has the weights."""
    (tmp_path / "student-small").mkdir()
    (tmp_path / "student-small" / "run.json").write_text("{}")
    recipe, data = RECIPES["student-small"], tmp_path / "fer2013.csv"
    earlier, bundle = str(tmp_path / "student-small"), "student-small"
    assert command_of(recipe, RunInputs((data,), earlier)).endswith("fer2013.csv --weights runs/student-small")
    assert command_of(recipe, RunInputs((data,), bundle)).endswith("fer2013.csv --weights student-small")
    mine = command_of(recipe, RunInputs((tmp_path / "my faces", data)))
    assert mine == "fer-train run student-small --data 'my faces' --data fer2013.csv"
