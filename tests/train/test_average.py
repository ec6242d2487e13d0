"""``fer-train average`` on runs with random weights, and on a bundle."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="the train extra is not installed")
pytestmark = pytest.mark.slow

import tf_keras as keras  # noqa: E402

from edge.cli.arguments import network_path  # noqa: E402
from edge.errors import UsageError  # noqa: E402
from edge.model.origin import Source  # noqa: E402
from edge.model.preprocessing import normalize  # noqa: E402
from tests.programs import fer_train  # noqa: E402
from train.average import average_networks, describe_mean  # noqa: E402
from train.checkpoints import BEST_WEIGHTS, HISTORY, Epoch  # noqa: E402
from train.data.dataset import read_splits  # noqa: E402
from train.evaluation.predictors import open_predictor  # noqa: E402
from train.initial_weights import find_trained, statistics_faces  # noqa: E402
from train.models.registry import MODELS  # noqa: E402
from train.recipes import RECIPES  # noqa: E402
from train.run import Run  # noqa: E402


def make_run(folder: Path, blobs: Path, seed: int, network: str = "student-small") -> Path:
    """A run with random weights, as if it had been trained."""
    splits = read_splits(blobs)
    keras.utils.set_random_seed(seed)
    model = MODELS[network].build(0.0)
    folder.mkdir()
    model.save_weights(folder / BEST_WEIGHTS)
    Run(
        recipe=dataclasses.replace(RECIPES[network], precision="float32"),
        command=f"seed {seed}",
        revision="",
        training_sha256=splits.training.sha256(),
        public_sha256=splits.public.sha256(),
        sources=(Source("teacher", "common teacher"), Source("teacher", f"teacher {seed}")),
        excluded=0,
        skipped=0,
        measured="PublicTest",
        best=None,
    ).save(folder)
    return folder


def weights_of(run: Path) -> list[np.ndarray]:
    model = Run.load(run).model(run)
    return trainable(model)


def trainable(model: Any) -> list[np.ndarray]:
    """All weights but the statistics of batch norms, which are measured."""
    return [variable.numpy() for variable in model.trainable_variables]


def test_each_weight_is_the_mean_by_shares_and_the_run_has_its_provenance(blobs: Path, tmp_path: Path) -> None:
    one, two = (make_run(tmp_path / name, blobs, seed) for seed, name in enumerate(("one", "two")))
    out = tmp_path / "mean"
    done = fer_train("average", one, two, "--shares", "0.75,0.25", "--data", blobs, "--out", out)
    assert done.returncode == 0, done.stderr
    assert f"{out}: student-small, accuracy " in done.stdout
    for first, second, mean in zip(weights_of(one), weights_of(two), weights_of(out), strict=True):
        np.testing.assert_allclose(mean, 0.75 * first + 0.25 * second, atol=1e-6)
    run = Run.load(out)
    assert run.command == "fer-train average runs/one runs/two --data fer2013.csv --shares 0.75,0.25"
    assert [(source.role, source.name) for source in run.sources] == [
        ("start", "run student-small"),
        ("start", "run student-small"),
        ("teacher", "common teacher"),
        ("teacher", "teacher 0"),
        ("teacher", "teacher 1"),
    ]
    assert [source.source for source in run.sources[:2]] == [
        "0.75 of: seed 0 (no epoch measured)",
        "0.25 of: seed 1 (no epoch measured)",
    ]
    assert run.as_sources(out)[0].source == f"{run.command} (no epoch measured)"


def test_a_run_is_averaged_with_a_bundle(blobs: Path, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="no TFLite runtime is installed")
    one, out = make_run(tmp_path / "one", blobs, 1), tmp_path / "mean"
    run, _ = average_networks([str(one), "student-small"], (), (blobs,), out)
    found = find_trained("student-small")
    assert found is not None
    model = MODELS["student-small"].build(0.0)
    found[1].load(model, statistics_faces(read_splits(blobs).training))
    for first, second, mean in zip(weights_of(one), trainable(model), weights_of(out), strict=True):
        np.testing.assert_allclose(mean, (first + second) / 2, atol=1e-5)
    [source] = [source for source in run.sources if source.name == "int8 bundle student-small"]
    assert (source.source or "").startswith("0.5 of: fer-train build student-small ")


def test_the_name_of_a_bundled_model_is_never_a_run_here(
    blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In `runs/`, the mean had the bundle's weights under the run's name, and the run was measured for the bundle."""
    for name in ("student-small", "mine"):
        make_run(tmp_path / name, blobs, 1)
    monkeypatch.chdir(tmp_path)
    run = describe_mean(["student-small", "mine"], (), [blobs])
    assert run.command.startswith("fer-train average student-small runs/mine")
    assert open_predictor(Path("student-small")).name.startswith("bundle student-small, int8")
    assert "the folder here is ./student-small" in caplog.text
    run = describe_mean(["./student-small", "mine"], (), [blobs])
    assert run.command.startswith("fer-train average runs/student-small runs/mine")
    assert open_predictor(network_path("./student-small")).name.endswith("student-small, Keras float32")


def test_batch_norms_are_measured_on_unchanged_training_faces(blobs: Path, tmp_path: Path) -> None:
    one, out = make_run(tmp_path / "one", blobs, 1), tmp_path / "again"
    run, _ = average_networks([str(one)], (), (blobs,), out)
    for before, after in zip(weights_of(one), weights_of(out), strict=True):
        np.testing.assert_array_equal(after, before)
    model = run.model(out)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    seen = keras.Model(model.input, [norm.input for norm in norms])
    faces = normalize(read_splits(blobs).training.pixels)[..., np.newaxis]
    for norm, inputs in zip(norms, seen(faces), strict=True):
        _, _, mean, variance = norm.get_weights()
        np.testing.assert_allclose(mean, inputs.numpy().mean((0, 1, 2)), rtol=0.02, atol=2e-3)
        np.testing.assert_allclose(variance, inputs.numpy().var((0, 1, 2)), rtol=0.05, atol=2e-3)


def test_networks_that_cannot_be_averaged_are_refused(blobs: Path, tmp_path: Path) -> None:
    one, two = (str(make_run(tmp_path / name, blobs, 1)) for name in ("one", "two"))
    other = str(make_run(tmp_path / "other", blobs, 1, "student-quarter"))
    elsewhere = str(make_run(tmp_path / "elsewhere", blobs, 1))
    dataclasses.replace(Run.load(Path(elsewhere)), training_sha256="0" * 64).save(Path(elsewhere))
    out = tmp_path / "mean"
    for members, shares, reason in (
        ([one, other], (), "weights of student-quarter cannot be averaged with those of student-small"),
        ([one, str(tmp_path)], (), "not a training run"),
        (["nowhere"], (), "nowhere: neither a run folder nor a bundle"),
        ([one, "nowhere"], (), "nowhere: neither a run folder nor a bundle"),
        (["student", "student-small"], (), "give at least one run folder"),
        ([one, two], (0.5,), "1 shares for 2 networks"),
        ([one, two], (0.5, 0.6), "add up to 1, not to 1.1"),
        ([one, two], (float("nan"), 1.0), "add up to 1, not to nan"),
        ([one, two], (-0.5, 1.5), "-0.5 is less than 0"),
        ([one, elsewhere], (), "elsewhere was trained on other faces than"),
    ):
        with pytest.raises(UsageError, match=reason):
            average_networks(members, shares, (blobs,), out)
        assert not out.exists()
    with pytest.raises(UsageError, match="exists"):
        average_networks([one, two], (), (blobs,), tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="no folder can be made there"):
        average_networks([one, two], (), (blobs,), tmp_path / "file" / "mean")


def test_a_run_that_was_interrupted_is_refused(blobs: Path, tmp_path: Path) -> None:
    """Its mean passed for a finished run, so `fer-export bundle` took what it refuses of the run itself."""
    run = make_run(tmp_path / "run", blobs, 1)
    (run / HISTORY).write_text(json.dumps(dataclasses.asdict(Epoch(0, 1.0, 0.5, 0.5, 1e-3, 100.0, 0.0))) + "\n")
    with pytest.raises(UsageError, match=r"the run is not finished. Continue it: seed 1 --out .*run"):
        average_networks([str(run)], (), (blobs,), tmp_path / "mean")
