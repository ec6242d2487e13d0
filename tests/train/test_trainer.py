"""Stages, early stopping, a full disk: through the real program, on a few made-up faces."""

import contextlib
import gc
import json
import os
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="the train extra is not installed")
pytestmark = pytest.mark.slow

import tf_keras as keras  # noqa: E402

from edge.evaluation.fer2013 import read_faces  # noqa: E402
from tests.programs import fer_train, start_training  # noqa: E402
from train.evaluation.evaluate import evaluate  # noqa: E402
from train.recipes import Recipe  # noqa: E402
from train.trainer import build_in_float32, predict_logits  # noqa: E402


def history(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def training(recipe: str, data: Path, out: Path, *settings: str) -> list[str]:
    """The arguments of ``fer-train`` that train ``recipe``."""
    values = [part for setting in settings for part in ("--set", setting)]
    return ["run", recipe, "--data", str(data), "--out", str(out), *values]


def test_what_is_measured_is_in_float32_whatever_is_trained_in() -> None:
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = build_in_float32(Recipe("trial", model="student-quarter", epochs=1, precision="mixed_bfloat16"))
        assert {layer.compute_dtype for layer in model.layers} == {"float32"}
        assert keras.mixed_precision.global_policy().name == "mixed_bfloat16"
    finally:
        keras.mixed_precision.set_global_policy("float32")


def test_many_networks_are_measured_without_a_warning_about_retracing(caplog: pytest.LogCaptureFixture) -> None:
    """TensorFlow tells functions apart by the address of their code, which the next network's may have again."""
    tf.get_logger().propagate = True
    try:
        for _ in range(12):
            layers = [keras.layers.Input((48, 48, 1)), keras.layers.Flatten(), keras.layers.Dense(7)]
            assert predict_logits(keras.Sequential(layers), np.zeros((3, 48, 48), np.uint8)).shape == (3, 7)
            gc.collect()
    finally:
        tf.get_logger().propagate = False
    assert caplog.messages == []


def test_a_run_in_bfloat16_reports_the_figures_of_evaluate(blobs: Path, tmp_path: Path) -> None:
    settings = ["teachers=", "votes=0", "batch=16", "epochs=2", "precision=mixed_bfloat16"]
    done = fer_train(*training("student-quarter", blobs, tmp_path / "run", *settings))
    assert done.returncode == 0, done.stderr
    told = evaluate([tmp_path / "run"], read_faces(blobs, "PublicTest")).figures
    best = max(history(tmp_path / "run"), key=lambda line: line["accuracy"])
    assert (best["accuracy"], best["macro_f1"]) == (told.accuracy, told.macro_f1)
    assert f"accuracy {told.accuracy:.2%}, macro-F1 {told.macro_f1:.2%} (Keras float32" in done.stdout + done.stderr


def few_steps(recipe: str, data: Path, out: Path, *settings: str) -> list[dict[str, float]]:
    """The history of a run of a large network with a step an epoch, through its real code. It claims no accuracy."""
    done = fer_train(*training(recipe, data, out, *settings, "batch=16", "precision=float32"))
    assert done.returncode == 0, done.stderr
    measured = ("loss", "training_loss", "training_accuracy", "validation_loss", "accuracy")
    assert all(np.isfinite(line[name]) for line in history(out) for name in measured)
    return history(out)


def test_a_large_network_takes_its_steps(few: Path, tmp_path: Path) -> None:
    assert len(few_steps("vgg16", few, tmp_path / "run", "epochs=2")) == 2


def test_a_run_of_two_stages_survives_kill_9_between_them(few: Path, tmp_path: Path) -> None:
    """At a learning rate of 0 the second stage measures the weights that it goes on with: those of the first."""
    settings = ["head_epochs=1", "epochs=1", "batch=16", "precision=float32", "ema=0", "learning_rate=0"]
    run = training("resnet50-vggface", few, tmp_path / "run", *settings)
    killed = start_training(*run)
    killed.wait_for("epoch 1/2")  # it is said after the checkpoint
    killed.kill()
    [first] = history(tmp_path / "run")
    done = fer_train(*run)
    assert done.returncode == 0, done.stderr
    again, second = history(tmp_path / "run")
    assert again == first
    assert [line["learning_rate"] for line in (first, second)] == pytest.approx([1e-3, 0])
    assert second["validation_loss"] == pytest.approx(first["validation_loss"], rel=1e-4)


def test_a_run_that_gets_no_better_stops_early(blobs: Path, tmp_path: Path) -> None:
    settings = ["teachers=", "epochs=12", "patience=2", "learning_rate=0", "batch=16"]
    done = fer_train(*training("shallow", blobs, tmp_path / "run", *settings))
    assert done.returncode == 0, done.stderr
    assert "no better epoch for 2; stopped early" in done.stderr
    assert len(history(tmp_path / "run")) < 12


def test_a_plateau_lowers_the_rate_and_then_stops_the_run_also_when_it_is_continued(
    blobs: Path, tmp_path: Path
) -> None:
    """``plateau_factor`` 0: after the first plateau nothing changes any more, and so the loss does not fall."""
    schedule = ("schedule=plateau", "plateau_patience=1", "plateau_factor=0", "patience=3", "monitor=loss", "ema=0")
    settings = (*schedule, "learning_rate=1", "warmup=0", "teachers=", "batch=16")
    run = training("shallow", blobs, tmp_path / "run", *settings)
    killed = start_training(*run)
    killed.wait_for("epoch 3/")
    killed.kill()
    done = fer_train(*run)
    assert done.returncode == 0, done.stderr
    assert "no better epoch for 3; stopped early" in done.stderr
    lines = history(tmp_path / "run")
    falls = [after["validation_loss"] < before["validation_loss"] - 1e-4 for before, after in pairwise(lines)]
    first = falls.index(False) + 1  # the epoch on the plateau; from the next one on the rate is 0
    assert [line["learning_rate"] for line in lines] == [1.0] * (first + 1) + [0.0] * (len(lines) - first - 1)
    best = min(range(len(lines)), key=lambda epoch: lines[epoch]["validation_loss"])
    assert len(lines) == best + 4


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("model=shalow", "no network 'shalow'; did you mean shallow?"),
        ("batch=0", "--set batch=0: Expected `int` >= 1"),
        ("batch=1000", "112 training faces are fewer than one batch of 1,000"),
        ("head_epochs=1", "shallow has no pretrained backbone to freeze"),
        ("small_epochs=1", "shallow cannot take pictures of 32 pixels"),
    ],
)
def test_a_value_that_cannot_be_leaves_the_folder_free_for_the_right_command(
    wrong: str, told: str, blobs: Path, tmp_path: Path
) -> None:
    done = fer_train(*training("shallow", blobs, tmp_path / "run", "teachers=", "batch=16", wrong))
    assert (done.returncode, told in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 MB; a checkpoint of the shallow network takes 76, and the next one is written beside it."""
    if os.getuid() != 0:
        pytest.skip("mounting a small file system needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", folder], check=False).returncode:
        pytest.skip("mounting a small file system is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(file: Path) -> None:
    """Write until the disk is full."""
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as rest:
        while rest.write(bytes(1 << 20)):
            pass


def test_a_full_disk_is_reported_and_the_run_continues_when_there_is_room(blobs: Path, small_disk: Path) -> None:
    settings = ["teachers=", "epochs=2", "batch=16"]
    filler = small_disk / "filler"
    run = training("shallow", blobs, small_disk / "run", *settings)
    process = start_training(*run)
    process.wait_for("epoch 1/2")
    fill(filler)
    done = process.end()
    assert done.returncode == 15, done.stderr
    assert "cannot be written" in done.stderr
    assert "run the same command again" in done.stderr
    filler.unlink()
    assert fer_train(*run).returncode == 0
    assert [line["epoch"] for line in history(small_disk / "run")] == [0, 1]


def test_a_run_that_cannot_begin_on_a_full_disk_begins_when_there_is_room(blobs: Path, small_disk: Path) -> None:
    """There was a traceback. Half a run.json stayed, and the same command ended then: "not a training run"."""
    settings = ["teachers=", "votes=0", "epochs=1", "batch=16"]
    run = [*training("student-quarter", blobs, small_disk / "run", *settings), "--weights", "student"]
    (small_disk / "run").mkdir()
    filler = small_disk / "filler"
    fill(filler)
    os.truncate(filler, filler.stat().st_size - 8192)  # its run.json has 11,000 bytes
    done = fer_train(*run)
    assert (done.returncode, "run the same command again" in done.stderr) == (15, True), done.stderr
    filler.unlink()
    begun = start_training(*run)
    begun.wait_until_begun(small_disk / "run")
    begun.kill()
