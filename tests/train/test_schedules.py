"""Stages, learning rates and patience, as the recipes state them."""

import numpy as np
import pytest

from train.recipes import RECIPES, Recipe
from train.schedules import Stage, epochs_since_best, learning_rate, stages


def test_the_head_is_trained_before_the_whole_network() -> None:
    recipe = Recipe("trial", model="resnet50-imagenet", head_epochs=2, head_learning_rate=0.1, epochs=5)
    assert stages(recipe) == [Stage(0, 2, 0.1, head_only=True), Stage(2, 5, 1e-3, head_only=False)]
    assert stages(Recipe("trial", model="paper", epochs=5)) == [Stage(0, 5, 1e-3, head_only=False)]


@pytest.mark.parametrize("name", ["resnet50-imagenet", "resnet50-vggface"])
def test_the_published_resnets_train_twenty_and_twenty_epochs(name: str) -> None:
    assert [(stage.epochs, stage.head_only) for stage in stages(RECIPES[name])] == [(20, True), (20, False)]


def test_a_cosine_follows_the_warm_up() -> None:
    recipe = Recipe("trial", model="paper", epochs=5, warmup=1, learning_rate=2.0)
    [stage] = stages(recipe)
    rates = [learning_rate(recipe, stage, step, 10, []) for step in range(50)]
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) / 10 * 2)
    assert rates[10] == 2
    assert rates[30] == pytest.approx(1)  # half of the epochs after the warm-up
    assert np.all(np.diff(rates[10:]) < 0)


def test_vgg16_lowers_its_rate_on_plateaus_and_stops_as_its_project_did() -> None:
    """LR 1e-4, batch 128, Adam; factor 0.1 with patience 4, early stopping on the validation loss with patience 6."""
    recipe = RECIPES["vgg16"]
    assert (recipe.batch, recipe.optimizer, recipe.weight_decay) == (128, "adamw", 0.0)
    assert (recipe.monitor, recipe.patience, recipe.ema) == ("loss", 6, 0.0)
    [stage] = stages(recipe)
    losses = [2.0, 1.5, 1.6, 1.5, 1.50005, 1.49995, 1.4, 1.5, 1.5, 1.5, 1.5, 1.5]
    #                                 four without a lower one ^    and again, from 1.4 on ^
    rates = [learning_rate(recipe, stage, 7 * epoch, 7, losses[:epoch]) for epoch in range(len(losses) + 1)]
    np.testing.assert_allclose(rates, [1e-4] * 6 + [1e-5] * 5 + [1e-6] * 2)


def test_patience_counts_from_the_first_best_epoch() -> None:
    assert epochs_since_best([]) == 0
    assert epochs_since_best([0.5]) == 0
    assert epochs_since_best([0.5, 0.7, 0.7, 0.6]) == 2
