"""Golden outputs: each deviation is caught by itself. Every face here is synthetic."""

import json
import platform
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from edge.errors import BundleError
from edge.model.bundle import Bundle, find_bundle, open_bundle
from edge.model.classifier import Classifier, Network
from edge.model.verification import (
    GoldenAgreement,
    check_golden,
    check_preparation,
    decode_jpeg,
    judge_golden,
    verify_golden,
)
from edge.records import Gray


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return open_bundle(find_bundle("student-small"))


@pytest.fixture(scope="module")
def classifier(bundle: Bundle) -> Classifier:
    return Classifier(bundle)


def test_a_sound_device_passes_without_any_data(classifier: Classifier, bundle: Bundle) -> None:
    found = verify_golden(classifier, bundle.golden)
    assert found.ok, found.sentence
    assert (found.n, found.top1) == (len(bundle.golden.faces), 1.0)


def test_limited_range_luma_is_detected(classifier: Classifier, bundle: Bundle) -> None:
    def limited(jpeg: bytes) -> Gray:
        return (16 + decode_jpeg(jpeg).astype(float) * 219 / 255).round().astype(np.uint8)

    found = judge_golden(classifier, GoldenAgreement(16, 0, 1.0), bundle.golden.scene, decoder=limited)
    assert not found.ok
    assert "luma has another range here" in found.sentence
    assert found.luma_levels == 20


@pytest.mark.parametrize("margin", [-0.05, 0.05, 0.2])
def test_another_margin_crops_other_pixels(bundle: Bundle, margin: float) -> None:
    scene = bundle.golden.scene
    assert check_preparation(scene, scene.margin) == (0, 0)
    luma, crops = check_preparation(scene, margin)
    assert (luma, crops > 10) == (0, True)


def test_a_card_with_a_wrong_margin_is_rejected(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(find_bundle("student-small"), tmp_path / "copy"))
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | {"crop_margin": 0.1}))
    with pytest.raises(BundleError, match=rf"margin of {card['crop_margin']:g}, the card says 0\.1"):
        open_bundle(folder)


def test_another_runtimes_rounding_passes_within_its_tolerance(classifier: Classifier, bundle: Bundle) -> None:
    scene = bundle.golden.scene
    [tolerance] = bundle.card.tolerances
    most = tolerance.largest_lsb
    assert judge_golden(classifier, GoldenAgreement(16, most, 0.94), scene, machine="aarch64").ok
    assert not judge_golden(classifier, GoldenAgreement(16, most + 1, 0.94), scene, machine="aarch64").ok
    assert not judge_golden(classifier, GoldenAgreement(16, 1, 1.0), scene, machine=bundle.card.golden_machine).ok


@pytest.mark.parametrize(("levels", "ok"), [(3, True), (4, False)])
def test_decoders_may_differ_by_three_grey_levels(
    classifier: Classifier, bundle: Bundle, levels: int, *, ok: bool
) -> None:
    luma = bundle.golden.scene.luma
    found = judge_golden(
        classifier,
        GoldenAgreement(16, 0, 1.0),
        bundle.golden.scene,
        decoder=lambda _: np.where(luma < 128, luma + levels, luma).astype(np.uint8),
    )
    assert (found.ok, found.luma_levels) == (ok, levels)


@pytest.mark.parametrize(
    "decoder", [lambda jpeg: decode_jpeg(jpeg)[:-1], lambda _: decode_jpeg(b"no picture")], ids=["another size", "none"]
)
def test_a_picture_that_is_not_decoded_fails(
    classifier: Classifier, bundle: Bundle, decoder: Callable[[bytes], Gray]
) -> None:
    found = judge_golden(classifier, GoldenAgreement(16, 0, 1.0), bundle.golden.scene, decoder=decoder)
    assert not found.ok
    assert found.luma_levels > 200


@pytest.mark.parametrize(("levels", "ok"), [(1, True), (2, False)])
def test_cropped_faces_may_differ_by_one_grey_level(
    classifier: Classifier, bundle: Bundle, levels: int, *, ok: bool
) -> None:
    crops = bundle.golden.scene.crops
    scene = replace(bundle.golden.scene, crops=np.where(crops < 128, crops + levels, crops).astype(np.uint8))
    found = judge_golden(classifier, GoldenAgreement(16, 0, 1.0), scene)
    assert (found.ok, found.crop_levels) == (ok, levels)
    assert ("cropped faces differ from those made with the model by up to 2 grey levels" in found.sentence) is not ok


def test_on_a_device_like_the_models_maker_no_rounding_explains_a_difference(bundle: Bundle) -> None:
    made_here = {"golden_runtime": Network(bundle.model, "").runtime, "golden_machine": platform.machine()}
    classifier = Classifier(replace(bundle, card=msgspec.structs.replace(bundle.card, **made_here)))
    assert judge_golden(classifier, GoldenAgreement(16, 1, 1.0), bundle.golden.scene).allowed_lsb == 0


class RoundingTpu:
    """An Edge TPU that rounds one logit of each face to the step below the CPU's; it always works."""

    working = True
    degraded = None

    def __init__(self, bundle: Bundle) -> None:
        self._network = Network(bundle.model, bundle.folder)

    def poll(self) -> None: ...

    def wait(self) -> None: ...

    def logits(self, face: Gray) -> NDArray[np.int8]:
        logits = self._network.logits(face).astype(int)
        logits[0] -= 1
        return logits.clip(-128, 127).astype(np.int8)


def test_an_edge_tpu_may_round_otherwise_also_on_a_device_like_the_models_maker(bundle: Bundle) -> None:
    card = msgspec.structs.replace(bundle.card, golden_runtime=Network(bundle.model, "").runtime)
    classifier = Classifier(replace(bundle, card=card), accelerator=RoundingTpu(bundle))
    most = max(tolerance.largest_lsb for tolerance in bundle.card.tolerances)
    agreement = check_golden(classifier, bundle.golden)
    assert agreement.largest_lsb == 1
    scene, machine = bundle.golden.scene, bundle.card.golden_machine
    found = judge_golden(classifier, agreement, scene, machine)
    assert (found.ok, found.allowed_lsb) == (True, most), found.sentence
    found = judge_golden(classifier, GoldenAgreement(16, most + 1, 1.0), scene, machine)
    assert f"rounding in an Edge TPU explains up to {most}" in found.sentence
    assert not found.ok


def test_a_network_with_swapped_labels_gives_other_outputs(classifier: Classifier, bundle: Bundle) -> None:
    swapped = replace(bundle.golden, outputs=bundle.golden.outputs[:, [3, 1, 2, 0, 4, 5, 6]])
    found = judge_golden(classifier, check_golden(classifier, swapped), swapped.scene, machine="aarch64")
    assert not found.ok


def test_the_scene_decodes_as_where_the_model_was_made(bundle: Bundle) -> None:
    scene = bundle.golden.scene
    assert np.abs(decode_jpeg(scene.jpeg).astype(int) - scene.luma).max() <= 3
