"""A network whose pooled features a student learns, beside the teachers' answers (Romero et al. 2015, arXiv 1412.6550).

Pooled features are what the last layer makes logits of. The view banks have no features, so the network itself looks at
every batch, as it is before it is degraded.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from edge.errors import UsageError
from edge.model.origin import Source
from train.init.batch_norm import Values
from train.initial_weights import InitialWeights, find_trained
from train.recipes import Recipe
from train.sources import prefixed, with_role
from train.trainer import build_in_float32, feature_model


@dataclass(frozen=True)
class FeatureTeacher:
    """A trained network, by the name of its architecture, and its weights."""

    network: str
    trained: InitialWeights

    @property
    def sources(self) -> tuple[Source, ...]:
        """What it was made of, as a teacher's."""
        return with_role("teacher", prefixed(self.trained.sources, "pooled features of:"))

    def build(self, recipe: Recipe, faces: Values) -> Any:
        """The network from normalized faces, ``(b, 48, 48, 1)``, to pooled features, ``(b, n)``.

        It is float32, whatever precision ``recipe`` trains in. ``faces`` are those of
        train.init.batch_norm.restore_batch_norms.
        """
        model = build_in_float32(dataclasses.replace(recipe, model=self.network, dropout=0.0))
        self.trained.load(model, faces)
        model.trainable = False
        return feature_model(model)


def find_feature_teacher(recipe: Recipe) -> FeatureTeacher | None:
    """The network that ``feature_teacher`` names; None for a recipe that learns no features.

    Raises UsageError when there is no such run or bundle, and when it or its weight in the loss is missing.
    """
    if bool(recipe.features) != bool(recipe.feature_teacher):
        given, missing = ("features", "feature_teacher") if recipe.features else ("feature_teacher", "features")
        raise UsageError(f"{given}={getattr(recipe, given)} without {missing}: give both, or none")
    if not recipe.feature_teacher:
        return None
    found = find_trained(recipe.feature_teacher)
    if found is None:
        raise UsageError(f"feature_teacher={recipe.feature_teacher}: neither a run nor a bundle")
    return FeatureTeacher(*found)
