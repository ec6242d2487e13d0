"""Measure a run, a bundle, kept answers or an ensemble on labelled faces: accuracy, macro-F1, confusion, calibration.

Test-time augmentation is off unless asked for, and is named wherever its figures are shown.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge.errors import UsageError
from edge.evaluation.fer2013 import LabelledFaces
from edge.evaluation.metrics import Figures, ReliabilityDiagram, measure, reliability_diagram
from edge.model.preprocessing import softmax
from train.evaluation.predictions import Predictions
from train.evaluation.predictors import Predictor, open_predictor

_SHIFTS: Final = ((0, 0), (2, 2), (2, -2), (-2, 2), (-2, -2))
_KEPT: Final = ".npz"
MOST_VIEWS: Final = 2 * len(_SHIFTS)


@dataclass(frozen=True)
class Evaluation:
    """What was measured, of what, and with how many test-time views (1: single crop)."""

    subject: str
    split: str | None
    views: int
    figures: Figures
    calibration: ReliabilityDiagram


def evaluate(subjects: list[Path], faces: LabelledFaces, views: int = 1, keep: Path | None = None) -> Evaluation:
    """Measure subjects, several as one ensemble; ``views`` 1 to 10. ``keep`` is where to keep a single one's answers.

    A subject is a run folder (Keras, float32), a bundle (its int8 file) or kept answers. Two views are the face and its
    mirror image; ten add four shifts by two pixels, each with its mirror image. The probabilities of all views and all
    subjects are averaged. Raises UsageError and DataError as train.evaluation.predictions and
    train.evaluation.predictors do.
    """
    if not 1 <= views <= MOST_VIEWS:
        raise UsageError(f"--tta {views}: test-time augmentation has 1 to {MOST_VIEWS} views")
    if keep and len(subjects) > 1:
        raise UsageError(f"--keep {keep}: keeps the answers of one subject, and here are {len(subjects)}")
    if keep and keep.suffix != _KEPT:
        raise UsageError(f"--keep {keep}: kept answers are known by their ending; call it {keep.name}{_KEPT}")
    opened = [
        Predictions.load(path, faces, views) if path.suffix == _KEPT else open_predictor(path) for path in subjects
    ]
    said = [subject if isinstance(subject, Predictions) else _ask(subject, faces, views) for subject in opened]
    if keep:
        said[0].save(keep, faces)
    averaged = np.mean([softmax(answers.logits.astype(np.float64)) for answers in said], axis=(0, 1))
    return Evaluation(
        _told_subject([answers.subject for answers in said]),
        faces.split,
        views,
        measure(faces.labels, averaged.argmax(axis=1)),
        reliability_diagram(faces.labels, averaged),
    )


def _ask(subject: Predictor, faces: LabelledFaces, views: int) -> Predictions:
    logits = [subject.logits(_view(faces.pixels, number)) for number in range(views)]
    return Predictions(np.stack(logits), subject.name, subject.provenance)


def _told_subject(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"ENSEMBLE of {' + '.join(names)}"


def _view(pixels: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
    """Shift the faces, repeating their border, then mirror every second view."""
    (down, right), mirrored = _SHIFTS[number // 2], number % 2
    padded = np.pad(pixels, ((0, 0), (2, 2), (2, 2)), mode="edge")
    height, width = pixels.shape[1:]
    shifted = padded[:, 2 - down : 2 - down + height, 2 - right : 2 - right + width]
    return shifted[:, :, ::-1] if mirrored else shifted


def format_evaluation(told: Evaluation) -> str:
    """The evaluation for a person."""
    figures = told.figures
    how = "single crop" if told.views == 1 else f"WITH TEST-TIME AUGMENTATION ({told.views} views)"
    lines = [
        f"{told.subject}: {figures.n} faces{', ' + told.split if told.split else ''}, {how}",
        f"accuracy {figures.accuracy:.2%}   macro-F1 {figures.macro_f1:.2%}   expected calibration error "
        f"{told.calibration.ece:.3f}   negative log-likelihood {told.calibration.nll:.3f}",
        "",
        *figures.rows(),
    ]
    return "\n".join(lines)


def as_json(told: Evaluation) -> dict[str, Any]:
    """The evaluation for a machine."""
    return {
        "subject": told.subject,
        "split": told.split,
        "test_time_views": told.views,
        **told.figures.as_json(),
        "ece": round(told.calibration.ece, 5),
        "nll": round(told.calibration.nll, 5),
    }
