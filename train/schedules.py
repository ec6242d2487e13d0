"""The stages of a run, their learning rates, and when a run stops early: by recipe and history, without TensorFlow."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from train.recipes import Recipe

_LEAST_GAIN: Final = 1e-4  # as in Keras's ReduceLROnPlateau


@dataclass(frozen=True)
class Stage:
    """A part of a run with one learning-rate schedule and one set of trainable layers; ``first`` is its first epoch."""

    first: int
    epochs: int
    learning_rate: float
    head_only: bool

    @property
    def end(self) -> int:
        """The epoch after the last."""
        return self.first + self.epochs


def stages(recipe: Recipe) -> list[Stage]:
    """The stages of a recipe: the head alone, if the recipe has ``head_epochs``, then the whole network."""
    head = Stage(0, recipe.head_epochs, recipe.head_learning_rate, head_only=True)
    whole = Stage(recipe.head_epochs, recipe.epochs, recipe.learning_rate, head_only=False)
    return [stage for stage in (head, whole) if stage.epochs]


def learning_rate(recipe: Recipe, stage: Stage, step: int, steps: int, losses: Sequence[float]) -> float:
    """The learning rate of a step, counted from the start of its stage; an epoch has ``steps`` steps.

    It rises linearly in the warm-up. After that ``cosine`` falls to zero (Loshchilov and Hutter, arXiv 1608.03983), and
    ``plateau`` falls by a factor whenever the validation loss has not fallen for some epochs. ``losses`` are those of
    the stage's finished epochs, so that a run that is continued has the rates of one that was never interrupted.
    """
    warmup = min(recipe.warmup, stage.epochs) * steps
    if step < warmup:
        return stage.learning_rate * (step + 1) / warmup
    if recipe.schedule == "plateau":
        return stage.learning_rate * recipe.plateau_factor ** _plateaus(losses, recipe.plateau_patience)
    progress = (step - warmup) / max(1, stage.epochs * steps - warmup)
    return float(stage.learning_rate * 0.5 * (1 + np.cos(np.pi * progress)))


def epochs_since_best(values: Sequence[float]) -> int:
    """How many epochs came after the first one with the largest value; 0 without any."""
    return len(values) - 1 - int(np.argmax(values)) if len(values) else 0


def _plateaus(losses: Sequence[float], patience: int) -> int:
    """How often the loss has not fallen for ``patience`` epochs."""
    best, waited, plateaus = np.inf, 0, 0
    for loss in losses:
        if loss < best - _LEAST_GAIN:
            best, waited = loss, 0
        else:
            waited += 1
        if waited >= patience:
            plateaus, waited = plateaus + 1, 0
    return plateaus
