"""Recipes: every experiment as frozen, named data. ``fer-train run NAME --data fer2013.csv`` repeats one.

PublicTest is by ``fer-train evaluate RUN``: single crop without test-time augmentation, in float32, of the averaged
weights of the epoch that PublicTest chose.
Hours are of two virtual AVX-512 cores, with tests running beside. V stands for ``--votes fer2013new.csv``, W
for ``--weights package/models/faceres.json``. "Again" is another cycle of the learning rate from the weights of the
row above: docs/accuracy.md has these commands whole. What is not measured says so.

recipe               command                               hours  PublicTest
-------------------  ------------------------------------  -----  ----------------------------
co-teacher           fer-train run co-teacher ... W V      1.0    70.69 %
student              fer-train run student ... W V         1.2    68.71 %
student, again       --weights runs/student ...            0.5    69.88 %
student, once more   --weights student ...                 0.5    70.22 %
student, and again   --weights student ...                 0.3    70.35 %
student, the fifth   --weights student ...                 0.3    70.74 %
student, the sixth   --weights student ...                 0.3    70.83 %
student-72           --weights runs/student ... V          0.5    71.02 %
student-72, again    --weights runs/student-72 ...         0.5    71.61 %
student-small        --weights student ... V               0.2    69.32 %
student-small, again --weights runs/student-small ...      0.2    70.30 %
student-half         --weights student ... V               0.2    68.74 %
student-half, again  --weights runs/student-half ...       0.2    69.32 %
student-quarter      --weights student ... V               0.1    64.64 %
teacher              --weights runs/student-half-again V   1.1    69.32 %
teacher, again       --weights runs/teacher ...            0.5    70.02 %
paper                fer-train run paper ... V             1.8    67.76 %
shallow              fer-train run shallow ...             0.2    59.57 %
facenet              --weights facenet_keras_2024.h5 V      0.8    71.30 %
vgg16                fer-train run vgg16 ...               -      not measured
resnet50-imagenet    ... --weights imagenet                -      not measured: its weights could not be had
resnet50-vggface     ... --weights vggface                 -      not measured: its weights could not be had
"""

import dataclasses
from dataclasses import dataclass
from typing import Final, Literal, get_origin, get_type_hints

import msgspec

from edge.errors import UsageError, nearest


@dataclass(frozen=True)
class Recipe:
    """How one network is trained.

    The learning rate rises over ``warmup`` epochs and falls to zero as a cosine. A network with a pretrained backbone
    may first train its head alone for ``head_epochs`` at ``head_learning_rate``; then come ``epochs`` with everything.

    ``augmentation`` scales all random changes (0: the pictures as they are). ``class_balance`` weighs each face by the
    inverse frequency of its label. ``mixup`` is the alpha of the Beta distribution (0: off), off for the last fifth
    of the epochs. ``votes`` weighs the auxiliary loss on FERPlus votes (0: off). ``teachers`` are view banks by
    name or path; their average, softened by ``temperature``, gets the share ``distillation`` of the loss.
    ``ema`` is the decay of the averaged weights, which are the ones that are measured and kept. ``patience`` ends the
    run after so many epochs without a better PublicTest accuracy (0: never). The first ``small_epochs`` of ``epochs``
    show pictures reduced to ``small_side`` pixels, which large networks learn from in a fraction of the time.
    """

    name: str
    model: str
    epochs: int
    head_epochs: int = 0
    head_learning_rate: float = 1e-3
    batch: int = 64
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 1e-3
    warmup: int = 1
    weight_decay: float = 0.02
    dropout: float = 0.3
    augmentation: float = 1.0
    label_smoothing: float = 0.1
    class_balance: bool = False
    mixup: float = 0.0
    votes: float = 0.0
    teachers: tuple[str, ...] = ()
    distillation: float = 0.7
    temperature: float = 3.0
    ema: float = 0.999
    patience: int = 0
    small_epochs: int = 0
    small_side: int = 32
    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    seed: int = 1

    @property
    def all_epochs(self) -> int:
        """Epochs of both stages."""
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
            learning_rate=2e-4,
            dropout=0.5,
            patience=6,
            precision="mixed_bfloat16",
        ),
        Recipe(
            "resnet50-imagenet", model="resnet50-imagenet", head_epochs=10, epochs=20, learning_rate=1e-4, dropout=0.2
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
    """The recipe of a name. Raises UsageError naming the nearest."""
    if name not in RECIPES:
        raise UsageError(f"no recipe {name!r}; {nearest(name, RECIPES)}")
    return RECIPES[name]


def customize(recipe: Recipe, assignments: list[str]) -> Recipe:
    """Apply ``key=value`` assignments to a recipe, each value read as the key's own type.

    Raises UsageError naming the nearest key, or what the key takes.
    """
    types = {key: of for key, of in get_type_hints(Recipe).items() if key != "name"}
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
