"""Figures of a classifier: accuracy, macro-F1, per-class figures, confusion matrix, calibration."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge.labels import Labels

CALIBRATION_BINS: Final = 10


@dataclass(frozen=True)
class ClassFigures:
    """Precision, recall and F1 of one label, and how many faces have it. A ratio without cases is 0."""

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Figures:
    """A classifier's figures on ``n`` labelled faces.

    ``confusion[i, j]`` counts faces of class i that were predicted as class j; ``(k, k)`` int64 for k ``labels``.
    """

    n: int
    accuracy: float
    macro_f1: float
    per_class: dict[str, ClassFigures]
    confusion: NDArray[np.int64]
    labels: Labels

    def as_json(self) -> dict[str, Any]:
        """The figures as JSON values, rounded."""
        return {
            "n": self.n,
            "accuracy": round(self.accuracy, 5),
            "macro_f1": round(self.macro_f1, 5),
            "per_class": {
                label: {
                    "precision": round(c.precision, 4),
                    "recall": round(c.recall, 4),
                    "f1": round(c.f1, 4),
                    "n": c.support,
                }
                for label, c in self.per_class.items()
            },
            "confusion": self.confusion.tolist(),
            "labels": list(self.labels),
        }

    def rows(self) -> list[str]:
        """Per-class figures and the confusion matrix as a table for a terminal."""
        columns = " ".join(f"{label[:5]:>5}" for label in self.labels)
        width = max(10, *(len(label) + 1 for label in self.labels))
        lines = [f"{'':{width}}{'precision':>10}{'recall':>8}{'F1':>7}{'n':>7}   called {columns}"]
        for label, row in zip(self.labels, self.confusion, strict=True):
            c = self.per_class[label]
            counts = " ".join(f"{count:>5}" for count in row)
            ratios = f"{c.precision:>10.1%}{c.recall:>8.1%}{c.f1:>7.1%}"
            lines.append(f"{label:{width}}{ratios}{c.support:>7}          {counts}")
        return lines


@dataclass(frozen=True)
class Bin:
    """The ``n`` faces whose confidence is in one of ten equal ranges: mean confidence and accuracy, or 0."""

    n: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class ReliabilityDiagram:
    """How well confidences agree with accuracy.

    ``ece`` is the expected calibration error over ``bins`` (Guo et al. 2017, arXiv 1706.04599), ``nll`` the mean
    negative log-likelihood of the true label in nats.
    """

    ece: float
    nll: float
    bins: tuple[Bin, ...]


def measure(classes: NDArray[np.int64], predictions: NDArray[np.int64], labels: Labels) -> Figures:
    """Compare predicted with true classes, both ``(n,)`` indices into ``labels``. Raises ValueError when n is 0.

    Macro-F1 averages over the classes that occur in ``classes`` or ``predictions``, as scikit-learn does.
    """
    if not len(classes) or classes.shape != predictions.shape:
        raise ValueError(f"need as many predictions as labels, at least one; got {len(predictions)} and {len(classes)}")
    confusion = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(confusion, (classes, predictions), 1)
    per_class = {label: _class_figures(confusion, index) for index, label in enumerate(labels)}
    present = [per_class[labels[index]].f1 for index in np.union1d(classes, predictions)]
    return Figures(
        n=len(classes),
        accuracy=float(np.trace(confusion) / len(classes)),
        macro_f1=float(np.mean(present)),
        per_class=per_class,
        confusion=confusion,
        labels=labels,
    )


def reliability_diagram(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> ReliabilityDiagram:
    """Compare confidences with accuracy: ``labels`` is ``(n,)``, ``probabilities`` ``(n, classes)``."""
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    number = bin_numbers(confidence)
    bins = tuple(_bin(confidence[number == index], correct[number == index]) for index in range(CALIBRATION_BINS))
    ece = sum(b.n * abs(b.accuracy - b.confidence) for b in bins) / len(labels)
    true = probabilities[np.arange(len(labels)), labels]
    return ReliabilityDiagram(float(ece), float(-np.log(np.maximum(true, 1e-12)).mean()), bins)


def bin_numbers(confidence: NDArray[np.float64]) -> NDArray[np.int64]:
    """Which of the ten equal ranges each confidence falls into."""
    return np.minimum((confidence * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)


def _bin(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> Bin:
    n = len(correct)
    return Bin(n, float(confidence.mean()), float(correct.mean())) if n else Bin(0, 0.0, 0.0)


def _class_figures(confusion: NDArray[np.int64], index: int) -> ClassFigures:
    hits, predicted, support = confusion[index, index], confusion[:, index].sum(), confusion[index].sum()
    precision = float(hits / predicted) if predicted else 0.0
    recall = float(hits / support) if support else 0.0
    f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
    return ClassFigures(precision, recall, f1, int(support))
