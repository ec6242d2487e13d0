"""A training run: a folder that holds everything needed to name, repeat or export its result."""

import dataclasses
import hashlib
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge.contract import normalize
from edge.errors import UsageError
from edge.fer2013 import LabelledFaces
from train.data import read_splits
from train.ferplus import read_votes
from train.models import MODELS
from train.pretrained import load_weights, provenance
from train.recipes import RECIPES, Recipe
from train.trainer import BEST, Epoch, TrainingSet, fit, prepare

_RUN = "run.json"
_STATISTICS_FACES = 512


@dataclass(frozen=True)
class Run:
    """What ``run.json`` says: the recipe, the data it saw, where the weights started, and what it reached."""

    recipe: Recipe
    command: str
    training_sha256: str
    public_sha256: str
    votes: str
    excluded: int
    init: str
    best: Epoch | None

    @classmethod
    def load(cls, folder: Path) -> "Run":
        """Read a run folder's ``run.json``. Raises UsageError when it is not one."""
        try:
            stored = json.loads((folder / _RUN).read_text())
            best = Epoch(**stored["best"]) if stored["best"] else None
            return cls(**{**stored, "recipe": Recipe(**stored["recipe"]), "best": best})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{folder}: not a training run ({error}). Make one with `fer-train run`.") from error

    def save(self, folder: Path) -> None:
        """Write ``run.json``."""
        (folder / _RUN).write_text(json.dumps(asdict(self), indent=2) + "\n")

    def model(self, folder: Path) -> Any:
        """The trained Keras model with its best averaged weights."""
        if not (folder / BEST).exists():
            raise UsageError(f"{folder}: the run has no {BEST} yet. Finish it with `fer-train run`.")
        model = MODELS[self.recipe.model].build(self.recipe.dropout)
        model.load_weights(folder / BEST)
        return model


def execute(recipe: Recipe, data: Path, folder: Path, weights: str, votes: Path | None) -> Run:
    """Train ``recipe`` on FER2013 at ``data`` into ``folder``, or continue the run that was interrupted there.

    ``weights`` is what ``train.pretrained`` takes: a name, a path or "none". ``votes`` are FERPlus's
    ``fer2013new.csv``; a recipe that weighs them raises UsageError without.
    """
    if recipe.votes and votes is None:
        raise UsageError(f"recipe {recipe.name} learns from FERPlus: give --votes fer2013new.csv, or --set votes=0")
    splits = read_splits(data)
    training, public = splits.training, splits.public
    print(
        f"{len(training)} faces to learn from; {splits.excluded} that PublicTest holds too are left out",
        file=sys.stderr,
    )
    shares = read_votes(votes, training) if votes and recipe.votes else None
    run = Run(
        recipe=recipe,
        command=command_of(recipe, weights, votes),
        training_sha256=training.sha256(),
        public_sha256=public.sha256(),
        votes="" if shares is None else f"FERPlus fer2013new.csv, sha256 {_sha256(votes)}",
        excluded=splits.excluded,
        init=provenance(MODELS[recipe.model], weights),
        best=None,
    )
    _refuse_another_run(folder, run)
    folder.mkdir(parents=True, exist_ok=True)
    run.save(folder)
    prepare(recipe)
    model = MODELS[recipe.model].build(recipe.dropout)
    load_weights(model, MODELS[recipe.model], weights, _statistics_faces(training))
    run = dataclasses.replace(run, best=fit(model, recipe, TrainingSet(training, shares), public, folder))
    run.save(folder)
    return run


def command_of(recipe: Recipe, weights: str, votes: Path | None) -> str:
    """The command that repeats a run; paths by name only, since they differ between machines."""
    named = RECIPES[recipe.name]
    keys = [field.name for field in dataclasses.fields(recipe)]
    changed = [f" --set {key}={getattr(recipe, key)}" for key in keys if getattr(recipe, key) != getattr(named, key)]
    crowd = f" --votes {votes.name}" if votes and recipe.votes else ""
    start = f" --weights {Path(weights).name}" if weights != "none" else ""
    return f"fer-train run {recipe.name} --data fer2013.csv{start}{crowd}{''.join(changed)}"


def _refuse_another_run(folder: Path, run: Run) -> None:
    if not (folder / _RUN).exists():
        return
    found = dataclasses.replace(Run.load(folder), best=None)
    differing = [f.name for f in dataclasses.fields(Run) if getattr(found, f.name) != getattr(run, f.name)]
    if differing:
        raise UsageError(
            f"{folder} holds a run with another {', '.join(differing)}. Give another --out, or remove that folder."
        )


def _statistics_faces(training: LabelledFaces) -> Any:
    return normalize(training.pixels[:_STATISTICS_FACES])[..., None]


def _sha256(file: Path | None) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file else ""
