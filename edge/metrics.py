"""Figures of a seven-class classifier: categorical accuracy, macro-F1, per-class figures, confusion matrix."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.contract import LABELS


@dataclass(frozen=True)
class ClassFigures:
    """Precision, recall and F1 of one label, and how many faces carry it. A ratio without cases is 0."""

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Figures:
    """What a classifier reaches on labelled faces.

    ``confusion[i, j]`` counts faces of class i that were called class j; ``(7, 7)`` int64.
    """

    n: int
    accuracy: float
    macro_f1: float
    per_class: dict[str, ClassFigures]
    confusion: NDArray[np.int64]


def measure(labels: NDArray[np.int64], predictions: NDArray[np.int64]) -> Figures:
    """Compare predicted with true classes, both ``(n,)`` indices into LABELS. Raises ValueError when n is 0.

    Macro-F1 averages over the classes that occur in ``labels`` or ``predictions``, as scikit-learn does.
    """
    if not len(labels) or labels.shape != predictions.shape:
        raise ValueError(f"need as many predictions as labels, at least one; got {len(predictions)} and {len(labels)}")
    confusion = np.zeros((len(LABELS), len(LABELS)), np.int64)
    np.add.at(confusion, (labels, predictions), 1)
    per_class = {label: _class_figures(confusion, index) for index, label in enumerate(LABELS)}
    present = [per_class[LABELS[index]].f1 for index in np.union1d(labels, predictions)]
    return Figures(
        n=len(labels),
        accuracy=float(np.trace(confusion) / len(labels)),
        macro_f1=float(np.mean(present)),
        per_class=per_class,
        confusion=confusion,
    )


def _class_figures(confusion: NDArray[np.int64], index: int) -> ClassFigures:
    hits, called, support = confusion[index, index], confusion[:, index].sum(), confusion[index].sum()
    precision = float(hits / called) if called else 0.0
    recall = float(hits / support) if support else 0.0
    f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
    return ClassFigures(precision, recall, f1, int(support))
