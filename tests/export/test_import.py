"""From a network that Keras saved to a bundle that the device opens, in this process: TensorFlow starts once."""

import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("tensorflow_model_optimization", reason="the export extra is not installed")
pytestmark = pytest.mark.slow

import h5py  # noqa: E402
import keras  # noqa: E402
import tensorflow as tf  # noqa: E402
import tf_keras  # noqa: E402

from edge.evaluation.accuracy import measure_accuracy  # noqa: E402
from edge.evaluation.fer2013 import read_faces  # noqa: E402
from edge.labels import FER2013_LABELS  # noqa: E402
from edge.model.bundle import find_bundle, open_bundle  # noqa: E402
from edge.model.classifier import Classifier  # noqa: E402
from edge.model.verification import check_golden  # noqa: E402
from export.cli import main  # noqa: E402
from tests.docs.pages import commands  # noqa: E402
from tests.export.importing.brightness import SHADES, network  # noqa: E402
from tests.export.tiny import as_compiled, tiny  # noqa: E402

LABELS = ",".join(FER2013_LABELS)
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning")]


def as_keras(path: Path) -> Path:
    network(keras).save(path / "mine.keras")
    return path / "mine.keras"


def as_legacy_h5(path: Path) -> Path:
    network(tf_keras, 64, 3, mean=127.5, deviation=127.5, end="logits").save(path / "mine.h5")
    return (path / "mine.h5").rename(path / "mine.hdf5")


def as_mixed_keras(path: Path) -> Path:
    with mixed_precision(keras.config.set_dtype_policy):
        return as_keras(path)


def as_mixed_legacy_h5(path: Path) -> Path:
    with mixed_precision(tf_keras.mixed_precision.set_global_policy):
        return as_legacy_h5(path)


@contextmanager
def mixed_precision(set_policy: Callable[[str], object]) -> Iterator[None]:
    """As a network is made for training on a GPU."""
    set_policy("mixed_float16")
    try:
        yield
    finally:
        set_policy("float32")


def as_saved_model(path: Path) -> Path:
    network(keras, 96, deviation=1).export(path / "saved", verbose=False)
    return path / "saved"


def as_float_tflite(path: Path) -> Path:
    (path / "float.tflite").write_bytes(tf.lite.TFLiteConverter.from_keras_model(network(tf_keras)).convert())
    return path / "float.tflite"


def as_int8_tflite(path: Path) -> Path:
    """As most people make it: int8 inside, float32 at both ends."""
    converter = tf.lite.TFLiteConverter.from_keras_model(network(tf_keras))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([np.full((1, 48, 48, 1), n / 50, np.float32)] for n in range(51))
    (path / "int8.tflite").write_bytes(converter.convert())
    return path / "int8.tflite"


def import_(model: Path, data: Path, *more: str, labels: str = LABELS) -> tuple[int, Path]:
    out = model.parent / "bundle"
    return main(["import", str(model), "--labels", labels, "--data", str(data), "--out", str(out), *more]), out


@pytest.mark.parametrize(
    ("save", "kind", "scaling", "activation"),
    [
        (as_keras, r"Keras 3\S* \.keras", "zero-one", "SOFTMAX"),
        (as_legacy_h5, r"Keras 2\S* HDF5", "minus-one-one", ""),
        (as_mixed_keras, r"Keras 3\S* \.keras", "zero-one", "SOFTMAX"),
        (as_mixed_legacy_h5, r"Keras 2\S* HDF5", "minus-one-one", ""),
        (as_saved_model, r"SavedModel of TensorFlow 2\S*", "raw", "SOFTMAX"),
        (as_float_tflite, "TFLite", "zero-one", "SOFTMAX"),
        (as_int8_tflite, "TFLite", "zero-one", "SOFTMAX"),
    ],
)
def test_what_keras_saved_becomes_a_bundle_that_classifies_as_it_did(
    save: Callable[[Path], Path], kind: str, scaling: str, activation: str, blobs: Path, tmp_path: Path
) -> None:
    code, out = import_(save(tmp_path), blobs)
    assert code == 0
    bundle = open_bundle(out)
    classifier, imported = Classifier(bundle), bundle.card.origin.imported
    assert imported
    assert re.fullmatch(kind, imported.kind)
    assert (imported.scaling, imported.activation) == (scaling, activation)
    assert f"{scaling} 100.0%" in imported.scaling_chosen
    assert measure_accuracy(classifier, read_faces(blobs, "PublicTest")).figures.accuracy == 1
    assert bundle.card.figures.accuracy == bundle.card.origin.float_figures.accuracy == 1
    assert check_golden(classifier, bundle.golden).largest_lsb == 0
    network, data = bundle.card.origin.sources
    assert (network.role, network.name, network.sha256) == ("start", imported.file, imported.sha256)
    assert (network.licence, data.role) == (None, "data")
    assert "<h2>Do all forms agree?</h2>" in (out / "report.html").read_text()


def test_other_labels_come_from_folders_of_these_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("dark", "dim", "bright")
    pictures(tmp_path / "data", names, SHADES[[0, 2, 4]])
    pictures(tmp_path / "data", ("fear",), SHADES[:1])
    network(keras, shades=SHADES[[0, 2, 4]]).save(tmp_path / "three.keras")
    code, out = import_(tmp_path / "three.keras", tmp_path / "data", "--json", labels="Dark, dim,bright")
    assert code == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["labels"] == list(names)
    assert printed["figures"]["int8"] == {"split": "test", "n": 45, "accuracy": 1, "macro_f1": 1}
    assert printed["source"]["scaling"] == "zero-one"
    assert printed["warnings"] == [
        f"left out of {split}, since --labels lacks it: 15 fear" for split in ("test", "Training")
    ]
    assert printed["edge_tpu"]["mapped_ops"] > 5
    assert Classifier(open_bundle(out)).classify(np.full((48, 48), 85, np.uint8)).label == "dim"


def test_labels_in_another_order_and_wrong_pixels_are_told_by_the_data(
    blobs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = as_keras(tmp_path)
    assert import_(model, blobs, labels=",".join(sorted(FER2013_LABELS)))[0] == 2
    assert f"Give --labels {LABELS}\n" in capsys.readouterr().err
    assert import_(model, blobs, "--input", "raw")[0] == 2
    assert "no better than chance" in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("split", ["PublicTest", "Training"])
def test_a_split_with_one_face_is_refused_before_the_work(
    split: str, blobs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """numpy warned of empty slices, and the accuracy of one face got onto the card."""
    head, *rows = blobs.read_text().splitlines(keepends=True)
    ours = [row for row in rows if row.endswith(f"{split}\n")]
    few = tmp_path / "few.csv"
    few.write_text("".join([head, ours[0], *(row for row in rows if row not in ours)]))
    code, out = import_(as_keras(tmp_path), few)
    assert code == 7
    assert f"{split} has too few faces" in capfd.readouterr().err
    assert not out.exists()


def test_the_commands_of_the_page_work_as_written(blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/import.md, in a folder with the files that it names."""
    shutil.copy(blobs, tmp_path / "fer2013.csv")
    as_keras(tmp_path)
    network(tf_keras, shades=SHADES[:3]).save(tmp_path / "three.h5")
    pictures(tmp_path / "faces", ("happy", "neutral", "contempt"), SHADES[:3])
    monkeypatch.chdir(tmp_path)
    written = [command for command in commands() if command.startswith("fer-export import ")]
    assert [main(shlex.split(command)[1:]) for command in written] == [0, 0]


def pictures(folder: Path, names: Sequence[str], shades: np.ndarray) -> None:
    """A tree with train and test, and one shade of noise for each name."""
    rng = np.random.default_rng(5)
    for number in range(30 * len(names)):
        index = number % len(names)
        file = folder / ("train", "test")[number % 2] / names[index] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), np.clip(rng.normal(shades[index], 10, (48, 48)), 0, 255).astype(np.uint8))


def with_python_code(folder: Path) -> Path:
    """An HDF5 file whose code the legacy Keras runs when it loads it, safe mode or not."""
    mark, file = folder / "code ran", folder / "lambda.h5"
    text = str(mark)
    face = tf_keras.Input((48, 48, 1))
    x = tf_keras.layers.Lambda(lambda x: (__import__("pathlib").Path(text).touch(), x)[1], name="trap")(face)
    tf_keras.Model(face, tf_keras.layers.Dense(7)(tf_keras.layers.Flatten()(x))).save(file)
    mark.unlink()
    tf_keras.models.load_model(file, compile=False, safe_mode=True)
    assert mark.exists()
    mark.unlink()
    return file


def weights_only(folder: Path) -> Path:
    network(tf_keras).save_weights(folder / "only.weights.h5")
    return folder / "only.weights.h5"


def unknown_config(folder: Path) -> Path:
    network(tf_keras).save(folder / "old.h5")
    with h5py.File(folder / "old.h5", "a") as stored:
        stored.attrs["model_config"] = stored.attrs["model_config"].replace('"units": 7', '"units": 7, "odd": 1')
    return folder / "old.h5"


def two_inputs(folder: Path) -> Path:
    faces = [keras.Input((48, 48, 1), name=name) for name in ("left", "right")]
    x = keras.layers.Flatten()(keras.layers.Add()(faces))
    keras.Model(faces, keras.layers.Dense(7)(x)).save(folder / "two.keras")
    return folder / "two.keras"


def with_elu(folder: Path) -> Path:
    network(keras, activation="elu").save(folder / "elu.keras")
    return folder / "elu.keras"


def with_erf(folder: Path) -> Path:
    network(keras, activation=keras.ops.erf).export(folder / "erf", verbose=False)
    return folder / "erf"


def in_float16(folder: Path) -> Path:
    with mixed_precision(keras.config.set_dtype_policy):
        network(keras).export(folder / "mixed", verbose=False)
    return folder / "mixed"


def dynamic_range(folder: Path) -> Path:
    face = tf_keras.Input((48, 48, 1))
    model = tf_keras.Model(face, tf_keras.layers.Dense(7)(tf_keras.layers.Flatten()(face)))
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    (folder / "dynamic.tflite").write_bytes(converter.convert())
    return folder / "dynamic.tflite"


def compiled(folder: Path) -> Path:
    (folder / "compiled.tflite").write_bytes(as_compiled(tiny()))
    return folder / "compiled.tflite"


def file_of(name: str, content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return write


def folder_with(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "folder").mkdir()
        (folder / "folder" / name).touch()
        return folder / "folder"

    return make


@pytest.mark.parametrize(
    ("make", "code", "words"),
    [
        (with_python_code, 4, "layer trap (Lambda) holds Python code"),
        (weights_only, 4, "holds weights but no network"),
        (unknown_config, 4, "cannot rebuild this network of Keras 2."),
        (two_inputs, 4, "takes 2 inputs (left (?, 48, 48, 1), right (?, 48, 48, 1))"),
        (with_elu, 11, "use ReLU or ReLU6 instead"),
        (with_erf, 11, "tf.Erf("),
        (in_float16, 11, "Bring its Keras file, which is read in float32."),
        (dynamic_range, 4, "dynamic-range quantization"),
        (compiled, 4, "is compiled for the Edge TPU"),
        (lambda folder: folder / "absent.h5", 4, "cannot be read: No such file"),
        (file_of("notes.h5", b"no network at all"), 4, "its content is none of these"),
        (file_of("net.onnx", b"\x08\x07onnx etc"), 4, "PyTorch and ONNX files are not read"),
        (file_of("cut.h5", b"\x89HDF\r\n\x1a\n and no more"), 4, "a damaged HDF5 file"),
        (file_of("cut.keras", b"PK\x03\x04 and no more"), 4, "a damaged .keras file"),
        (file_of("cut.tflite", b"\x10\0\0\0TFL3 and no more"), 4, "a damaged TFLite file"),
        (folder_with("readme.txt"), 4, "no SavedModel: it has no saved_model.pb"),
        (folder_with("saved_model.pb"), 4, "TensorFlow cannot load this SavedModel"),
        (folder_with("run.json"), 4, "fer-export bundle"),
        (lambda _: find_bundle("student"), 4, "is a bundle already"),
    ],
)
def test_what_cannot_be_imported_is_refused_with_a_sentence(
    make: Callable[[Path], Path], code: int, words: str, blobs: Path, tmp_path: Path, capsys: Any
) -> None:
    model = make(tmp_path)
    out = tmp_path / "bundle"
    given = ["import", str(model), "--labels", LABELS, "--data", str(blobs), "--out", str(out)]
    assert main([*given, "--input", "zero-one"]) == code
    printed = capsys.readouterr()
    assert words in printed.err
    assert "Traceback" not in printed.err
    assert printed.out == ""
    assert not out.exists()
    assert not (tmp_path / "code ran").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--labels", "angry,happy"], "gives 7 scores, but --labels names 2"),
        (["--labels", "angry"], "there are 1 labels"),
        (["--labels", "angry,uncertain"], "reserved"),
        (["--input", "half"], "neither auto, zero-one"),
        (["--out", "my bundle"], "Use up to 64 letters"),
    ],
)
def test_wrong_arguments_are_refused_before_any_work(
    more: list[str], words: str, blobs: Path, tmp_path: Path, capsys: Any
) -> None:
    given = ["import", str(as_keras(tmp_path)), "--labels", LABELS, "--data", str(blobs)]
    assert main([*given, "--out", str(tmp_path / "bundle"), *more]) == 2
    assert words in capsys.readouterr().err
