"""A student learns the pooled features of another network, through the real program, on made-up faces."""

import json
from pathlib import Path

import pytest

pytest.importorskip("tensorflow", reason="the train extra is not installed")
pytestmark = pytest.mark.slow

from edge.errors import UsageError  # noqa: E402
from tests.programs import fer_train  # noqa: E402
from train.feature_teacher import find_feature_teacher  # noqa: E402
from train.recipes import RECIPES, Recipe, customize  # noqa: E402

_ALONE = ("votes=0", "teachers=")


def learning(*more: str) -> Recipe:
    return customize(RECIPES["student-small"], [*_ALONE, *more])


def run_arguments(data: Path, out: Path, *settings: str) -> list[object]:
    values = [part for setting in settings for part in ("--set", setting)]
    return ["run", "student-small", "--data", data, "--out", out, *values]


def test_the_features_come_near_those_of_the_teacher_which_is_among_the_sources(blobs: Path, tmp_path: Path) -> None:
    """At a weight of 50 the distance, which is 1 at most for features that are never negative, is most of the loss.

    In bfloat16 the two networks differ in precision.
    """
    settings = (*_ALONE, "precision=mixed_bfloat16", "batch=16", "epochs=3", "dropout=0", "degradation=0.5")
    done = fer_train(*run_arguments(blobs, tmp_path, *settings, "features=50", "feature_teacher=student-small-72"))
    assert done.returncode == 0, done.stderr
    history = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    first, last = (history[number]["loss"] - history[number]["training_loss"] for number in (0, -1))
    assert last < 0.6 * first
    run = json.loads((tmp_path / "run.json").read_text())
    taught = next(one for one in run["sources"] if one["role"] == "teacher")
    assert taught["name"] == "int8 bundle student-small-72"
    assert taught["source"].startswith("pooled features of: fer-train ")


def test_a_network_with_other_features_is_refused_before_the_folder_is_taken(few: Path, tmp_path: Path) -> None:
    settings = (*_ALONE, "batch=16", "features=1", "feature_teacher=student")
    done = fer_train(*run_arguments(few, tmp_path / "run", *settings))
    assert done.returncode == 2
    assert "feature_teacher=student: student has 1,024 pooled features, student-small has " in done.stderr
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (("features=1",), "features=1.0 without feature_teacher: give both, or none"),
        (("feature_teacher=student",), "feature_teacher=student without features: give both, or none"),
        (("features=1", "feature_teacher=nobody"), "feature_teacher=nobody: neither a run nor a bundle"),
    ],
)
def test_what_names_no_feature_teacher_is_refused(settings: tuple[str, ...], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        find_feature_teacher(learning(*settings))


def test_a_recipe_without_features_has_no_feature_teacher() -> None:
    assert find_feature_teacher(learning()) is None
