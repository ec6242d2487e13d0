"""From a small run to a bundle that the device opens, by the real commands."""

import json
import os
import resource
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("tensorflow_model_optimization", reason="the export extra is not installed")
pytestmark = pytest.mark.slow

import tf_keras as keras  # noqa: E402

from edge.errors import UsageError  # noqa: E402
from edge.evaluation.accuracy import measure_accuracy  # noqa: E402
from edge.evaluation.fer2013 import Split, read_faces  # noqa: E402
from edge.labels import FER2013_LABELS  # noqa: E402
from edge.model.bundle import open_bundle  # noqa: E402
from edge.model.classifier import Classifier  # noqa: E402
from edge.model.preprocessing import CROP_MARGIN, encode  # noqa: E402
from export.build.measured import POST_TRAINING  # noqa: E402
from export.build.writing import write_bundle  # noqa: E402
from export.golden import golden_faces  # noqa: E402
from export.quantization.convert import check_int8  # noqa: E402
from export.quantization.errors import ConversionError  # noqa: E402
from export.tflite_graph import read_graph  # noqa: E402
from tests.conftest import ROOT  # noqa: E402
from tests.programs import fer_export, fer_train  # noqa: E402
from train.checkpoints import read_history  # noqa: E402
from train.models.registry import MODELS  # noqa: E402
from train.run import Run  # noqa: E402

CONTRACT = ROOT / "tests" / "golden" / "contract.npz"


def train(network: str, data: Path, folder: Path) -> Path:
    recipe = ["--set", "votes=0", "--set", "teachers=", "--set", "epochs=4", "--set", "batch=8", "--set", "ema=0.5"]
    done = fer_train("run", network, "--data", data, "--out", folder, *recipe)
    assert done.returncode == 0, done.stderr
    return folder


def export(run: Path, data: Path, out: Path) -> Path:
    done = fer_export("bundle", run, "--data", data, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "int8" in done.stdout
    return out


@pytest.fixture(scope="module")
def bundle(blobs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a student: the fewest filters, and all of its layers."""
    folder = tmp_path_factory.mktemp("student")
    return export(train("student-quarter", blobs, folder / "run"), blobs, folder / "quarter")


@pytest.fixture(scope="module")
def run(blobs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the network that is made into a bundle in the shortest time."""
    return train("shallow", blobs, tmp_path_factory.mktemp("runs") / "shallow")


def test_the_bundle_opens_and_gives_its_goldens_and_its_accuracy(bundle: Path, blobs: Path) -> None:
    opened = open_bundle(bundle)
    classifier = Classifier(opened)
    outputs = np.stack([classifier.logits(face) for face in opened.golden.faces])
    assert np.array_equal(outputs, opened.golden.outputs)
    figures = measure_accuracy(classifier, read_faces(blobs, "PublicTest")).figures
    assert figures.accuracy == pytest.approx(opened.card.figures.accuracy, abs=1e-4)
    card = opened.card
    assert card.origin.training_sha256 == read_faces(blobs, "Training").sha256()
    assert card.origin.quantization in card.origin.quantization_figures
    assert len(card.origin.quantization_figures) == 2
    assert card.origin.chosen == "epoch and quantization, both by PublicTest"
    assert card.figures.accuracy == max(figures.accuracy for figures in card.origin.quantization_figures.values())
    assert card.input.scale == pytest.approx(1 / 128, rel=1e-3)
    assert card.ops["CONV_2D"] == 14
    assert card.crop_margin == CROP_MARGIN
    assert (bundle / "labels.txt").read_text().split() == list(FER2013_LABELS)
    assert "<h2>Do all forms agree?</h2>" in (bundle / "report.html").read_text()


def test_the_same_run_gives_the_same_bytes_and_is_quantized_anew_with_other_weights(
    run: Path, blobs: Path, tmp_path: Path
) -> None:
    first = export(run, blobs, tmp_path / "first" / "bundle")
    trained = (run / "qat" / "history.jsonl").stat().st_mtime_ns
    again = export(run, blobs, tmp_path / "again" / "bundle")
    assert (run / "qat" / "history.jsonl").stat().st_mtime_ns == trained  # it is kept
    assert {file.name for file in first.iterdir()} >= {"model.tflite", "card.json"}
    for file in first.iterdir():
        assert (again / file.name).read_bytes() == file.read_bytes(), file.name

    changed = tmp_path / "changed"
    shutil.copytree(run, changed)
    model = Run.load(changed).model(changed)
    model.set_weights([weights * 0.9 for weights in model.get_weights()])
    model.save_weights(changed / "best.weights.h5")
    export(changed, blobs, tmp_path / "other")
    before, after = (read_history(folder / "qat") for folder in (run, changed))
    assert len(before) == len(after) == 2
    assert before[0].loss != after[0].loss


def test_a_run_that_is_not_finished_is_no_bundle(run: Path, blobs: Path, tmp_path: Path) -> None:
    begun = tmp_path / "run"
    shutil.copytree(run, begun, ignore=shutil.ignore_patterns("checkpoint", "qat", "tensorboard"))
    stored = json.loads((begun / "run.json").read_text())
    (begun / "run.json").write_text(json.dumps(stored | {"best": None}))
    done = fer_export("bundle", begun, "--data", blobs, "--out", tmp_path / "bundle")
    assert (done.returncode, "the run is not finished" in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "bundle").exists()


def test_a_run_that_was_measured_on_one_face_is_no_bundle(run: Path, blobs: Path, tmp_path: Path) -> None:
    lonely, begun = tmp_path / "lonely.csv", tmp_path / "run"
    lonely.write_text("".join(blobs.read_text().splitlines(keepends=True)[:114]))
    shutil.copytree(run, begun, ignore=shutil.ignore_patterns("checkpoint", "qat", "tensorboard"))
    stored = json.loads((begun / "run.json").read_text())
    stored["public_sha256"] = read_faces(lonely, "PublicTest").sha256()
    (begun / "run.json").write_text(json.dumps(stored))
    done = fer_export("bundle", begun, "--data", lonely, "--out", tmp_path / "bundle", "--post-training")
    assert (done.returncode, "PublicTest has too few faces" in done.stderr) == (7, True), done.stderr
    assert "RuntimeWarning" not in done.stderr
    assert not (tmp_path / "bundle").exists()


def test_every_tensor_of_the_file_is_an_integer(bundle: Path) -> None:
    file = (bundle / "model.tflite").read_bytes()
    check_int8(file)
    assert {tensor.dtype for tensor in read_graph(file, bundle).tensors} <= {"INT8", "INT32"}


def test_a_float_file_does_not_pass_the_gate() -> None:
    import tensorflow as tf  # noqa: PLC0415

    picture = keras.Input((48, 48, 1), batch_size=1)
    model = keras.Model(picture, keras.layers.Dense(7)(keras.layers.Flatten()(picture)))
    with pytest.raises(ConversionError, match="float32"):
        check_int8(tf.lite.TFLiteConverter.from_keras_model(model).convert())


def test_an_out_folder_in_use_and_other_data_are_refused(run: Path, bundle: Path, blobs: Path, tmp_path: Path) -> None:
    done = fer_export("bundle", run, "--data", blobs, "--out", bundle)
    assert (done.returncode, "not an empty folder" in done.stderr) == (2, True)
    other = tmp_path / "other.csv"
    other.write_text(blobs.read_text().replace("Training", "PublicTest", 1))
    done = fer_export("bundle", run, "--data", other, "--out", tmp_path / "new")
    assert (done.returncode, "not the data" in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "new").exists()


def test_a_folder_without_space_or_permission_is_refused_before_any_work(
    run: Path, blobs: Path, tmp_path: Path
) -> None:
    if os.getuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path]).returncode:  # noqa: PLW1510
        pytest.skip("mounting a small file system needs root")
    try:
        done = fer_export("bundle", run, "--data", blobs, "--out", tmp_path / "bundle")
        assert (done.returncode, "only 1.0 MB are free" in done.stderr) == (2, True), done.stderr
        subprocess.run(["mount", "-o", "remount,ro", tmp_path], check=True)
        done = fer_export("bundle", run, "--data", blobs, "--out", tmp_path / "bundle")
        assert (done.returncode, "Read-only file system" in done.stderr) == (2, True), done.stderr
        assert not list(tmp_path.iterdir())
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_disk_that_fills_half_way_leaves_nothing_behind(bundle: Path, tmp_path: Path) -> None:
    made = open_bundle(bundle)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))  # the kernel then fails writes, as a full disk does
    try:
        with pytest.raises(UsageError, match="Nothing is left half-written"):
            write_bundle(tmp_path / "bundle", made.model, made.card, made.golden, "report")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


def test_a_run_whose_weights_are_cut_short_or_of_another_model_is_refused(
    run: Path, blobs: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "run"
    shutil.copytree(run, broken, ignore=shutil.ignore_patterns("checkpoint", "qat", "tensorboard"))
    weights = broken / "best.weights.h5"
    weights.write_bytes(weights.read_bytes()[:-1000])
    done = fer_export("bundle", broken, "--data", blobs, "--out", tmp_path / "bundle")
    assert (done.returncode, "not the weights of shallow" in done.stderr) == (2, True), done.stderr
    MODELS["student-quarter"].build(0.0).save_weights(weights)
    done = fer_export("bundle", broken, "--data", blobs, "--out", tmp_path / "bundle")
    assert (done.returncode, "not the weights of shallow" in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "bundle").exists()


def test_a_run_on_a_tree_with_a_bad_picture_is_exported_from_the_same_tree(blobs: Path, tmp_path: Path) -> None:
    for split, folder in ((Split.TRAINING, "train"), (Split.PUBLIC, "test")):
        faces = read_faces(blobs, split)
        for number, (pixels, label) in enumerate(zip(faces.pixels, faces.labels, strict=True)):
            file = tmp_path / "tree" / folder / FER2013_LABELS[label] / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(file), pixels)
    (tmp_path / "tree" / "train" / "sad" / "bad.png").write_text("no picture")
    train = ["run", "shallow", "--data", tmp_path / "tree", "--out", tmp_path / "run"]
    recipe = ["--set", "votes=0", "--set", "teachers=", "--set", "epochs=1", "--set", "batch=16"]
    done = fer_train(*train, *recipe)
    assert (done.returncode, "train/sad/bad.png: not a readable picture" in done.stderr) == (7, True), done.stderr
    done = fer_train(*train, *recipe, "--skip-bad")
    assert (done.returncode, "1 bad row skipped" in done.stderr) == (0, True), done.stderr
    assert "chosen by test" in done.stdout
    bundle = ["bundle", tmp_path / "run", "--data", tmp_path / "tree", "--out", tmp_path / "bundle"]
    done = fer_export(*bundle, "--post-training")
    assert done.returncode == 0, done.stderr
    card = open_bundle(tmp_path / "bundle").card
    assert (card.figures.split, card.figures.n, card.origin.chosen) == ("test", 28, "epoch, by test")
    assert (card.origin.export_command.split()[-1], list(card.origin.quantization_figures)) == (
        "--post-training",
        [POST_TRAINING],
    )
    [training] = [source for source in card.origin.sources if source.role == "data"]
    assert training.sha256 == card.origin.training_sha256
    assert "without 1 bad row" in (training.source or "")
    assert " --skip-bad " in card.origin.train_command


def test_quantization_sees_the_same_tensors_as_the_device(bundle: Path) -> None:
    card = open_bundle(bundle).card
    with np.load(CONTRACT, allow_pickle=False) as golden:
        tensors = [encode(face, card.input.scale, card.input.zero_point) for face in golden["faces"]]
        assert np.array_equal(np.stack(tensors), golden["tensors"])


def test_golden_faces_are_always_the_same_and_span_the_range() -> None:
    faces = golden_faces()
    assert np.array_equal(faces, golden_faces())
    assert faces.shape == (16, 48, 48)
    assert faces.min() == 0
    assert faces.max() == 255
