"""The plans fit together: a run that names another, or shares its folder, may rely on it."""

import dataclasses

import pytest

from edge.errors import UsageError
from edge.model.bundle import bundled
from train.plans import PLANS, Cycle, Mean, Plan, PlannedRun, find_plan
from train.recipes import assignments_of, customize, find_recipe


def test_each_bundled_model_has_a_plan() -> None:
    assert set(PLANS) == set(bundled())


@pytest.mark.parametrize("plan", PLANS.values(), ids=lambda plan: plan.name)
def test_a_run_is_made_of_earlier_runs_and_every_run_is_needed(plan: Plan) -> None:
    names = [run.name for run in plan.runs]
    assert len(set(names)) == len(names)
    for number, run in enumerate(plan.runs):
        assert set(run.made_of) <= set(names[:number]), run.name
    assert {name for run in plan.runs for name in run.made_of} == set(names[:-1])


@pytest.mark.parametrize("plan", PLANS.values(), ids=lambda plan: plan.name)
def test_the_last_run_is_the_model(plan: Plan) -> None:
    recipes = {run.name: run.recipe for run in plan.runs if isinstance(run, Cycle)}
    last = plan.runs[-1]
    assert isinstance(last, Mean)
    assert last.name == plan.name
    assert {recipes[name].name for name in last.made_of} == {plan.name}
    assert len(last.shares) == len(last.made_of)
    assert sum(last.shares) == pytest.approx(1)


def test_runs_of_one_name_share_a_folder_and_are_the_same_in_every_plan() -> None:
    found: dict[str, PlannedRun] = {}
    for plan in PLANS.values():
        for run in plan.runs:
            assert found.setdefault(run.name, run) == run


def test_the_hours_are_those_of_all_runs() -> None:
    plan = PLANS["student"]
    assert plan.hours == pytest.approx(sum(run.hours for run in plan.runs))
    assert all(run.hours > 0 for run in plan.runs if isinstance(run, Cycle))


def test_assignments_make_the_recipe_of_a_cycle_again() -> None:
    for run in (run for plan in PLANS.values() for run in plan.runs):
        if isinstance(run, Cycle):
            assert customize(find_recipe(run.recipe.name), assignments_of(run.recipe)) == run.recipe
    robust = next(run for run in PLANS["student"].runs if run.name == "student-robust-2")
    assert isinstance(robust, Cycle)
    assert assignments_of(dataclasses.replace(robust.recipe, teachers=("a", "b"))) == [
        "epochs=8",
        "degradation=0.5",
        "mixup=0.0",
        "teachers=a,b",
        "small_epochs=0",
        "seed=2",
    ]


def test_an_unknown_plan_is_answered_by_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"`fer-train run` trains a single recipe.*did you mean student-small"):
        find_plan("student_smal")
    with pytest.raises(UsageError, match="known here: student, student-small"):
        find_plan("paper")
