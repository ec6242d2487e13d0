"""Measure a classifier's accuracy on labelled faces and compare it with the accuracy that the card states."""

import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.evaluation.acceptance import acceptance_threshold
from edge.evaluation.fer2013 import LabelledFaces
from edge.evaluation.metrics import Figures, ReliabilityDiagram, measure, reliability_diagram
from edge.model.classifier import Classifier
from edge.model.preprocessing import softmax
from edge.records import Accuracy
from edge.system.clock import now

_LIMITED_RANGE: Final = (16, 235)
_MIN_FACES_FOR_RANGE: Final = 100  # with fewer, darkest and brightest pixels may be missing by chance


@dataclass(frozen=True)
class MeasuredAccuracy:
    """A classifier's results on labelled faces.

    ``milliseconds`` is ``(n,)``: the time of each face, from pixels to logits.
    """

    figures: Figures
    calibration: ReliabilityDiagram
    milliseconds: NDArray[np.float64]


def measure_accuracy(classifier: Classifier, faces: LabelledFaces) -> MeasuredAccuracy:
    """Classify every face; the labels are indices into the card's. Raises ValueError when there are no faces."""
    labels = classifier.card.labels
    if faces.names != labels:
        raise ValueError(f"the faces are labelled {faces.names}, the model {labels}")
    logits = np.empty((len(faces), len(labels)), np.float64)
    milliseconds = np.empty(len(faces), np.float64)
    for index, face in enumerate(faces.pixels):
        started = time.perf_counter()
        logits[index] = classifier.read(face)
        milliseconds[index] = (time.perf_counter() - started) * 1000
    predictions = logits.argmax(axis=1)
    return MeasuredAccuracy(
        measure(faces.labels, predictions, labels), reliability_diagram(faces.labels, softmax(logits)), milliseconds
    )


def judge_accuracy(classifier: Classifier, faces: LabelledFaces, measured: MeasuredAccuracy) -> Accuracy:
    """Decide whether ``measured``, which was measured on this machine, is as good as the card states."""
    card, figures = classifier.card, measured.figures
    same_faces = faces.sha256() == card.origin.public_sha256
    threshold = acceptance_threshold(
        card, figures.n, same_faces=same_faces, runtime=classifier.computed_by, machine=platform.machine()
    )
    limited = _limited_range(faces.pixels)
    compared = threshold.describe(figures.accuracy, figures.n)
    below = figures.accuracy < threshold.lowest
    swapped = _swapped_labels(figures) if below else ""
    p50, p99 = np.percentile(measured.milliseconds, [50, 99])
    return Accuracy(
        time=now().isoformat(timespec="seconds"),
        ok=not (below or limited),
        sentence="; ".join(filter(None, (limited, compared, *_differing_classes(faces, figures), swapped))),
        model=card.name,
        sha256=card.sha256,
        runtime=classifier.runtime,
        accelerator=classifier.accelerator,
        split=faces.split,
        n=figures.n,
        accuracy=round(figures.accuracy, 5),
        macro_f1=round(figures.macro_f1, 5),
        promised=card.figures.accuracy,
        lowest=round(threshold.lowest, 5),
        same_faces=same_faces,
        recalls={label: round(of.recall, 4) for label, of in figures.per_class.items() if of.support},
        ece=round(measured.calibration.ece, 5),
        nll=round(measured.calibration.nll, 5),
        ms_p50=round(float(p50), 3),
        ms_p99=round(float(p99), 3),
    )


def _limited_range(pixels: NDArray[np.uint8]) -> str:
    """A sentence when no pixel of many faces lies outside the range of limited-range luma, else an empty string."""
    darkest, brightest = int(pixels.min()), int(pixels.max())
    if len(pixels) < _MIN_FACES_FOR_RANGE or darkest < _LIMITED_RANGE[0] or brightest > _LIMITED_RANGE[1]:
        return ""
    return (
        f"all pixels lie between {darkest} and {brightest}: this is limited-range luma, and the network expects 0 to "
        "255. Convert the pictures again, with the full range"
    )


def _differing_classes(faces: LabelledFaces, figures: Figures) -> Iterator[str]:
    """Sentences when the data has other classes than the card."""
    if faces.left_out:
        counts = ", ".join(f"{count:,} {name}" for name, count in faces.left_out.items())
        yield f"faces of classes that the card has not are left out: {counts}"
    if absent := [label for label, of in figures.per_class.items() if not of.support]:
        yield f"no face is labelled {', '.join(absent)}"


def _swapped_labels(figures: Figures) -> str:
    """A sentence when each of two classes is predicted as the other more often than as itself, else an empty string."""
    labels = figures.labels
    for first in range(len(labels)):
        for second in range(first):
            pair = figures.confusion[np.ix_([first, second], [first, second])]
            if pair[0, 1] > pair[0, 0] and pair[1, 0] > pair[1, 1]:
                return f"are the labels in another order? {labels[second]} and {labels[first]} look swapped"
    return ""
