"""Golden outputs: whether a bundle's network and its input pipeline give the same here as where the model was made.

This needs no labelled data. It checks the model file, the runtime, and the preparation of pictures.
"""

import platform
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.camera.devices import to_gray
from edge.model.bundle import Golden, GoldenScene
from edge.model.classifier import Classifier, Network
from edge.model.preprocessing import crop
from edge.records import Gray, Verification
from edge.system.clock import now

MAX_LUMA_DIFFERENCE: Final = 3
"""JPEG decoders differ by up to so many grey levels; limited-range luma is up to 20 off."""
MAX_CROP_DIFFERENCE: Final = 1
"""Resizing differs by up to so many grey levels between processors; another crop margin shows other pixels."""


@dataclass(frozen=True)
class GoldenAgreement:
    """How close this device's outputs are to the golden ones.

    ``largest_lsb`` is the largest difference of one int8 logit in quantization steps; ``top1`` the fraction of the
    ``n`` inputs whose likeliest expression is the same.
    """

    n: int
    largest_lsb: int
    top1: float


def decode_jpeg(jpeg: bytes) -> Gray:
    """Decode a JPEG to full-range grey, with the same conversion as a USB camera's pictures."""
    return to_gray(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR))


def check_golden(classifier: Classifier | Network, golden: Golden) -> GoldenAgreement:
    """Run the golden inputs through the network and compare its outputs with the golden ones."""
    outputs = np.stack([classifier.logits(face) for face in golden.faces])
    difference = np.abs(outputs.astype(np.int16) - golden.outputs)
    same = outputs.argmax(axis=1) == golden.outputs.argmax(axis=1)
    return GoldenAgreement(len(golden.faces), int(difference.max()), float(same.mean()))


def check_preparation(
    scene: GoldenScene, margin: float, decoder: Callable[[bytes], Gray] = decode_jpeg
) -> tuple[int, int]:
    """Largest differences, in grey levels, of the decoded picture and of the faces cropped from it with ``margin``.

    A picture that cannot be decoded, or decodes to another size, differs by up to 255.
    """
    try:
        luma = decoder(scene.jpeg)
    except (cv2.error, TypeError):  # OpenCV does not recognize the picture
        luma = np.zeros_like(scene.luma)
    crops = np.stack([crop(scene.luma, box, margin) for box in scene.boxes])
    luma_difference = _largest_difference(luma, scene.luma) if luma.shape == scene.luma.shape else 255
    return luma_difference, _largest_difference(crops, scene.crops)


def judge_golden(
    classifier: Classifier,
    agreement: GoldenAgreement,
    scene: GoldenScene,
    machine: str | None = None,
    decoder: Callable[[bytes], Gray] = decode_jpeg,
) -> Verification:
    """Decide whether ``agreement`` and the preparation of ``scene`` are within their tolerances.

    ``machine`` is the kind of processor, as platform.machine() gives it.
    """
    card = classifier.card
    allowed = card.allowed_lsb(classifier.computed_by, machine or platform.machine())
    luma, crops = check_preparation(scene, card.crop_margin, decoder)
    problems = []
    if agreement.largest_lsb > allowed:
        problems.append(
            f"golden outputs differ by up to {agreement.largest_lsb} steps; rounding in {classifier.computed_by} "
            f"explains up to {allowed}"
        )
    if luma > MAX_LUMA_DIFFERENCE:
        problems.append(
            f"a decoded picture differs by up to {luma} grey levels; decoders differ by up to {MAX_LUMA_DIFFERENCE}. "
            "Either luma has another range here, or OpenCV decodes wrongly"
        )
    if crops > MAX_CROP_DIFFERENCE:
        problems.append(f"cropped faces differ from those made with the model by up to {crops} grey levels")
    return Verification(
        time=now().isoformat(timespec="seconds"),
        ok=not problems,
        sentence=f"{card.name}: {'; '.join(problems) or 'golden outputs match'}",
        model=card.name,
        sha256=card.sha256,
        labels=card.labels,
        runtime=classifier.runtime,
        accelerator=classifier.accelerator,
        n=agreement.n,
        largest_lsb=agreement.largest_lsb,
        allowed_lsb=allowed,
        top1=agreement.top1,
        luma_levels=luma,
        crop_levels=crops,
    )


def verify_golden(classifier: Classifier, golden: Golden) -> Verification:
    """Run all golden inputs and judge the outputs."""
    return judge_golden(classifier, check_golden(classifier, golden), golden.scene)


def _largest_difference(found: NDArray[np.uint8], expected: NDArray[np.uint8]) -> int:
    return int(np.abs(found.astype(np.int16) - expected).max())
