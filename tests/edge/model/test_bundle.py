import json
import platform
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.cli.arguments import network_path
from edge.errors import BundleError
from edge.labels import FER2013_LABELS
from edge.model.bundle import find_bundle, open_bundle
from edge.model.classifier import Classifier
from edge.model.preprocessing import encode
from edge.settings import ModelSettings
from tests.edge.model.bundles import AFFECTNET, BUNDLED, PERMUTED, TWO, add_tensor, relabelled_bundle, rewired_bundle

BUNDLES = sorted(find_bundle(ModelSettings().bundle).parent.iterdir())


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(find_bundle(ModelSettings().bundle), tmp_path / "copy"))


def change_card(folder: Path, **changes: object) -> None:
    file = folder / "card.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize("folder", BUNDLES, ids=lambda folder: folder.name)
def test_shipped_bundles_give_their_golden_outputs(folder: Path) -> None:
    """Exact on the runtime and machine that made them; elsewhere within the tolerance of the card."""
    bundle = open_bundle(folder)
    classifier = Classifier(bundle)
    outputs = np.stack([classifier.logits(face) for face in bundle.golden.faces])
    tolerance = bundle.card.allowed_lsb(classifier.runtime, platform.machine())
    assert np.abs(outputs.astype(int) - bundle.golden.outputs).max() <= tolerance
    assert bundle.golden.labels == FER2013_LABELS
    assert len(np.unique(bundle.golden.outputs, axis=0)) > 8  # equal outputs for all inputs would prove little


@pytest.mark.parametrize("folder", BUNDLES, ids=lambda folder: folder.name)
def test_shipped_bundles_encode_as_pixel_minus_128_and_fit(folder: Path) -> None:
    bundle = open_bundle(folder)
    every_pixel = np.resize(np.arange(256, dtype=np.uint8), (48, 48))
    encoded = encode(every_pixel, bundle.card.input.scale, bundle.card.input.zero_point)
    assert np.array_equal(encoded[0, :, :, 0].astype(int), every_pixel.astype(int) - 128)
    assert len(bundle.model) <= (4_000_000 if folder.name == "student" else 1_600_000)


def test_a_flipped_byte_is_detected(copy: Path) -> None:
    model = bytearray((copy / "model.tflite").read_bytes())
    model[len(model) // 2] ^= 1
    (copy / "model.tflite").write_bytes(model)
    with pytest.raises(BundleError, match="sha256"):
        open_bundle(copy)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"labels": sorted(FER2013_LABELS)},
            r"golden\.npz: its labels are angry, .*, the card's angry",
        ),
        ({"labels": ["happy"]}, r"card\.json: there are 1 labels, and 2 to 16 are possible"),
        ({"labels": [f"face-{number}" for number in range(17)]}, "there are 17 labels"),
        ({"labels": ["happy", "sad", "happy"]}, "the label 'happy' is there twice"),
        ({"labels": ["happy", "nobody"]}, "'nobody' is no label: this word is reserved"),
        ({"labels": ["happy", "Sad"]}, "'Sad' is no label: use up to 32 of a-z"),
        ({"labels": ["happy", "sad\n"]}, "is no label"),
        ({"labels": ["happy", "0"]}, "'0' is no label.* begin with a letter"),
        ({"labels": ["happy", "s" * 33]}, "is no label: use up to 32"),
        ({"labels": ["happy", ""]}, "is no label"),
        ({"input_shape": [1, 64, 64, 1]}, "its input is"),
        ({"schema_version": 3}, "a card of version 3, and this fer-edge reads 4 or 5: make the bundle again"),
        ({"schema_version": 6}, "a card of version 6, and this fer-edge reads 4 or 5: upgrade fer-edge"),
        ({"schema_version": "5"}, "not a card of version 4 or 5"),
        ({"temperature": "hot"}, "temperature"),
        ({"events": {"smoothing": 0, "dwell": 0.2, "hysteresis": 0.1}}, r"> 0.0 - at `\$\.events\.smoothing`"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_the_error_says_what_differs_from_the_card(copy: Path, change: dict[str, object], words: str) -> None:
    change_card(copy, **change)
    with pytest.raises(BundleError, match=words):
        open_bundle(copy)


def test_a_card_of_version_4_is_still_read(copy: Path) -> None:
    origin = json.loads((copy / "card.json").read_text())["origin"]
    del origin["sources"]
    change_card(copy, schema_version=4, origin=origin | {"init": "random", "teachers": ["x"], "training_data": "faces"})
    bundle = open_bundle(copy)
    assert (bundle.card.origin.init, bundle.card.origin.sources) == ("random", ())


@pytest.mark.parametrize("outputs", [PERMUTED, TWO, AFFECTNET], ids="-".join)
def test_the_card_names_the_outputs(tmp_path: Path, outputs: dict[str, int]) -> None:
    bundle = open_bundle(relabelled_bundle(tmp_path, "other", outputs))
    told = Classifier(bundle).classify(bundle.golden.faces[3])
    assert tuple(told.scores) == tuple(outputs)
    assert told.label == max(told.scores, key=lambda label: told.scores[label])


def test_a_bundle_with_its_labels_in_another_order_says_the_same(tmp_path: Path) -> None:
    plain, permuted = open_bundle(BUNDLED), open_bundle(relabelled_bundle(tmp_path, "permuted", PERMUTED))
    assert sorted(permuted.card.labels) == sorted(plain.card.labels)
    classifiers = (Classifier(plain), Classifier(permuted))
    for face in plain.golden.faces:
        expected, told = (classifier.classify(face) for classifier in classifiers)
        assert told.scores == expected.scores
        assert told.scores[told.label] == expected.confidence, "the same label, or one of two that are equally likely"


def test_a_network_with_another_number_of_logits_than_labels_is_rejected(tmp_path: Path) -> None:
    folder = relabelled_bundle(tmp_path, "two", TWO)
    other = open_bundle(relabelled_bundle(tmp_path, "eight", AFFECTNET))
    with pytest.raises(BundleError, match="the network gives 2 logits, and the card has 8 labels"):
        Classifier(replace(other, model=open_bundle(folder).model))


def two_inputs(graph: Any) -> None:
    graph.inputs = [*graph.inputs, add_tensor(graph, 1)]


def two_outputs(graph: Any) -> None:
    graph.outputs = [*graph.outputs, *graph.inputs]


def no_output(graph: Any) -> None:
    graph.outputs = []


def a_number(graph: Any) -> None:
    graph.outputs = [add_tensor(graph)]


@pytest.mark.parametrize(
    ("rewire", "words"),
    [
        (two_inputs, "the network has 2 inputs, expected 1"),
        (two_outputs, "the network has 2 outputs, expected 1"),
        (no_output, "the network has 0 outputs, expected 1"),
        (a_number, r"the network's output is int8 \(\), expected int8 \(1, 2 to 16\)"),
    ],
)
def test_a_network_that_does_not_map_one_face_to_logits_is_rejected(
    tmp_path: Path, rewire: Callable[[Any], None], words: str
) -> None:
    with pytest.raises(BundleError, match=words):
        Classifier(open_bundle(rewired_bundle(tmp_path, "rewired", rewire)))


def test_training_takes_only_bundles_with_the_labels_of_fer2013(tmp_path: Path) -> None:
    folder = relabelled_bundle(tmp_path, "permuted", PERMUTED)
    with pytest.raises(BundleError, match=r"its labels are surprise, sad, .*; needed are angry, disgust"):
        open_bundle(folder, FER2013_LABELS)


def test_a_network_with_another_quantization_than_the_cards_is_rejected(copy: Path) -> None:
    change_card(copy, input={"scale": 1 / 255, "zero_point": -128})
    with pytest.raises(BundleError, match="zero point 0, the card says"):
        Classifier(open_bundle(copy))


@pytest.mark.parametrize("damage", [lambda file: file.write_bytes(b""), lambda file: file.unlink()])
@pytest.mark.parametrize("name", ["model.tflite", "card.json", "golden.npz"])
def test_an_empty_or_missing_file_is_named(copy: Path, name: str, damage: Callable[[Path], None]) -> None:
    damage(copy / name)
    with pytest.raises(BundleError, match=name.split(".", maxsplit=1)[0]):
        open_bundle(copy)


def test_golden_outputs_with_swapped_labels_are_rejected(copy: Path) -> None:
    with np.load(copy / "golden.npz") as stored:
        parts = dict(stored)
    parts["labels"] = np.array(sorted(FER2013_LABELS))
    np.savez(copy / "golden.npz", **parts)
    with pytest.raises(BundleError, match=r"golden\.npz: its labels"):
        open_bundle(copy)


def test_a_path_is_a_folder_and_a_name_alone_a_bundled_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """``./student`` used to be the bundled one, so a user's own network was not the one that was measured."""
    shutil.copytree(find_bundle("student-small"), tmp_path / "student")
    monkeypatch.chdir(tmp_path)
    for path in ("./student", "student/", str(tmp_path / "student")):
        assert find_bundle(path).resolve() == tmp_path / "student"
    assert caplog.text == ""
    assert find_bundle("student").parent == BUNDLED.parent
    assert "the folder here is ./student" in caplog.text
    for text in ("./student", "student/"):
        assert find_bundle(str(network_path(text))) == tmp_path / "student"
    assert network_path("student") == Path("student")
    assert network_path("models/student") == Path("models/student")


def test_the_error_for_an_unknown_bundle_names_the_bundled_models() -> None:
    with pytest.raises(BundleError, match="student-small"):
        find_bundle("paper-cnn")
