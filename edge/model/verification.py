"""``fer-edge verify``: whether the deployed model does on this device what its card says.

Without data, the golden outputs tell about file, runtime and the way that a picture takes to the network. With labelled
faces, the accuracy is held against the card's (edge.evaluation.acceptance).
"""

import json
import os
import platform
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from edge.camera.devices import to_gray
from edge.errors import VerificationError
from edge.evaluation.acceptance import acceptance_threshold
from edge.evaluation.fer2013 import LabelledFaces, measured_split, read_faces
from edge.evaluation.metrics import Figures, ReliabilityDiagram, measure, reliability_diagram
from edge.model.bundle import Golden, GoldenScene
from edge.model.classifier import Classifier, Network
from edge.model.preprocessing import LABELS, crop, softmax
from edge.model.registry import ModelRegistry, state_folder
from edge.mqtt.messages import Accuracy, Verification
from edge.records import Gray
from edge.settings import Settings, load_settings
from edge.system.clock import now
from edge.system.state import device_config, service_environ

LUMA_LEVELS: Final = 3
"""By so many grey levels decoders differ from each other; limited-range luma is up to 20 off."""
CROP_LEVELS: Final = 1
"""By so many grey levels the resizing of two processors differs; another margin shows other pixels."""

_LIMITED: Final = (16, 235)
_ENOUGH_FACES: Final = 100  # to conclude that blackest and whitest are missing


@dataclass(frozen=True)
class GoldenAgreement:
    """How close this device's outputs come to those where the model was made.

    ``largest_lsb`` is the largest difference of one int8 logit in quantization steps; ``top1`` the fraction of the
    ``n`` inputs whose likeliest expression is the same.
    """

    n: int
    largest_lsb: int
    top1: float


@dataclass(frozen=True)
class MeasuredAccuracy:
    """What the classifier made of labelled faces; ``milliseconds`` is ``(n,)``, from pixels to probabilities."""

    figures: Figures
    calibration: ReliabilityDiagram
    milliseconds: NDArray[np.float64]


def decode(jpeg: bytes) -> Gray:
    """The full-range grey of a compressed picture, by the way that a USB camera's pictures take."""
    return to_gray(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR))


def check_golden(classifier: Classifier | Network, golden: Golden) -> GoldenAgreement:
    """Run the golden inputs through the deployed network and compare."""
    here = np.stack([classifier.logits(face) for face in golden.faces])
    difference = np.abs(here.astype(np.int16) - golden.outputs)
    same = here.argmax(axis=1) == golden.outputs.argmax(axis=1)
    return GoldenAgreement(len(golden.faces), int(difference.max()), float(same.mean()))


def check_preparation(scene: GoldenScene, margin: float, decoding: Callable[[bytes], Gray] = decode) -> tuple[int, int]:
    """Largest differences, in grey levels, of the decoded picture and of the faces cut out of it with ``margin``."""
    try:
        luma = decoding(scene.jpeg)
    except (cv2.error, TypeError):  # it is no picture here
        luma = np.zeros_like(scene.luma)
    crops = np.stack([crop(scene.luma, box, margin) for box in scene.boxes])
    return (_levels(luma, scene.luma) if luma.shape == scene.luma.shape else 255), _levels(crops, scene.crops)


def _levels(here: NDArray[np.uint8], there: NDArray[np.uint8]) -> int:
    return int(np.abs(here.astype(np.int16) - there).max())


def conclude(
    classifier: Classifier,
    agreement: GoldenAgreement,
    scene: GoldenScene,
    machine: str | None = None,
    decoding: Callable[[bytes], Gray] = decode,
) -> Verification:
    """Judge what the golden inputs gave on this device, and the way that pictures take to the network here."""
    card = classifier.card
    allowed = card.allowed_lsb(classifier.runtime, machine or platform.machine())
    luma, crops = check_preparation(scene, card.crop_margin, decoding)
    wrong = []
    if agreement.largest_lsb > allowed:
        wrong.append(
            f"its golden outputs differ by up to {agreement.largest_lsb} steps, and {allowed} is what rounding "
            f"explains in {classifier.runtime}"
        )
    if luma > LUMA_LEVELS:
        wrong.append(
            f"a picture's grey is up to {luma} levels off, and {LUMA_LEVELS} is what decoders differ by: luma has "
            "another range here, or OpenCV decodes wrongly"
        )
    if crops > CROP_LEVELS:
        wrong.append(f"faces are cut out otherwise than where the model was made (up to {crops} grey levels off)")
    return Verification(
        time=now().isoformat(timespec="seconds"),
        ok=not wrong,
        sentence=f"{card.name}: {'; '.join(wrong) or 'gives its golden outputs'}",
        model=card.name,
        sha256=card.sha256,
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
    """Run all golden inputs, and judge."""
    return conclude(classifier, check_golden(classifier, golden), golden.scene)


def verify(classifier: Classifier, faces: LabelledFaces) -> MeasuredAccuracy:
    """Classify every face."""
    logits = np.empty((len(faces), len(LABELS)), np.float64)
    milliseconds = np.empty(len(faces), np.float64)
    for index, face in enumerate(faces.pixels):
        started = time.perf_counter()
        logits[index] = classifier.read(face)
        milliseconds[index] = (time.perf_counter() - started) * 1000
    predictions = logits.argmax(axis=1)
    return MeasuredAccuracy(
        measure(faces.labels, predictions), reliability_diagram(faces.labels, softmax(logits)), milliseconds
    )


def judge(
    classifier: Classifier, faces: LabelledFaces, measured: MeasuredAccuracy, machine: str | None = None
) -> Accuracy:
    """Hold what was measured against the card."""
    card, figures = classifier.card, measured.figures
    same_faces = faces.sha256() == card.origin.public_sha256
    promised = acceptance_threshold(
        card, figures.n, same_faces=same_faces, runtime=classifier.runtime, machine=machine or platform.machine()
    )
    sentences = [promised.about(figures.accuracy, figures.n)]
    if limited := _limited_range(faces.pixels):
        sentences.insert(0, limited)
    below = figures.accuracy < promised.lowest
    if below and (swapped := _swapped(figures.confusion)):
        sentences.append(swapped)
    p50, p99 = np.percentile(measured.milliseconds, [50, 99])
    return Accuracy(
        time=now().isoformat(timespec="seconds"),
        ok=not (below or limited),
        sentence="; ".join(sentences),
        model=card.name,
        sha256=card.sha256,
        runtime=classifier.runtime,
        accelerator=classifier.accelerator,
        split=faces.split,
        n=figures.n,
        accuracy=round(figures.accuracy, 5),
        macro_f1=round(figures.macro_f1, 5),
        promised=card.figures.accuracy,
        lowest=round(promised.lowest, 5),
        same_faces=same_faces,
        recalls={label: round(of.recall, 4) for label, of in figures.per_class.items()},
        ece=round(measured.calibration.ece, 5),
        nll=round(measured.calibration.nll, 5),
        ms_p50=round(float(p50), 3),
        ms_p99=round(float(p99), 3),
    )


def _limited_range(pixels: NDArray[np.uint8]) -> str:
    """A sentence when many faces have no pixel outside the range of limited-range luma."""
    darkest, brightest = int(pixels.min()), int(pixels.max())
    if len(pixels) < _ENOUGH_FACES or darkest < _LIMITED[0] or brightest > _LIMITED[1]:
        return ""
    return (
        f"all pixels lie between {darkest} and {brightest}: this is limited-range luma, and the network expects 0 to "
        "255. Convert the pictures again, with the full range"
    )


def _swapped(confusion: NDArray[np.int64]) -> str:
    """A sentence when each of two labels is called by the other's name more often than by its own."""
    for first in range(len(LABELS)):
        for second in range(first):
            pair = confusion[np.ix_([first, second], [first, second])]
            if pair[0, 1] > pair[0, 0] and pair[1, 0] > pair[1, 1]:
                return f"are the labels in another order? {LABELS[second]} and {LABELS[first]} look swapped"
    return ""


def report(golden: Verification, accuracy: Accuracy | None, figures: Figures | None) -> dict[str, Any]:
    """What ``fer-edge verify --json`` prints."""
    told = {"golden": msgspec.to_builtins(golden)}
    if accuracy and figures:
        told |= msgspec.to_builtins(accuracy) | figures.as_json()
    return told


def table(golden: Verification, accuracy: Accuracy | None, measured: MeasuredAccuracy | None) -> str:
    """The same report for a person."""
    lines = [
        f"{golden.model} ({golden.sha256[:12]}) on {golden.runtime}, {golden.accelerator}",
        f"golden     {_word(golden.ok)}  {golden.n} outputs differ by {golden.largest_lsb} steps (up to "
        f"{golden.allowed_lsb} is rounding); luma by {golden.luma_levels} levels (up to {LUMA_LEVELS}), crops by "
        f"{golden.crop_levels} (up to {CROP_LEVELS})",
    ]
    if accuracy and measured:
        lines += [
            f"accuracy   {_word(accuracy.ok)}  {accuracy.sentence}",
            f"           {accuracy.n} faces{', ' + accuracy.split if accuracy.split else ''}; macro-F1 "
            f"{accuracy.macro_f1:.2%}; calibration error {accuracy.ece:.3f}, NLL {accuracy.nll:.3f}; "
            f"{accuracy.ms_p50} ms a face (p99 {accuracy.ms_p99})",
            "",
            *measured.figures.rows(),
        ]
    return "\n".join(lines)


def _word(ok: bool) -> str:
    return "ok  " if ok else "FAIL"


def command(arguments: Namespace) -> int:
    """Carry out ``fer-edge verify``. Raises VerificationError when the model does not do what its card says."""
    from edge.model.loader import open_deployed  # noqa: PLC0415  it needs this module, to check what it deploys

    config = device_config(arguments.config)
    settings = load_settings(config)
    faces = read_faces(arguments.data, arguments.split or measured_split(arguments.data)) if arguments.data else None
    environ = service_environ(config, os.environ)
    if not settings.model.bundle:
        ModelRegistry(state_folder(settings.store, environ)).require_readable()
    classifier, bundle = open_deployed(settings, environ)
    classifier.settle()
    golden = verify_golden(classifier, bundle.golden)
    measured = verify(classifier, faces) if faces else None
    accuracy = judge(classifier, faces, measured) if faces and measured else None
    if arguments.json:
        print(json.dumps(report(golden, accuracy, measured.figures if measured else None)))
    else:
        print(table(golden, accuracy, measured))
    if arguments.publish:
        _publish(config, settings, golden, accuracy)
    failed = [told.sentence for told in (golden, accuracy) if told and not told.ok]
    if failed:
        raise VerificationError("; ".join(failed))
    return 0


def _publish(config: Path | None, settings: Settings, golden: Verification, accuracy: Accuracy | None) -> None:
    from edge.diagnostics.doctor import with_password  # noqa: PLC0415  a broker is rarely wanted, and doctor imports much
    from edge.mqtt.connection import publish_retained  # noqa: PLC0415
    from edge.mqtt.topics import base_topic, client_id  # noqa: PLC0415

    mqtt = with_password(settings.mqtt, config)
    told = {"verification": golden, **({"accuracy": accuracy} if accuracy else {})}
    payloads = {f"{base_topic(mqtt)}/{name}": msgspec.json.encode(payload) for name, payload in told.items()}
    # Its own client id: with the service's, the broker would throw the running service out.
    publish_retained(mqtt, f"{client_id(mqtt)}-verify", payloads)
