"""Batches for the training loop: augmented and mixed, with random draws that depend on seed and epoch only."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge.evaluation.fer2013 import LabelledFaces
from edge.labels import FER2013_LABELS
from edge.model.preprocessing import normalize
from train.data.augmentation import augment
from train.data.degradations import degrade
from train.data.view_bank import ViewBank, draw_view
from train.recipes import Recipe

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class TrainingSet:
    """The training faces with their labels, votes and teachers.

    ``votes`` are the FERPlus shares, ``(n, 10)`` float32; 0 for a face without votes. ``features`` gives the pooled
    features of a feature teacher (train.feature_teacher) for a batch of normalized faces, if there is one.
    """

    faces: LabelledFaces
    votes: Floats | None = None
    teachers: "Teachers | None" = None
    features: Callable[..., Any] | None = None

    def __len__(self) -> int:
        return len(self.faces)


@dataclass(frozen=True)
class Teachers:
    """The view banks of teachers; all have the same views, of the same faces.

    ``pixels`` are the faces that the banks were made for, ``(m, 48, 48)`` uint8. ``chosen``, ``(m,)`` bool, says which
    of them are training faces. ``taught``, ``(n,)`` bool, says which of the training faces these are. The others learn
    from their labels alone.
    """

    banks: tuple[ViewBank, ...]
    pixels: NDArray[np.uint8]
    chosen: NDArray[np.bool_]
    taught: NDArray[np.bool_]

    @classmethod
    def of_all(cls, banks: tuple[ViewBank, ...], faces: LabelledFaces) -> "Teachers":
        """Teachers whose banks were made for exactly the training faces."""
        every = np.ones(len(faces), bool)
        return cls(banks, faces.pixels, every, every)

    def view(self, epoch: int, temperature: float) -> tuple[NDArray[np.uint8], Floats]:
        """The taught faces in an epoch's view, and the teachers' mean probabilities for them."""
        first = self.banks[0]
        view = epoch % len(first.logits)
        probabilities = [bank.probabilities(view, temperature)[self.chosen] for bank in self.banks]
        drawn = draw_view(self.pixels, first.seed, view)[self.chosen]
        return drawn, np.mean(probabilities, axis=0, dtype=np.float32)


class Batch(NamedTuple):
    """The faces and targets of one step, all float32: ``inputs`` is ``(b, 48, 48, 1)``, the rest has a row per face.

    A row of ``votes`` or ``teacher`` is 0 where the face has none. ``clean`` are the faces before they were degraded,
    for a feature teacher; None if there is none, or nothing is degraded.
    """

    inputs: Floats
    labels: Floats
    weights: Floats
    votes: Floats | None
    teacher: Floats | None
    clean: Floats | None


def batches(recipe: Recipe, training: TrainingSet, epoch: int) -> Iterator[Batch]:
    """Yield one epoch's batches in random order; an incomplete last batch is left out.

    With teachers, an epoch uses one view of their banks, each face mirrored at random. A face without teachers is
    augmented anew. After that the recipe's share of the faces is degraded; the teachers' answers and features are those
    for the clean view.
    """
    rng = np.random.default_rng([recipe.seed, epoch])
    order = rng.permutation(len(training))
    weights = (
        _class_weights(training.faces.labels) if recipe.class_balance else np.ones(len(FER2013_LABELS), np.float32)
    )
    source = _EpochImages(recipe, training, epoch)
    mixing = recipe.mixup > 0 and epoch < 0.8 * recipe.all_epochs
    for step in range(len(training) // recipe.batch):
        chosen = order[step * recipe.batch : (step + 1) * recipe.batch]
        labels = training.faces.labels[chosen]
        drawn = source.draw(chosen, rng)
        batch = Batch(
            inputs=_inputs(degrade(drawn, recipe.degradation, rng)),
            labels=_smooth(labels, recipe.label_smoothing),
            weights=weights[labels],
            votes=None if training.votes is None else training.votes[chosen],
            teacher=source.teacher(chosen),
            clean=_inputs(drawn) if training.features and recipe.degradation else None,
        )
        yield _mix(batch, recipe.mixup, rng) if mixing else batch


class _EpochImages:
    """One epoch's pictures, and the teachers' mean probabilities for them."""

    def __init__(self, recipe: Recipe, training: TrainingSet, epoch: int) -> None:
        self._strength = recipe.augmentation
        self._pixels = training.faces.pixels
        self._taught = np.zeros(len(training), bool)
        self._teacher: Floats | None = None
        if training.teachers:
            self._taught = training.teachers.taught
            views, probabilities = training.teachers.view(epoch, recipe.temperature)
            self._pixels = self._pixels.copy()
            self._pixels[self._taught] = views
            self._teacher = np.zeros((len(training), len(FER2013_LABELS)), np.float32)
            self._teacher[self._taught] = probabilities

    def draw(self, chosen: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.uint8]:
        pictures, taught = self._pixels[chosen], self._taught[chosen]
        mirrored = np.flatnonzero(taught)[rng.random(np.count_nonzero(taught)) < 0.5]
        pictures[mirrored] = pictures[mirrored, :, ::-1]
        pictures[~taught] = augment(pictures[~taught], rng, self._strength)
        return pictures

    def teacher(self, chosen: NDArray[np.int64]) -> Floats | None:
        return None if self._teacher is None else self._teacher[chosen]


def _inputs(pictures: NDArray[np.uint8]) -> Floats:
    return normalize(pictures)[..., np.newaxis]


def _class_weights(labels: NDArray[np.int64]) -> Floats:
    """Inverse frequency of each label, with a mean of 1 over the faces; 0 for a label that no face has."""
    counts = np.bincount(labels, minlength=len(FER2013_LABELS))
    present = np.count_nonzero(counts)
    return np.asarray(np.where(counts > 0, len(labels) / (present * np.maximum(counts, 1)), 0), np.float32)


def _smooth(labels: NDArray[np.int64], smoothing: float) -> Floats:
    classes = len(FER2013_LABELS)
    onehot = np.eye(classes, dtype=np.float32)[labels]
    return onehot * np.float32(1 - smoothing) + np.float32(smoothing / classes)


def _mix(batch: Batch, alpha: float, rng: np.random.Generator) -> Batch:
    """Blend each face and its targets with those of another (mixup, Zhang et al. 2018, arXiv 1710.09412)."""
    n = len(batch.inputs)
    share, other = rng.beta(alpha, alpha, n).astype(np.float32), rng.permutation(n)

    def blend(part: Floats | None) -> Floats | None:
        if part is None:
            return None
        own = share.reshape(n, *[1] * (part.ndim - 1))
        return own * part + (1 - own) * part[other]

    return Batch._make(map(blend, batch))
