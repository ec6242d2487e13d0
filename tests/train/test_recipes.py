import dataclasses

import pytest

from edge.errors import UsageError
from train.data.view_bank import find_bank
from train.recipes import RECIPES, Recipe, customize, find_recipe


def test_overrides_take_the_keys_own_type() -> None:
    recipe = customize(
        RECIPES["student"],
        ["epochs=2", "mixup=0.5", "class_balance=true", "optimizer=sgd", "teachers=co-teacher,mine.npz"],
    )
    assert (recipe.epochs, recipe.mixup, recipe.class_balance) == (2, 0.5, True)
    assert (recipe.optimizer, recipe.teachers) == ("sgd", ("co-teacher", "mine.npz"))


@pytest.mark.parametrize(
    ("assignment", "told"),
    [
        ("epochs=many", "--set epochs=many: "),
        ("optimiser=sgd", "did you mean optimizer"),
        ("schedule=linear", "Invalid enum value"),
        ("zzz=1", "known here: model, epochs"),
        ("name=other", "a recipe has no name"),
        ("epochs=0", "--set epochs=0: Expected `int` >= 1"),
        ("batch=0", ">= 1"),
        ("degradation=50", "<= 1.0"),
        ("dropout=1", "< 1.0"),
        ("temperature=0", "> 0.0"),
        ("learning_rate=-1e-3", ">= 0.0"),
        ("learning_rate=nan", ">= 0.0"),
        ("learning_rate=inf", "<= 10.0"),
        ("plateau_patience=0", ">= 1"),
        ("small_side=49", "<= 48"),
        ("seed=-1", ">= 0"),
    ],
)
def test_a_wrong_override_says_what_the_key_takes_or_the_nearest_key(assignment: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        customize(RECIPES["student"], [assignment])


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda recipe: recipe.name)
def test_every_recipe_is_within_the_bounds_of_its_keys(recipe: Recipe) -> None:
    values = {key: value for key, value in dataclasses.asdict(recipe).items() if key != "name"}
    texts = [f"{key}={','.join(value) if key == 'teachers' else value}" for key, value in values.items()]
    assert customize(recipe, texts) == recipe


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda recipe: recipe.name)
def test_the_teachers_of_every_recipe_ship_and_share_their_views(recipe: Recipe) -> None:
    banks = [find_bank(name) for name in recipe.teachers]
    assert len({(bank.seed, len(bank.logits), bank.training_sha256) for bank in banks}) <= 1


def test_an_unknown_recipe_is_answered_by_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean student-small"):
        find_recipe("student_smal")
