"""Measured accuracy against the card's: what is accepted, and which faults of the data are named."""

import platform
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from edge.evaluation.acceptance import min_correct
from edge.evaluation.accuracy import judge_accuracy, measure_accuracy
from edge.evaluation.fer2013 import LabelledFaces
from edge.labels import FER2013_LABELS
from edge.model.bundle import Bundle, find_bundle, open_bundle
from edge.model.classifier import Classifier
from edge.records import Accuracy, Gray
from tests.edge.model.bundles import AFFECTNET, PERMUTED, relabelled_bundle


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return open_bundle(find_bundle("student-small"))


@pytest.fixture(scope="module")
def classifier(bundle: Bundle) -> Classifier:
    return Classifier(bundle)


@pytest.fixture(scope="module")
def blobs_and_predictions(classifier: Classifier) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Blobs of all sizes, for which either bundled network predicts several labels, and these predictions."""
    rng = np.random.default_rng(5)
    sides = [(2, 3, 4, 6, 8, 12, 16, 24)[number % 8] for number in range(400)]
    blobs = [np.kron(rng.uniform(0, 255, (side, side)), np.ones((48 // side,) * 2)) for side in sides]
    pixels = np.stack(blobs).astype(np.uint8)
    predictions = np.array([classifier.logits(face).argmax() for face in pixels])
    assert len(np.unique(predictions)) >= 4
    return pixels, predictions


def labelled(blobs_and_predictions: tuple[NDArray[np.uint8], NDArray[np.int64]], accuracy: float) -> LabelledFaces:
    """Labels for which the network has exactly this accuracy."""
    pixels, predictions = blobs_and_predictions
    labels = predictions.copy()
    wrong = round(len(labels) * (1 - accuracy))
    labels[:wrong] = (labels[:wrong] + 1) % len(FER2013_LABELS)
    return LabelledFaces(pixels, labels, None)


def judged(classifier: Classifier, faces: LabelledFaces) -> Accuracy:
    return judge_accuracy(classifier, faces, measure_accuracy(classifier, faces))


@pytest.mark.parametrize(("lost", "ok"), [(-0.2, True), (0.01, True), (0.05, True), (0.12, False), (0.5, False)])
def test_a_loss_on_other_faces_fails_only_when_chance_does_not_explain_it(
    classifier: Classifier,
    bundle: Bundle,
    blobs_and_predictions: tuple[NDArray[np.uint8], NDArray[np.int64]],
    lost: float,
    ok: bool,
) -> None:
    accuracy = bundle.card.figures.accuracy - lost
    found = judged(classifier, labelled(blobs_and_predictions, accuracy))
    assert (found.ok, found.same_faces) == (ok, False), found.sentence
    assert found.accuracy == pytest.approx(accuracy, abs=0.5 / found.n)
    assert found.sentence.startswith(f"{found.accuracy:.2%} ")
    assert "Fisher" in found.sentence
    assert "faces would show a loss of 5%" in found.sentence
    assert 0 < found.ms_p50 <= found.ms_p99


@pytest.mark.parametrize(("fewer", "ok"), [(0, True), (1, False)])
def test_the_fewest_correct_answers_that_chance_explains_are_accepted(
    classifier: Classifier,
    bundle: Bundle,
    blobs_and_predictions: tuple[NDArray[np.uint8], NDArray[np.int64]],
    fewer: int,
    *,
    ok: bool,
) -> None:
    stated = bundle.card.figures
    least = min_correct(400, round(stated.accuracy * stated.n), stated.n)
    found = judged(classifier, labelled(blobs_and_predictions, (least - fewer) / 400))
    assert (found.n, found.ok) == (400, ok)


def test_a_small_loss_on_the_cards_own_faces_fails(
    bundle: Bundle, blobs_and_predictions: tuple[NDArray[np.uint8], NDArray[np.int64]]
) -> None:
    faces = labelled(blobs_and_predictions, 0.66)

    def classifier_stating(accuracy: float) -> Classifier:
        figures = msgspec.structs.replace(bundle.card.figures, accuracy=accuracy, n=len(faces))
        origin = msgspec.structs.replace(bundle.card.origin, public_sha256=faces.sha256())
        return Classifier(replace(bundle, card=msgspec.structs.replace(bundle.card, figures=figures, origin=origin)))

    assert judged(classifier_stating(0.66), faces).ok
    worse = judged(classifier_stating(0.6725), faces)  # five faces of 400: too few to be significant on other faces
    assert not worse.ok
    assert "the card's own faces" in worse.sentence


class AlwaysTpu:
    """An Edge TPU that always works, and leaves each face to the CPU."""

    working = True
    degraded = None

    def poll(self) -> None: ...

    def wait(self) -> None: ...

    def logits(self, _face: Gray) -> None: ...


def test_an_edge_tpu_may_lose_as_much_on_the_cards_own_faces_as_another_runtime(
    bundle: Bundle, blobs_and_predictions: tuple[NDArray[np.uint8], NDArray[np.int64]]
) -> None:
    faces = labelled(blobs_and_predictions, 0.66)
    card = msgspec.structs.replace(
        bundle.card,
        figures=msgspec.structs.replace(bundle.card.figures, accuracy=0.6625, n=len(faces)),
        origin=msgspec.structs.replace(bundle.card.origin, public_sha256=faces.sha256()),
        golden_runtime=Classifier(bundle).runtime,
        golden_machine=platform.machine(),
    )
    stating = replace(bundle, card=card)
    assert not judged(Classifier(stating), faces).ok, "one face of 400"
    found = judged(Classifier(stating, accelerator=AlwaysTpu()), faces)
    assert found.ok, found.sentence
    assert "rounding in an Edge TPU explains up to" in found.sentence


def test_swapped_labels_of_the_data_are_detected_and_named(
    classifier: Classifier, blobs_and_predictions: tuple[NDArray[np.uint8], NDArray[np.int64]]
) -> None:
    pixels, predictions = blobs_and_predictions
    first, second = (int(label) for label in np.argsort(np.bincount(predictions, minlength=7))[-2:])
    labels = np.where(predictions == first, second, np.where(predictions == second, first, predictions))
    found = judged(classifier, LabelledFaces(pixels, labels, None))
    assert not found.ok
    assert "look swapped" in found.sentence
    assert FER2013_LABELS[first] in found.sentence


def test_other_classes_than_the_cards_are_named(tmp_path: Path) -> None:
    """A card that lacks classes of the data, and data that lack a class of the card."""
    classifier = Classifier(open_bundle(relabelled_bundle(tmp_path, "eight", AFFECTNET)))
    labels = classifier.card.labels
    rng = np.random.default_rng(5)
    faces = rng.integers(0, 256, (len(labels) - 1, 48, 48)).astype(np.uint8)
    shown = np.array([index for index, label in enumerate(labels) if label != "contempt"], np.int64)
    found = judged(classifier, LabelledFaces(faces, shown, None, None, labels, {"bored": 3}))
    assert "faces of classes that the card has not are left out: 3 bored" in found.sentence
    assert "no face is labelled contempt" in found.sentence
    assert found.recalls.keys() == {*labels} - {"contempt"}
    with pytest.raises(ValueError, match="the faces are labelled"):
        measure_accuracy(classifier, LabelledFaces(faces, shown, None))


def test_a_card_in_another_order_is_measured_alike(
    tmp_path: Path, classifier: Classifier, blobs_and_predictions: tuple[NDArray[np.uint8], NDArray[np.int64]]
) -> None:
    permuted = Classifier(open_bundle(relabelled_bundle(tmp_path, "permuted", PERMUTED)))
    everything = labelled(blobs_and_predictions, 0.7)
    leads = np.array([np.diff(np.sort(classifier.logits(face))[-2:])[0] for face in everything.pixels])
    faces = everything.select(leads > 0)  # of two equal logits the first one wins
    names = permuted.card.labels
    translated = np.array([names.index(FER2013_LABELS[label]) for label in faces.labels], np.int64)
    expected, found = judged(classifier, faces), judged(permuted, replace(faces, labels=translated, names=names))
    assert (found.accuracy, found.recalls) == (expected.accuracy, expected.recalls)
    assert list(found.recalls) == [label for label in names if label in expected.recalls]


def test_limited_range_pictures_of_a_data_set_are_detected(
    classifier: Classifier, blobs_and_predictions: tuple[NDArray[np.uint8], NDArray[np.int64]]
) -> None:
    pixels, predictions = blobs_and_predictions
    limited = (16 + pixels.astype(float) * 219 / 255).round().astype(np.uint8)
    found = judged(classifier, LabelledFaces(limited, predictions, None))
    assert not found.ok
    assert "limited-range luma" in found.sentence
    assert judged(classifier, LabelledFaces(limited[:20], predictions[:20], None)).ok, "a few pictures may be pale"
