"""Recipes: every experiment as frozen, named data. ``fer-train run NAME --data fer2013.csv`` trains one.

The table has the last training cycle of each recipe: the weights that it started from (--weights), its hours on two
AVX-512 cores (-: not measured), and its accuracy on FER2013's PublicTest by ``fer-train evaluate RUN``: float32, single
crop, averaged weights of the epoch that PublicTest chose. docs/experiments/training-runs.md has all cycles and their
full commands.

recipe             started from           hours  PublicTest
-----------------  ---------------------  -----  ----------------------------
co-teacher         faceres.json           1.0    70.69 %
facenet            facenet_keras_2024.h5  0.8    71.30 %
paper              none                   1.8    67.76 %
paper-plain        none                   -      not measured
shallow            none                   0.2    59.57 %
student            student                0.3    70.83 %
student-72         runs/student-72        0.5    71.61 %
student-half       runs/student-half      0.2    69.32 %
student-quarter    student                0.1    64.64 %
student-small      runs/student-small     0.2    70.30 %
student-small-72   student-small          -      70.86 %
teacher            runs/teacher           0.5    70.02 %
vgg16              none                   -      not measured
resnet50-imagenet  imagenet               -      not measured: weights not available
resnet50-vggface   vggface                -      not measured: weights not available
"""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Final, Literal, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from edge.errors import UsageError, nearest

# `customize` checks these bounds. They keep out what no training survives, not what is unwise.
_Epochs = Annotated[int, Meta(ge=1, le=10_000)]
_EpochsOrNone = Annotated[int, Meta(ge=0, le=10_000)]
_Batch = Annotated[int, Meta(ge=1, le=100_000)]
_Side = Annotated[int, Meta(ge=8, le=48)]
_Seed = Annotated[int, Meta(ge=0, le=2**32 - 1)]  # of numpy
_Rate = Annotated[float, Meta(ge=0, le=10)]
_Weight = Annotated[float, Meta(ge=0, le=100)]
_Strength = Annotated[float, Meta(ge=0, le=4)]  # at more, contrast and scale may become negative
_Share = Annotated[float, Meta(ge=0, le=1)]
_Dropout = Annotated[float, Meta(ge=0, lt=1)]
_Temperature = Annotated[float, Meta(gt=0, le=1000)]


@dataclass(frozen=True)
class Recipe:
    """How one network is trained.

    The learning rate rises linearly over ``warmup`` epochs. Then it falls to zero as a cosine, or, with the schedule
    ``plateau``, to ``plateau_factor`` of itself after each ``plateau_patience`` epochs without a lower validation loss.
    A network with a pretrained backbone may first train its head alone for ``head_epochs`` at ``head_learning_rate``;
    then it is trained for ``epochs``. ``adamw`` with a ``weight_decay`` of 0 is Adam.

    ``augmentation`` scales all random changes (0: the pictures as they are). ``degradation`` is the share of the
    pictures that are degraded as by a bad camera (train.data.degradations; 0: none). ``class_balance`` weights each
    face by the inverse frequency of its label. ``mixup`` is the alpha of the Beta distribution (0: off); the last fifth
    of the epochs is without it. ``votes`` is the weight of the auxiliary loss on FERPlus votes (0: off). ``teachers``
    are view banks by name or path; their mean, softened by ``temperature``, has the share ``distillation`` of the loss.
    ``features`` is the weight of the distance between the network's pooled features and those of ``feature_teacher``, a
    run or bundle (0: off; train.feature_teacher). ``ema`` is the decay of the averaged weights, which are measured and
    kept (0: those of the last step). ``patience`` stops the run after so many epochs without a better validation
    ``monitor`` (0: never). Validation is on PublicTest.
    The first ``small_epochs`` of ``epochs`` train on pictures reduced to ``small_side`` pixels, which takes large
    networks a fraction of the time.
    """

    name: str
    model: str
    epochs: _Epochs
    head_epochs: _EpochsOrNone = 0
    head_learning_rate: _Rate = 1e-3
    batch: _Batch = 64
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: _Rate = 1e-3
    warmup: _EpochsOrNone = 1
    schedule: Literal["cosine", "plateau"] = "cosine"
    plateau_factor: _Share = 0.1
    plateau_patience: _Epochs = 4
    weight_decay: _Share = 0.02
    dropout: _Dropout = 0.3
    augmentation: _Strength = 1.0
    degradation: _Share = 0.0
    label_smoothing: _Share = 0.1
    class_balance: bool = False
    mixup: _Weight = 0.0
    votes: _Weight = 0.0
    teachers: tuple[str, ...] = ()
    distillation: _Share = 0.7
    temperature: _Temperature = 3.0
    features: _Weight = 0.0
    feature_teacher: str = ""
    ema: _Share = 0.999
    patience: _EpochsOrNone = 0
    monitor: Literal["accuracy", "loss"] = "accuracy"
    small_epochs: _EpochsOrNone = 0
    small_side: _Side = 32
    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    seed: _Seed = 1

    @property
    def all_epochs(self) -> int:
        """Epochs of both stages together."""
        return self.head_epochs + self.epochs


RECIPES: Final = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "co-teacher",
            model="co-teacher",
            epochs=12,
            votes=0.5,
            teachers=("student",),
            distillation=0.5,
            temperature=2.0,
            precision="mixed_bfloat16",
        ),
        Recipe(
            "facenet",
            model="facenet",
            epochs=7,
            learning_rate=3e-4,
            votes=0.5,
            teachers=("student",),
            distillation=0.5,
            temperature=2.0,
            precision="mixed_bfloat16",
        ),
        Recipe(
            "paper",
            model="paper",
            epochs=36,
            learning_rate=2e-3,
            dropout=0.15,
            votes=0.5,
            teachers=("co-teacher",),
            temperature=2.0,
            precision="mixed_bfloat16",
        ),
        Recipe("paper-plain", model="paper", epochs=36, learning_rate=2e-3, dropout=0.15, precision="mixed_bfloat16"),
        Recipe("shallow", model="shallow", epochs=16, learning_rate=2e-3, dropout=0.25, teachers=("co-teacher",)),
        Recipe(
            "teacher",
            model="teacher",
            epochs=8,
            learning_rate=1e-4,
            dropout=0.2,
            votes=0.5,
            teachers=("co-teacher", "facenet"),
            temperature=2.0,
            precision="mixed_bfloat16",
        ),
        Recipe(
            "student",
            model="student",
            epochs=30,
            small_epochs=12,
            mixup=0.2,
            votes=0.5,
            teachers=("facenet", "student-72", "teacher"),
            temperature=2.0,
            precision="mixed_bfloat16",
        ),
        Recipe(
            "student-72",
            model="student-72",
            epochs=7,
            votes=0.5,
            teachers=("co-teacher", "facenet"),
            temperature=2.0,
            precision="mixed_bfloat16",
        ),
        Recipe(
            "student-small",
            model="student-small",
            epochs=14,
            learning_rate=2e-3,
            dropout=0.1,
            votes=0.5,
            teachers=("student", "facenet", "student-72"),
            temperature=2.0,
            precision="mixed_bfloat16",
        ),
        Recipe(
            "student-small-72",
            model="student-small-72",
            epochs=6,
            dropout=0.0,
            votes=0.5,
            teachers=("facenet", "student-72", "teacher"),
            temperature=2.0,
            precision="mixed_bfloat16",
        ),
        *(
            Recipe(
                name,
                model=name,
                epochs=12,
                learning_rate=2e-3,
                dropout=0.15,
                votes=0.5,
                teachers=("student", "co-teacher"),
                temperature=2.0,
                precision="mixed_bfloat16",
            )
            for name in ("student-half", "student-quarter")
        ),
        Recipe(
            "vgg16",
            model="vgg16",
            epochs=60,
            batch=128,
            learning_rate=1e-4,
            warmup=0,
            schedule="plateau",
            weight_decay=0.0,
            dropout=0.5,
            label_smoothing=0.0,
            ema=0.0,
            patience=6,
            monitor="loss",
            precision="mixed_bfloat16",
        ),
        Recipe(
            "resnet50-imagenet", model="resnet50-imagenet", head_epochs=20, epochs=20, learning_rate=1e-4, dropout=0.2
        ),
        Recipe(
            "resnet50-vggface",
            model="resnet50-vggface",
            head_epochs=20,
            epochs=20,
            learning_rate=1e-4,
            dropout=0.25,
            class_balance=True,
        ),
    )
}


def find_recipe(name: str) -> Recipe:
    """The recipe called ``name``. Raises UsageError with the nearest name."""
    if name not in RECIPES:
        raise UsageError(f"no recipe {name!r}; {nearest(name, RECIPES)}")
    return RECIPES[name]


def customize(recipe: Recipe, assignments: list[str]) -> Recipe:
    """A copy of a recipe with ``key=value`` assignments applied; each value is converted to the key's type.

    Raises UsageError with the nearest key, or with what the key takes. Whether there is a network called ``model`` only
    train.models.registry knows, which loads TensorFlow.
    """
    types = {key: of for key, of in get_type_hints(Recipe, include_extras=True).items() if key != "name"}
    changes: dict[str, object] = {}
    for assignment in assignments:
        key, _, value = assignment.partition("=")
        if key not in types:
            raise UsageError(f"--set {assignment}: a recipe has no {key}; {nearest(key, types)}")
        parts = [part for part in value.split(",") if part] if get_origin(types[key]) is tuple else value
        try:
            changes[key] = msgspec.convert(parts, types[key], strict=False)
        except msgspec.ValidationError as error:
            raise UsageError(f"--set {assignment}: {error}") from error
    return dataclasses.replace(recipe, **changes)  # type: ignore[arg-type]


def assignments_of(recipe: Recipe) -> list[str]:
    """The ``key=value`` assignments by which ``customize`` makes ``recipe`` of the recipe of its name."""
    named = RECIPES[recipe.name]
    values = ((field.name, getattr(recipe, field.name)) for field in dataclasses.fields(recipe))
    return [f"{key}={_as_text(value)}" for key, value in values if value != getattr(named, key)]


def differences(one: Recipe, other: Recipe) -> list[str]:
    """What ``one`` has in place of the values of ``other``; of recipes of two names, the names alone."""
    if one.name != other.name:
        return [f"recipe {one.name} instead of {other.name}"]
    values = ((field.name, getattr(one, field.name), getattr(other, field.name)) for field in dataclasses.fields(one))
    return [
        f"{key}={_as_text(its) or 'none'} instead of {_as_text(others) or 'none'}"
        for key, its, others in values
        if its != others
    ]


def _as_text(value: object) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)
