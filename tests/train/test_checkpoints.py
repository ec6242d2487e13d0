"""A run's folder whose files are damaged, lost or of different ages, as after a copy that was interrupted."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

tf = pytest.importorskip("tensorflow", reason="the train extra is not installed")
pytestmark = pytest.mark.slow

from edge.errors import UsageError  # noqa: E402
from train.checkpoints import BEST_WEIGHTS, HISTORY, Epoch, RunFolder, read_history  # noqa: E402
from train.distributed import Workers  # noqa: E402


def lines(epochs: int) -> str:
    return "".join(json.dumps(asdict(Epoch(epoch, 1.0, 0.5, 0.5, 1e-3, 9.0, 0.0))) + "\n" for epoch in range(epochs))


def state(epoch: int) -> Any:
    return tf.train.Checkpoint(epoch=tf.Variable(epoch, dtype=tf.int64))


def cut(run: Path, files: str, size: int) -> None:
    for file in (run / "checkpoint").glob(files):
        os.truncate(file, size)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run with a checkpoint after two epochs."""
    run = RunFolder(tmp_path, Workers())
    run.restore(state(2), weights_only=False)
    run.save_checkpoint()
    (tmp_path / HISTORY).write_text(lines(2))
    (tmp_path / BEST_WEIGHTS).touch()
    return tmp_path


@pytest.mark.parametrize("written", [2, 3])
def test_an_epoch_whose_checkpoint_was_interrupted_is_not_finished(written: int, folder: Path) -> None:
    (folder / HISTORY).write_text(lines(written))
    run = RunFolder(folder, Workers())
    assert [epoch.epoch for epoch in run.history()] == [0, 1]
    restored = state(0)
    run.restore(restored, weights_only=False)
    assert restored.epoch.numpy() == 2


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda run: (run / HISTORY).unlink(), "its checkpoint holds 2 epochs and its history.jsonl 0"),
        (lambda run: (run / HISTORY).write_text(lines(1)), "its checkpoint holds 2 epochs and its history.jsonl 1"),
        (lambda run: shutil.rmtree(run / "checkpoint"), "its checkpoint holds 0 epochs and its history.jsonl 2"),
        (lambda run: (run / BEST_WEIGHTS).unlink(), "its best.weights.h5 is lost"),
        (lambda run: cut(run, "*.data*", 2), "a damaged checkpoint"),
        (lambda run: cut(run, "*.index", 20), "a damaged checkpoint"),
    ],
)
def test_what_does_not_fit_together_is_not_gone_on_with(
    damage: Callable[[Path], object], told: str, folder: Path
) -> None:
    """There was a traceback, or all epochs were trained once more, over the best weights."""
    damage(folder)
    with pytest.raises(UsageError) as error:
        RunFolder(folder, Workers()).history()
    assert told in str(error.value)
    assert str(error.value).endswith(f"Copy the whole folder again, or remove {folder} and train anew.")


@pytest.mark.parametrize("damaged", [lines(2)[:-20], '{"epoch": 0, "gradient_norm": 1.0}\n', "\udcff", "[1]\n"])
def test_a_history_that_is_cut_off_or_of_a_later_version_is_named(damaged: str, tmp_path: Path) -> None:
    (tmp_path / HISTORY).write_text(damaged, errors="surrogateescape")
    with pytest.raises(UsageError, match=r"history\.jsonl: damaged, or written by a later version"):
        read_history(tmp_path)
