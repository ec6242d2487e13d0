"""What the training loop is fed: augmented, mixed batches whose random draws depend on seed and epoch only."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge.evaluation.fer2013 import LabelledFaces
from edge.model.preprocessing import LABELS, normalize
from train.data.augmentation import augment
from train.data.view_bank import ViewBank, draw_view
from train.recipes import Recipe

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class TrainingSet:
    """Faces to learn from, and what else is known of them.

    ``votes`` are FERPlus's, ``(n, 10)`` float32; ``banks`` are the teachers, which share their views.
    """

    faces: LabelledFaces
    votes: Floats | None = None
    banks: tuple[ViewBank, ...] = ()

    def __len__(self) -> int:
        return len(self.faces)


class Batch(NamedTuple):
    """One step's faces and targets. ``inputs`` is ``(b, 48, 48, 1)``, the rest has one row a face; all float32."""

    inputs: Floats
    labels: Floats
    weights: Floats
    votes: Floats | None
    teacher: Floats | None


def batches(recipe: Recipe, training: TrainingSet, epoch: int) -> Iterator[Batch]:
    """Go once over the training faces in a new order; a last batch that is not full is left out.

    With teachers, the epoch shows one view of the bank, mirrored or not at random; else every face is augmented anew.
    """
    rng = np.random.default_rng([recipe.seed, epoch])
    order = rng.permutation(len(training))
    weights = _class_weights(training.faces.labels) if recipe.class_balance else np.ones(len(LABELS), np.float32)
    source = _Pictures(recipe, training, epoch)
    mixing = recipe.mixup > 0 and epoch < 0.8 * recipe.all_epochs
    for step in range(len(training) // recipe.batch):
        chosen = order[step * recipe.batch : (step + 1) * recipe.batch]
        labels = training.faces.labels[chosen]
        batch = Batch(
            inputs=normalize(source.draw(chosen, rng))[..., np.newaxis],
            labels=_smooth(labels, recipe.label_smoothing),
            weights=weights[labels],
            votes=None if training.votes is None else training.votes[chosen],
            teacher=source.teacher(chosen),
        )
        yield _mix(batch, recipe.mixup, rng) if mixing else batch


class _Pictures:
    """One epoch's pictures, and what the teachers say of them."""

    def __init__(self, recipe: Recipe, training: TrainingSet, epoch: int) -> None:
        self._strength = recipe.augmentation
        self._pixels = training.faces.pixels
        self._teacher: Floats | None = None
        if training.banks:
            bank = training.banks[0]
            view = epoch % len(bank.logits)
            self._pixels = draw_view(self._pixels, bank.seed, view)
            said = [bank.probabilities(view, recipe.temperature) for bank in training.banks]
            self._teacher = np.mean(said, axis=0, dtype=np.float32)

    def draw(self, chosen: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.uint8]:
        if self._teacher is None:
            return augment(self._pixels[chosen], rng, self._strength)
        mirrored = rng.random(len(chosen)) < 0.5
        pictures = self._pixels[chosen]
        pictures[mirrored] = pictures[mirrored, :, ::-1]
        return pictures

    def teacher(self, chosen: NDArray[np.int64]) -> Floats | None:
        return None if self._teacher is None else self._teacher[chosen]


def _class_weights(labels: NDArray[np.int64]) -> Floats:
    """Inverse frequency of each label, 1 on average over the faces; 0 for a label that nobody carries."""
    counts = np.bincount(labels, minlength=len(LABELS))
    present = np.count_nonzero(counts)
    return np.asarray(np.where(counts > 0, len(labels) / (present * np.maximum(counts, 1)), 0), np.float32)


def _smooth(labels: NDArray[np.int64], smoothing: float) -> Floats:
    classes = len(LABELS)
    onehot = np.eye(classes, dtype=np.float32)[labels]
    return onehot * np.float32(1 - smoothing) + np.float32(smoothing / classes)


def _mix(batch: Batch, alpha: float, rng: np.random.Generator) -> Batch:
    """Blend each face and its targets with another one's (mixup, Zhang et al., arXiv 1710.09412)."""
    n = len(batch.inputs)
    share, other = rng.beta(alpha, alpha, n).astype(np.float32), rng.permutation(n)

    def blend(part: Floats | None) -> Floats | None:
        if part is None:
            return None
        own = share.reshape(n, *[1] * (part.ndim - 1))
        return own * part + (1 - own) * part[other]

    return Batch._make(map(blend, batch))
