"""Find out by labelled faces how a network wants its pixels, and whether its labels are in the stated order."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.stats import binom

from edge.errors import UsageError
from edge.evaluation.fer2013 import LabelledFaces
from export.importing.scaling import PixelScaling
from export.quantization.chance import SIGNIFICANCE_LEVEL, commonest
from export.quantization.parity import chance_of_loss

Predict = Callable[[PixelScaling], NDArray[np.int64]]
"""The classes that a network gives to faces with one scaling, ``(n,)``."""


@dataclass(frozen=True)
class ChosenScaling:
    """The scaling of the pixels, and how it was found.

    ``accuracies`` has every scaling that was tried, on ``n`` faces of ``split``. ``close`` names those that chance
    cannot tell from the chosen one.
    """

    scaling: PixelScaling
    accuracies: Mapping[str, float]
    n: int
    split: str
    close: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """What was measured, and what follows."""
        tried = ", ".join(f"{name} {accuracy:.1%}" for name, accuracy in self.accuracies.items())
        if len(self.accuracies) == 1:
            return f"given; {tried} right of {self.n:,} faces of {self.split}"
        return f"by accuracy on {self.n:,} faces of {self.split}: {tried}"


def choose_scaling(scalings: Sequence[PixelScaling], predict: Predict, faces: LabelledFaces) -> ChosenScaling:
    """The scaling with which most ``faces`` are labelled rightly.

    Raises UsageError when another order of the labels fits clearly better, or when no scaling is better than always
    giving the commonest label.
    """
    classes = {scaling.name: predict(scaling) for scaling in scalings}
    right = {name: predicted == faces.labels for name, predicted in classes.items()}
    accuracies = {name: round(float(hits.mean()), 5) for name, hits in right.items()}
    best = max(scalings, key=lambda scaling: accuracies[scaling.name])
    _check_order(classes, right[best.name], faces)
    _check_chance(best, accuracies, faces)
    close = [name for name in accuracies if name != best.name and _is_close(right[name], right[best.name])]
    return ChosenScaling(best, accuracies, len(faces), str(faces.split), tuple(close))


def _is_close(other: NDArray[np.bool_], best: NDArray[np.bool_]) -> bool:
    lost, gained = int((best & ~other).sum()), int((other & ~best).sum())
    return chance_of_loss(lost, gained) >= SIGNIFICANCE_LEVEL


def _check_order(classes: Mapping[str, NDArray[np.int64]], right: NDArray[np.bool_], faces: LabelledFaces) -> None:
    """Raise UsageError when the labels in another order fit far more faces.

    The order that fits best is one of ``labels!``, so chance is allowed that much less.
    """
    labels = faces.names
    fits = [(name, *_best_order(predicted, faces)) for name, predicted in classes.items()]
    name, order, hits = max(fits, key=lambda fit: int(fit[2].sum()))
    lost, gained = int((right & ~hits).sum()), int((hits & ~right).sum())
    if gained > lost and chance_of_loss(gained, lost) < SIGNIFICANCE_LEVEL / math.factorial(len(labels)):
        fitting = ",".join(labels[index] for index in order)
        raise UsageError(
            f"the labels are in another order: with {','.join(labels)} the network labels {right.mean():.1%} of "
            f"{len(faces):,} faces of {faces.split} rightly, in the order below {hits.mean():.1%} (pixels: {name}).\n"
            f"Give --labels {fitting}"
        )


def _best_order(predicted: NDArray[np.int64], faces: LabelledFaces) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """For each output the label that fits most faces, each label once; and which faces are then right."""
    counts = np.zeros((len(faces.names), len(faces.names)), np.int64)
    np.add.at(counts, (predicted, faces.labels), 1)
    _, order = linear_sum_assignment(counts, maximize=True)
    return order, order[predicted] == faces.labels


def _check_chance(best: PixelScaling, accuracies: Mapping[str, float], faces: LabelledFaces) -> None:
    """Raise UsageError unless the best accuracy is above that of always giving the commonest label."""
    label, share = commonest(faces)
    hits = round(accuracies[best.name] * len(faces))
    if binom.sf(hits - 1, len(faces), share) < SIGNIFICANCE_LEVEL:
        return
    tried = ", ".join(f"{name} {accuracy:.1%}" for name, accuracy in accuracies.items())
    raise UsageError(
        f"the network is no better than chance on {len(faces):,} faces of {faces.split}: {tried}; always "
        f"{label} would be {share:.1%}. --labels may have another order, its pixels may be scaled in "
        "another way (--input MEAN,DEVIATION), or the data has other faces than those that it learned from."
    )
