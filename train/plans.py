"""Plans: how each bundled model is made from published weights. ``fer-train build NAME`` carries one out.

A plan is a chain of runs. A cycle is trained by a recipe, from the published weights or from an earlier cycle; the
learning rate rises and falls once. A mean is that of the weights of earlier cycles. Clean cycles come first. Those on
degraded pictures (``degradation``) start from the last clean one, and their mean with it keeps most of the strengths
of both (train.average).

Plans share cycles: ``student-small`` begins as the most telling filters of the clean cycles of ``student``. A run has
one name, and is the same, in every plan.

The hours are those of one build on two AVX-512 cores (docs/experiments/training-runs.md); those of ``student-small-72``
are predicted. The bundled ``student-small`` is its result. The other bundles were made by chains of single commands.
"""

from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from edge.errors import UsageError, nearest
from train.recipes import RECIPES, Recipe


@dataclass(frozen=True)
class Cycle:
    """One training run: its name, its recipe, and its hours.

    ``start`` names the earlier cycle that it starts from; None: it starts from published weights.
    """

    name: str
    recipe: Recipe
    start: str | None
    hours: float

    @property
    def made_of(self) -> tuple[str, ...]:
        """The names of the runs that must be finished before."""
        return (self.start,) if self.start else ()


@dataclass(frozen=True)
class Mean:
    """The mean of the weights of earlier cycles, which are ``made_of``, and the share of each. It takes minutes."""

    name: str
    made_of: tuple[str, ...]
    shares: tuple[float, ...]
    hours: float = 0.0


PlannedRun: TypeAlias = Cycle | Mean


@dataclass(frozen=True)
class Plan:
    """The runs that make a model, in their order; the last one is the model."""

    name: str
    runs: tuple[PlannedRun, ...]

    @property
    def hours(self) -> float:
        """The hours of all runs together, on two AVX-512 cores."""
        return sum(run.hours for run in self.runs)


_STUDENT: Final = replace(RECIPES["student"], small_epochs=0, mixup=0.0)
_SMALL: Final = replace(RECIPES["student-small"], learning_rate=1e-3, dropout=0.0)

_SMALL_72: Final = RECIPES["student-small-72"]

_CLEAN: Final = (
    Cycle("student-clean", RECIPES["student"], None, 0.7),
    Cycle("student-clean-2", replace(_STUDENT, epochs=9, learning_rate=5e-4), "student-clean", 0.3),
)
_SMALL_RUNS: Final = (
    *_CLEAN,
    Cycle("small-clean", RECIPES["student-small"], "student-clean-2", 0.2),
    Cycle("small-clean-2", replace(_SMALL, epochs=10, seed=2), "small-clean", 0.2),
    Cycle("small-robust", replace(_SMALL, epochs=8, degradation=0.5), "small-clean-2", 0.15),
    Cycle("small-robust-2", replace(_SMALL, epochs=8, degradation=0.5, seed=2), "small-robust", 0.15),
    Mean("student-small", ("small-robust-2", "small-robust", "small-clean-2"), (0.45, 0.2, 0.35)),
)


def _small_72_robust(number: int, start: str, epochs: int) -> Cycle:
    """Cycle ``number`` of ``student-small-72`` on degraded pictures, which is also its seed."""
    recipe = replace(_SMALL_72, epochs=epochs, degradation=0.5, seed=number)
    return Cycle(f"small-72-robust-{number}", recipe, start, 0.04 * epochs)


PLANS: Final = {
    plan.name: plan
    for plan in (
        Plan(
            "student",
            (
                *_CLEAN,
                Cycle("student-robust", replace(_STUDENT, epochs=8, degradation=0.5), "student-clean-2", 0.3),
                Cycle("student-robust-2", replace(_STUDENT, epochs=8, degradation=0.5, seed=2), "student-robust", 0.3),
                Mean("student", ("student-robust-2", "student-robust", "student-clean-2"), (0.5, 0.25, 0.25)),
            ),
        ),
        Plan("student-small", _SMALL_RUNS),
        Plan(
            "student-small-72",
            (
                *_SMALL_RUNS,
                Cycle("small-72-clean", _SMALL_72, "student-small", 0.25),
                Cycle("small-72-clean-2", replace(_SMALL_72, learning_rate=7e-4, seed=2), "small-72-clean", 0.25),
                _small_72_robust(1, "small-72-clean-2", 5),
                _small_72_robust(2, "small-72-clean-2", 5),
                Mean(
                    "small-72-mean", ("small-72-robust-2", "small-72-robust-1", "small-72-clean-2"), (0.45, 0.2, 0.35)
                ),
                _small_72_robust(3, "small-72-robust-2", 6),
                _small_72_robust(4, "small-72-mean", 6),
                Mean(
                    "student-small-72",
                    ("small-72-robust-3", "small-72-robust-4", "small-72-robust-2", "small-72-clean"),
                    (0.3, 0.3, 0.2, 0.2),
                ),
            ),
        ),
    )
}
"""Every plan, by the name of the model that it makes."""


def find_plan(name: str) -> Plan:
    """The plan called ``name``. Raises UsageError with the nearest name."""
    if name not in PLANS:
        raise UsageError(f"no plan for {name!r} (`fer-train run` trains a single recipe); {nearest(name, PLANS)}")
    return PLANS[name]
