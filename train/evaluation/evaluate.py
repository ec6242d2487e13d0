"""Measure a run, a bundle, saved predictions or an ensemble: accuracy, macro-F1, confusion, calibration.

Test-time augmentation is off by default, and the output says when it is on.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from edge.errors import UsageError
from edge.evaluation.fer2013 import LabelledFaces
from edge.evaluation.metrics import Figures, ReliabilityDiagram, measure, reliability_diagram
from edge.labels import FER2013_LABELS
from edge.model.preprocessing import softmax
from train.evaluation.predictions import Predictions
from train.evaluation.predictors import Predictor, check_views, open_predictor, shifted_view
from train.evaluation.subsets import SubsetAccuracy, subset_accuracies, subsets
from train.outputs import check_output

_PREDICTIONS_SUFFIX: Final = ".npz"


@dataclass(frozen=True)
class Evaluation:
    """The figures of a predictor or an ensemble (``name``), with ``views`` test-time views (1: single crop)."""

    name: str
    split: str | None
    views: int
    figures: Figures
    calibration: ReliabilityDiagram
    subsets: tuple[SubsetAccuracy, ...] = ()


def evaluate(
    paths: list[Path], faces: LabelledFaces, views: int = 1, keep: Path | None = None, votes: Path | None = None
) -> Evaluation:
    """Measure the predictor at one path, or several as an ensemble, with 1 to 10 test-time ``views``.

    A path is a run folder (Keras, float32), a bundle (its int8 file) or an ``.npz`` file of saved predictions. The
    probabilities of all views (train.evaluation.predictors.shifted_view) and all predictors are averaged. ``keep`` is
    the file to save a single predictor's predictions to. ``votes`` is FERPlus's file, for the accuracy where the crowd
    agrees. Raises UsageError and DataError as train.evaluation.predictions and train.evaluation.predictors do.
    """
    check_views(views)
    if keep and len(paths) > 1:
        raise UsageError(f"--keep {keep}: saves the predictions of one network, and {len(paths)} were given")
    if keep and keep.suffix != _PREDICTIONS_SUFFIX:
        raise UsageError(
            f"--keep {keep}: the name must end in {_PREDICTIONS_SUFFIX}; call it {keep.name}{_PREDICTIONS_SUFFIX}"
        )
    if keep:
        check_output(keep)
    opened = [
        Predictions.load(path, faces, views) if path.suffix == _PREDICTIONS_SUFFIX else open_predictor(path)
        for path in paths
    ]
    parts = list(subsets(faces, votes))  # before the work of the networks, since the votes may not fit
    predictions = [item if isinstance(item, Predictions) else _predict(item, faces, views) for item in opened]
    if keep:
        predictions[0].save(keep, faces)
    averaged = np.mean([softmax(one.logits.astype(np.float64)) for one in predictions], axis=(0, 1))
    return Evaluation(
        _ensemble_name([one.name for one in predictions]),
        faces.split,
        views,
        measure(faces.labels, averaged.argmax(axis=1), FER2013_LABELS),
        reliability_diagram(faces.labels, averaged),
        subset_accuracies(faces, averaged.argmax(axis=1), parts),
    )


def _predict(predictor: Predictor, faces: LabelledFaces, views: int) -> Predictions:
    logits = [predictor.logits(shifted_view(faces.pixels, number)) for number in range(views)]
    return Predictions(np.stack(logits), predictor.name, msgspec.json.encode(predictor.sources).decode())


def _ensemble_name(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"ENSEMBLE of {' + '.join(names)}"


def format_evaluation(evaluation: Evaluation) -> str:
    """The evaluation as text."""
    figures = evaluation.figures
    views = "single crop" if evaluation.views == 1 else f"WITH TEST-TIME AUGMENTATION ({evaluation.views} views)"
    lines = [
        f"{evaluation.name}: {figures.n} faces{', ' + evaluation.split if evaluation.split else ''}, {views}",
        f"accuracy {figures.accuracy:.2%}   macro-F1 {figures.macro_f1:.2%}   expected calibration error "
        f"{evaluation.calibration.ece:.3f}   negative log-likelihood {evaluation.calibration.nll:.3f}",
        *(f"{one.accuracy:.2%} of {one.faces:,} {one.name}" for one in evaluation.subsets),
        "",
        *figures.rows(),
    ]
    return "\n".join(lines)


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """The evaluation as ``--json`` prints it."""
    return {
        "subject": evaluation.name,
        "split": evaluation.split,
        "test_time_views": evaluation.views,
        **evaluation.figures.as_json(),
        "ece": round(evaluation.calibration.ece, 5),
        "nll": round(evaluation.calibration.nll, 5),
        "subsets": [one._asdict() for one in evaluation.subsets],
    }
