"""The accuracy of the deployed file, on this device, on labelled faces."""

import json
import time
from argparse import Namespace
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge.bundle import Golden
from edge.classify import Classifier, Network
from edge.contract import LABELS
from edge.fer2013 import LabelledFaces, measured_split, read_faces
from edge.metrics import Figures, measure
from edge.settings import load_settings


@dataclass(frozen=True)
class Agreement:
    """How close this device's outputs come to those where the model was made.

    ``largest_lsb`` is the largest difference of one int8 logit in quantization steps; ``top1`` the fraction of the
    ``n`` inputs whose likeliest expression is the same.
    """

    n: int
    largest_lsb: int
    top1: float


def check_golden(classifier: Classifier | Network, golden: Golden) -> Agreement:
    """Run the golden inputs through the deployed network and compare."""
    here = np.stack([classifier.logits(face) for face in golden.faces])
    difference = np.abs(here.astype(np.int16) - golden.outputs)
    same = here.argmax(axis=1) == golden.outputs.argmax(axis=1)
    return Agreement(len(golden.faces), int(difference.max()), float(same.mean()))


def verify(classifier: Classifier, faces: LabelledFaces) -> tuple[Figures, list[float]]:
    """Classify every face; returns the figures and the milliseconds that each face took from pixels to label."""
    predictions = np.empty(len(faces), np.int64)
    milliseconds = []
    for index, face in enumerate(faces.pixels):
        started = time.perf_counter()
        predictions[index] = LABELS.index(classifier.classify(face).label)
        milliseconds.append((time.perf_counter() - started) * 1000)
    return measure(faces.labels, predictions), milliseconds


def report(classifier: Classifier, figures: Figures, milliseconds: list[float], split: str | None) -> dict[str, Any]:
    """What ``fer-edge verify --json`` prints."""
    p50, p99 = np.percentile(milliseconds, [50, 99])
    return {
        "model": classifier.card.name,
        "sha256": classifier.card.sha256,
        "runtime": classifier.runtime,
        "accelerator": classifier.accelerator,
        "split": split,
        "ms_per_face": {"p50": round(float(p50), 3), "p99": round(float(p99), 3)},
        **figures.as_json(),
    }


def table(told: dict[str, Any], figures: Figures) -> str:
    """The same report for a person."""
    lines = [
        f"{told['model']} ({told['sha256'][:12]}) on {told['runtime']}, {told['accelerator']}: "
        f"{told['n']} faces{', ' + told['split'] if told['split'] else ''}",
        f"accuracy {told['accuracy']:.2%}   macro-F1 {told['macro_f1']:.2%}   "
        f"{told['ms_per_face']['p50']} ms a face (p99 {told['ms_per_face']['p99']})",
        "",
        *figures.rows(),
    ]
    return "\n".join(lines)


def command(arguments: Namespace) -> int:
    """Carry out ``fer-edge verify`` with its parsed arguments."""
    from edge.run import make_classifier  # noqa: PLC0415  edge.run needs this module, for the command `verify`

    classifier = make_classifier(load_settings(arguments.config))
    classifier.settle()
    faces = read_faces(arguments.data, arguments.split or measured_split(arguments.data))
    figures, milliseconds = verify(classifier, faces)
    told = report(classifier, figures, milliseconds, faces.split)
    print(json.dumps(told) if arguments.json else table(told, figures))
    return 0
