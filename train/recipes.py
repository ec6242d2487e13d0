"""Recipes: every experiment as frozen, named data. Run one with ``fer-train run NAME --data PATH``."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Recipe:
    """How one network is trained.

    AdamW with a cosine schedule after ``warmup`` epochs; ``mixup`` is the alpha of the Beta distribution (0: off),
    switched off for the last fifth of the epochs; ``votes`` weighs the auxiliary loss on FERPlus
    votes (0: off); ``ema`` is the decay of the averaged weights, which are the ones
    that are measured and kept.
    """

    name: str
    model: str
    epochs: int
    batch: int = 64
    learning_rate: float = 1e-3
    warmup: int = 1
    weight_decay: float = 0.02
    dropout: float = 0.3
    label_smoothing: float = 0.1
    mixup: float = 0.0
    votes: float = 0.0
    ema: float = 0.999
    precision: str = "float32"
    seed: int = 1


RECIPES: Final = {
    recipe.name: recipe
    for recipe in (
        Recipe("co-teacher", model="co-teacher", epochs=20, mixup=0.2, votes=0.5),
        Recipe(
            "paper", model="paper", epochs=60, learning_rate=2e-3, dropout=0.25, votes=0.5, precision="mixed_bfloat16"
        ),
        Recipe("shallow", model="shallow", epochs=40, learning_rate=2e-3, dropout=0.25),
        Recipe("student", model="student", epochs=20, mixup=0.2),
        Recipe("student-small", model="student-small", epochs=10, votes=0.5),
    )
}
