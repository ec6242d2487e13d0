"""What ``fer-edge verify`` catches, each thing by itself. Every face here is synthetic."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from edge.errors import BundleError
from edge.evaluation.fer2013 import LabelledFaces
from edge.model.bundle import Bundle, find_bundle, open_bundle
from edge.model.classifier import Classifier
from edge.model.preprocessing import LABELS
from edge.model.verification import (
    GoldenAgreement,
    check_golden,
    check_preparation,
    conclude,
    decode,
    judge,
    verify,
    verify_golden,
)
from edge.mqtt.messages import Accuracy
from edge.records import Gray
from tests.conftest import Broker, wait_until
from tests.edge.cli.test_main import fer_edge, lines
from tests.edge.listener import listening


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return open_bundle(find_bundle("student-small"))


@pytest.fixture(scope="module")
def classifier(bundle: Bundle) -> Classifier:
    return Classifier(bundle)


@pytest.fixture(scope="module")
def blobs_and_answers(classifier: Classifier) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Blobs of all sizes, on which either bundled network answers with several labels, and these answers."""
    rng = np.random.default_rng(5)
    sides = [(2, 3, 4, 6, 8, 12, 16, 24)[number % 8] for number in range(400)]
    blobs = [np.kron(rng.uniform(0, 255, (side, side)), np.ones((48 // side,) * 2)) for side in sides]
    pixels = np.stack(blobs).astype(np.uint8)
    answers = np.array([classifier.logits(face).argmax() for face in pixels])
    assert len(np.unique(answers)) >= 4
    return pixels, answers


def labelled(blobs_and_answers: tuple[NDArray[np.uint8], NDArray[np.int64]], accuracy: float) -> LabelledFaces:
    """Labels with which the network reaches just this accuracy."""
    pixels, answers = blobs_and_answers
    labels = answers.copy()
    wrong = round(len(labels) * (1 - accuracy))
    labels[:wrong] = (labels[:wrong] + 1) % len(LABELS)
    return LabelledFaces(pixels, labels, None)


def judged(classifier: Classifier, faces: LabelledFaces) -> Accuracy:
    return judge(classifier, faces, verify(classifier, faces))


def test_a_sound_device_passes_without_any_data(classifier: Classifier, bundle: Bundle) -> None:
    found = verify_golden(classifier, bundle.golden)
    assert found.ok, found.sentence
    assert found.n == len(bundle.golden.faces)


def test_limited_range_luma_is_caught(classifier: Classifier, bundle: Bundle) -> None:
    def limited(jpeg: bytes) -> Gray:
        return (16 + decode(jpeg).astype(float) * 219 / 255).round().astype(np.uint8)

    found = conclude(classifier, GoldenAgreement(16, 0, 1.0), bundle.golden.scene, decoding=limited)
    assert not found.ok
    assert "luma has another range here" in found.sentence
    assert found.luma_levels == 20


@pytest.mark.parametrize("margin", [-0.05, 0.05, 0.2])
def test_another_margin_cuts_out_other_pixels(bundle: Bundle, margin: float) -> None:
    scene = bundle.golden.scene
    assert check_preparation(scene, scene.margin) == (0, 0)
    luma, crops = check_preparation(scene, margin)
    assert (luma, crops > 10) == (0, True)


def test_a_card_with_a_wrong_margin_is_refused(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(find_bundle("student-small"), tmp_path / "copy"))
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | {"crop_margin": 0.1}))
    with pytest.raises(BundleError, match=rf"margin of {card['crop_margin']:g}, the card says 0\.1"):
        open_bundle(folder)


def flip_a_byte(folder: Path) -> None:
    model = bytearray((folder / "model.tflite").read_bytes())
    model[len(model) // 3] ^= 0x10
    (folder / "model.tflite").write_bytes(model)


def of_version_2(folder: Path) -> None:
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | {"schema_version": 2}))


def golden_without_a_scene(folder: Path) -> None:
    with np.load(folder / "golden.npz") as stored:
        np.savez(folder / "golden.npz", **{name: stored[name] for name in ("faces", "outputs", "labels")})


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (flip_a_byte, "sha256"),
        (of_version_2, "a card of version 2, and this fer-edge reads 4"),
        (golden_without_a_scene, "fer-export golden"),
    ],
)
def test_what_is_not_a_sound_bundle_ends_with_code_4(
    tmp_path: Path, damage: Callable[[Path], None], words: str
) -> None:
    folder = Path(shutil.copytree(find_bundle("student-small"), tmp_path / "copy"))
    damage(folder)
    (tmp_path / "config.toml").write_text(f'[model]\nbundle = "{folder}"\n')
    done = fer_edge("verify", "--config", tmp_path / "config.toml")
    assert (done.returncode, words in done.stderr) == (4, True), done.stderr


def test_outputs_of_another_network_end_with_code_23(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(find_bundle("student-small"), tmp_path / "copy"))
    with np.load(folder / "golden.npz") as stored:
        parts = dict(stored)
    parts["outputs"] = np.roll(parts["outputs"], 1, axis=1)
    np.savez(folder / "golden.npz", **parts)
    (tmp_path / "config.toml").write_text(f'[model]\nbundle = "{folder}"\n')
    done = fer_edge("verify", "--config", tmp_path / "config.toml", "--json")
    assert (done.returncode, "golden outputs differ by up to" in done.stderr) == (23, True), done.stderr
    assert not lines(done)[0]["golden"]["ok"]


def test_another_runtimes_rounding_passes_within_its_tolerance(classifier: Classifier, bundle: Bundle) -> None:
    scene = bundle.golden.scene
    [tolerance] = bundle.card.tolerances
    most = tolerance.largest_lsb
    assert conclude(classifier, GoldenAgreement(16, most, 0.94), scene, machine="aarch64").ok
    assert not conclude(classifier, GoldenAgreement(16, most + 1, 0.94), scene, machine="aarch64").ok
    assert not conclude(classifier, GoldenAgreement(16, 1, 1.0), scene, machine=bundle.card.golden_machine).ok


def test_a_network_with_swapped_labels_gives_other_outputs(classifier: Classifier, bundle: Bundle) -> None:
    swapped = replace(bundle.golden, outputs=bundle.golden.outputs[:, [3, 1, 2, 0, 4, 5, 6]])
    found = conclude(classifier, check_golden(classifier, swapped), swapped.scene, machine="aarch64")
    assert not found.ok


@pytest.mark.parametrize(("lost", "ok"), [(-0.2, True), (0.01, True), (0.05, True), (0.12, False), (0.5, False)])
def test_other_faces_fail_only_when_chance_does_not_explain_it(
    classifier: Classifier,
    bundle: Bundle,
    blobs_and_answers: tuple[NDArray[np.uint8], NDArray[np.int64]],
    lost: float,
    ok: bool,
) -> None:
    accuracy = bundle.card.figures.accuracy - lost
    found = judged(classifier, labelled(blobs_and_answers, accuracy))
    assert (found.ok, found.same_faces) == (ok, False), found.sentence
    assert found.accuracy == pytest.approx(accuracy, abs=0.5 / found.n)
    assert "Fisher" in found.sentence
    assert "faces would show a loss of 5%" in found.sentence


def test_the_cards_own_faces_are_held_to_it_tightly(
    bundle: Bundle, blobs_and_answers: tuple[NDArray[np.uint8], NDArray[np.int64]]
) -> None:
    faces = labelled(blobs_and_answers, 0.66)

    def promising(accuracy: float) -> Classifier:
        figures = msgspec.structs.replace(bundle.card.figures, accuracy=accuracy, n=len(faces))
        origin = msgspec.structs.replace(bundle.card.origin, public_sha256=faces.sha256())
        return Classifier(replace(bundle, card=msgspec.structs.replace(bundle.card, figures=figures, origin=origin)))

    assert judged(promising(0.66), faces).ok
    worse = judged(promising(0.6725), faces)  # five faces of 400, which other faces would never show
    assert not worse.ok
    assert "the card's own faces" in worse.sentence


def test_swapped_labels_of_the_data_are_caught_and_named(
    classifier: Classifier, blobs_and_answers: tuple[NDArray[np.uint8], NDArray[np.int64]]
) -> None:
    pixels, answers = blobs_and_answers
    first, second = (int(label) for label in np.argsort(np.bincount(answers, minlength=7))[-2:])
    labels = np.where(answers == first, second, np.where(answers == second, first, answers))
    found = judged(classifier, LabelledFaces(pixels, labels, None))
    assert not found.ok
    assert "look swapped" in found.sentence
    assert LABELS[first] in found.sentence


def test_limited_range_pictures_of_a_data_set_are_caught(
    classifier: Classifier, blobs_and_answers: tuple[NDArray[np.uint8], NDArray[np.int64]]
) -> None:
    pixels, answers = blobs_and_answers
    limited = (16 + pixels.astype(float) * 219 / 255).round().astype(np.uint8)
    found = judged(classifier, LabelledFaces(limited, answers, None))
    assert not found.ok
    assert "limited-range luma" in found.sentence
    assert judged(classifier, LabelledFaces(limited[:20], answers[:20], None)).ok, "a few pictures may be pale"


@pytest.mark.slow
def test_the_result_is_retained_at_the_broker(broker: Broker, tmp_path: Path, blobs: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'[mqtt]\nhost = "127.0.0.1"\nport = {broker.port}\ndevice = "kiosk"\n')
    done = fer_edge("verify", "--config", config, "--data", blobs, "--publish")
    assert (done.returncode, "is worse than the card's" in done.stderr) == (23, True), done.stderr
    with listening(broker.port) as late:
        wait_until(lambda: late.of("verification") and late.of("accuracy"), 5)
        [golden], [accuracy] = late.json("verification"), late.json("accuracy")
    assert (golden["ok"], accuracy["ok"], accuracy["n"]) == (True, False, 28)
    broker.stop()
    done = fer_edge("verify", "--config", config, "--publish")
    assert (done.returncode, "cannot be reached" in done.stderr) == (8, True), done.stderr
