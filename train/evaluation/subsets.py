"""Accuracy on the part of a split where a figure means more: without twins, and where a crowd agrees with the label."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge.evaluation.fer2013 import LabelledFaces
from edge.labels import FER2013_LABELS
from train.data.ferplus import VOTES, read_votes
from train.data.twins import has_listed_twin

_LABEL_OF_VOTE = {
    "neutral": "neutral",
    "happiness": "happy",
    "surprise": "surprise",
    "sadness": "sad",
    "anger": "angry",
    "disgust": "disgust",
    "fear": "fear",
}


class SubsetAccuracy(NamedTuple):
    """The accuracy (0 to 1) on ``faces`` of a split's faces; ``name`` says which."""

    name: str
    faces: int
    accuracy: float


def subset_accuracies(
    faces: LabelledFaces, predictions: NDArray[np.int64], parts: Sequence[tuple[str, NDArray[np.bool_]]]
) -> tuple[SubsetAccuracy, ...]:
    """The accuracy on those of ``parts`` that have faces; ``predictions`` is ``(n,)``: the class of each face."""
    right = predictions == faces.labels
    return tuple(SubsetAccuracy(name, int(part.sum()), float(right[part].mean())) for name, part in parts if part.any())


def subsets(faces: LabelledFaces, votes: Path | None) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yield name and membership, ``(n,)`` bool, of each part of the faces where a figure means more.

    That is without twins where the twins are known, and with ``votes`` where FERPlus agrees with the label. Raises
    DataError when the votes do not fit the faces.
    """
    twins = has_listed_twin(faces)
    if twins.any():
        yield "without the faces that have a twin in Training", ~twins
    if votes is None:
        return
    agreed = majority(read_votes(votes, faces)) == faces.labels
    yield "where FERPlus's majority agrees with the label", agreed
    if twins.any():
        yield "both", agreed & ~twins


def majority(shares: NDArray[np.float32]) -> NDArray[np.int64]:
    """The label with most of a face's votes, ``(n,)``; -1 for contempt, unknown and no face, and for a draw.

    ``shares`` is ``(n, 10)``, as read_votes gives them.
    """
    classes = [FER2013_LABELS.index(_LABEL_OF_VOTE[vote]) if vote in _LABEL_OF_VOTE else -1 for vote in VOTES]
    most = shares.max(axis=1, keepdims=True)
    alone = (shares == most).sum(axis=1) == 1
    return np.where(alone, np.array(classes)[shares.argmax(axis=1)], -1)
