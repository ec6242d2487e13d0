"""A training run: its inputs, its ``run.json``, and the folder that is needed to repeat or export its result."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from edge.errors import UsageError
from edge.evaluation.fer2013 import LabelledFaces
from edge.labels import FER2013_LABELS
from edge.model.bundle import CARD_FILE, bundled, find_bundle, open_bundle
from edge.model.origin import Source
from edge.model.preprocessing import normalize
from edge.system.atomic_file import write_durably
from edge.untrusted_file import read_regular
from train.checkpoints import BEST_WEIGHTS, Epoch, read_history, writing_run
from train.data.batches import Teachers, TrainingSet
from train.data.dataset import Splits, read_splits
from train.data.ferplus import read_votes
from train.data.view_bank import find_bank
from train.distributed import Workers
from train.init.batch_norm import Values
from train.init.from_bundle import bundle_sources, load_bundle_weights
from train.init.net2net import initialize_function_preserving
from train.init.pretrained import load_weights, weights_sources
from train.init.pruning import prune_filters
from train.models.registry import MODELS, find_architecture
from train.outputs import make_folder
from train.progress import print_line
from train.recipes import RECIPES, Recipe, assignments_of
from train.report import write_report
from train.sources import (
    OUR_LICENCE,
    as_teacher,
    data_source,
    distinct,
    prefixed,
    sha256_of,
    sources_of_lines,
    votes_source,
)
from train.trainer import build_in_float32, check_recipe, configure_keras, fit, measure_in_float32, predict_logits

_RUN = "run.json"
_LARGEST_FILE: Final = 1_000_000  # bytes; a whole one has a few thousand
_STATISTICS_FACES = 512


@dataclass(frozen=True)
class RunInputs:
    """What a run reads: one data set or several that are joined, the weights that it starts from, and FERPlus votes.

    ``weights`` names an earlier run or a bundle, or is what train.init.pretrained takes; ``skip_bad`` is that of
    train.data.dataset.read_splits.
    """

    data: Sequence[Path]
    weights: str = "none"
    votes: Path | None = None
    skip_bad: bool = False


@dataclass(frozen=True)
class Run:
    """The content of ``run.json``: recipe, what the network was made of, and the best epoch.

    ``excluded`` counts the Training pictures that were left out because another split holds them too; ``skipped``
    counts the bad rows. ``measured`` is the split that accuracy is measured on. ``sources`` is what the network was
    made of (train.sources): initial weights, teachers, data; random weights are none. ``revision`` is the Git commit of
    the program, with ``+`` when files differed from it; it is empty when unknown. ``best`` is None until the run is
    finished, and for a mean of networks (train.average). ``start`` is the accuracy before training, 0 to 1; None for a
    run from random weights, for a mean, and for one of an earlier version.
    """

    recipe: Recipe
    command: str
    revision: str
    training_sha256: str
    public_sha256: str
    sources: tuple[Source, ...]
    excluded: int
    skipped: int
    measured: str
    best: Epoch | None
    start: float | None = None

    @classmethod
    def load(cls, folder: Path) -> "Run":
        """Read the ``run.json`` of a run folder. Raises UsageError when the folder is not one."""
        try:
            stored = json.loads(read_regular(folder / _RUN, _LARGEST_FILE))
            best = Epoch(**stored["best"]) if stored["best"] else None
            recipe = Recipe(**{**stored["recipe"], "teachers": tuple(stored["recipe"]["teachers"])})
            return cls(**{**_with_sources(stored), "recipe": recipe, "best": best})
        except (OSError, ValueError, KeyError, TypeError, RecursionError, msgspec.ValidationError) as error:
            raise UsageError(f"{folder}: not a training run ({error}). Make one with `fer-train run`.") from error

    def save(self, folder: Path) -> None:
        """Replace ``run.json`` in one step: half of one would make the folder useless. Raises CheckpointError."""
        with writing_run(folder):
            write_durably(folder / _RUN, json.dumps(msgspec.to_builtins(self), indent=2).encode() + b"\n")

    def model(self, folder: Path) -> Any:
        """The trained Keras model with its best averaged weights, in float32. Raises as ``load_into`` does."""
        model = build_in_float32(self.recipe)
        self.load_into(model, folder)
        return model

    def load_into(self, model: Any, folder: Path) -> None:
        """Load the best averaged weights into a model of the same network. Raises UsageError when there are none."""
        if not (folder / BEST_WEIGHTS).exists():
            raise UsageError(f"{folder}: the run has no {BEST_WEIGHTS} yet. Finish it with `fer-train run`.")
        try:
            model.load_weights(folder / BEST_WEIGHTS)
        except (OSError, ValueError) as error:
            raise UsageError(f"{folder / BEST_WEIGHTS}: not the weights of {self.recipe.model}: {error}") from error

    def unfinished(self, folder: Path) -> str:
        """How to end its training; empty if that has ended. A mean has no ``best`` epoch either, but no history."""
        going_on = self.best is None and read_history(folder)
        return f"{folder}: the run is not finished. Continue it: {self.command} --out {folder}" if going_on else ""

    def require_finished(self, folder: Path) -> None:
        """Raise UsageError unless its training has ended."""
        if sentence := self.unfinished(folder):
            raise UsageError(sentence)

    def as_sources(self, folder: Path) -> tuple[Source, ...]:
        """The run's network as what another is made of, and what it was made of itself."""
        reached = f"{self.measured} {self.best.accuracy:.2%}" if self.best else "no epoch measured"
        weights = folder / BEST_WEIGHTS
        sha256 = sha256_of(weights) if weights.exists() else None
        network = Source("start", f"run {self.recipe.name}", f"{self.command} ({reached})", OUR_LICENCE, sha256)
        return distinct((network, *self.sources))

    def faces(self, folder: Path, data: Sequence[Path]) -> Splits:
        """Read the faces that the run was trained and measured on. Raises UsageError when ``data`` holds others."""
        splits = read_splits(*data, skip_bad=self.skipped > 0)
        theirs = splits.find_training(self.training_sha256)
        if theirs is None or splits.public.sha256() != self.public_sha256:
            raise UsageError(f"{' and '.join(map(str, data))} is not the data that {folder} was trained on")
        return dataclasses.replace(splits, training=splits.published.select(theirs))


def _with_sources(stored: dict[str, Any]) -> dict[str, Any]:
    """What ``run.json`` has, with ``sources`` also when an earlier program wrote lines instead."""
    if "sources" in stored:
        return {**stored, "sources": msgspec.convert(stored["sources"], tuple[Source, ...])}
    kept = {key: value for key, value in stored.items() if key not in ("init", "teachers", "votes")}
    data = data_source("FER2013 Training", stored["training_sha256"], stored["excluded"], stored["skipped"])
    return {**kept, "sources": sources_of_lines(stored["init"], stored["teachers"], stored["votes"], data)}


def train_recipe(recipe: Recipe, inputs: RunInputs, folder: Path, workers: Workers) -> Run:
    """Train ``recipe`` into ``folder``, or continue the run that was interrupted there.

    Raises UsageError when the folder holds another run, and what ``check_inputs`` raises.
    """
    check_inputs(recipe, inputs)  # before the data, which may take a minute to parse
    start = Path(inputs.weights)
    if workers.chief and is_run(inputs.weights) and (sentence := Run.load(start).unfinished(start)):
        print_line(f"warning: its best epoch so far is taken. {sentence}")
    splits = read_splits(*inputs.data, skip_bad=inputs.skip_bad)
    print(splits, file=sys.stderr)
    return train_prepared(prepare_run(recipe, inputs, splits), folder, workers)


@dataclass(frozen=True)
class PreparedRun:
    """A run that can begin: its ``run.json`` before the first epoch, its faces, and the weights that it starts from."""

    run: Run
    splits: Splits
    training: TrainingSet
    weights: "InitialWeights"


def check_inputs(recipe: Recipe, inputs: RunInputs) -> "InitialWeights":
    """The weights that a run of ``recipe`` starts from.

    Raises UsageError when there is no such network or it cannot start from them, and when the recipe needs votes and
    ``inputs`` has none.
    """
    if recipe.votes and inputs.votes is None:
        raise UsageError(f"recipe {recipe.name} learns from FERPlus: give --votes fer2013new.csv, or --set votes=0")
    return _initial_weights(recipe, inputs.weights)


def prepare_run(recipe: Recipe, inputs: RunInputs, splits: Splits) -> PreparedRun:
    """Check everything that a run of ``recipe`` needs; ``splits`` are the faces of ``inputs.data``.

    Raises what ``check_inputs`` raises, and DataError and UsageError when teachers or votes do not fit the faces.
    """
    weights = check_inputs(recipe, inputs)
    training = _training_set(recipe, inputs, splits)
    return PreparedRun(_new_run(recipe, inputs, splits, training, weights.sources), splits, training, weights)


def train_prepared(prepared: PreparedRun, folder: Path, workers: Workers) -> Run:
    """Train a run into ``folder``, or continue it there.

    Raises UsageError when the folder holds another run, and when the recipe does not fit the faces or the network;
    CheckpointError when the folder cannot be written.
    """
    run, splits = prepared.run, prepared.splits
    recipe = run.recipe
    if workers.chief:
        refuse_another_run(folder, run)
        make_folder(folder)
    configure_keras(recipe)
    with workers.strategy.scope():
        model = MODELS[recipe.model].build(recipe.dropout)
        check_recipe(model, recipe, len(prepared.training))  # before run.json: a corrected command may take the folder
        prepared.weights.load(model, statistics_faces(splits.training))
        model = workers.synchronized(model)
    if prepared.weights.sources:
        run = dataclasses.replace(run, start=measure_in_float32(model, recipe, splits.public)[0].accuracy)
        print_line(f"{recipe.name} before training: {run.measured} {run.start:.2%}")
    if workers.chief:
        run.save(folder)
    best = fit(model, recipe, prepared.training, splits.public, folder, workers)
    run = dataclasses.replace(run, best=best)
    if workers.chief:
        run.save(folder)
        logits = predict_logits(run.model(folder), splits.public.pixels)
        with writing_run(folder):
            write_report(folder, run.command, read_history(folder), splits.public, logits)
    return run


@dataclass(frozen=True)
class InitialWeights:
    """Weights that training starts from, and what they were made of.

    ``load(model, faces)`` loads them into a network; ``faces`` are those of train.init.batch_norm.restore_batch_norms.
    """

    sources: tuple[Source, ...]
    load: Callable[[Any, Values], object]


def _initial_weights(recipe: Recipe, weights: str) -> InitialWeights:
    """The weights that ``--weights`` names. Raises UsageError when the recipe's network cannot start from them."""
    architecture = find_architecture(recipe.model)
    found = find_trained(weights)
    if found is None:
        return InitialWeights(
            weights_sources(architecture, weights),
            lambda model, faces: load_weights(model, architecture, weights, faces),
        )
    network, trained = found
    if network == architecture.name:
        return trained
    if network == architecture.wider:
        return _converted(prune_filters, "the most telling filters of", network, trained)
    if network == architecture.narrower:
        return _converted(initialize_function_preserving, "grown from", network, trained)
    raise UsageError(
        f"--weights {weights}: weights of {network}; {recipe.name} takes those of {' or '.join(architecture.sources)}"
    )


def find_trained(weights: str) -> tuple[str, InitialWeights] | None:
    """The network of a run or bundle, and its weights; None when ``weights`` names neither."""
    folder = Path(weights)
    if weights in bundled() or (folder / CARD_FILE).is_file():
        bundle = open_bundle(find_bundle(weights), FER2013_LABELS)
        named = RECIPES.get(bundle.card.name)
        return named.model if named else bundle.card.name, InitialWeights(
            bundle_sources(bundle.card), lambda model, faces: load_bundle_weights(model, bundle, faces)
        )
    if folder.is_dir():
        run = Run.load(folder)
        return run.recipe.model, InitialWeights(
            run.as_sources(folder), lambda model, _faces: run.load_into(model, folder)
        )
    return None


def _converted(
    convert: Callable[[Any, Any, Values], None], how: str, network: str, trained: InitialWeights
) -> InitialWeights:
    """Weights of another network, which ``convert(model, source, faces)`` turns into those of the recipe's network."""

    def load(model: Any, faces: Values) -> None:
        source = MODELS[network].build(0.0)
        trained.load(source, faces)
        convert(model, source, faces)

    return InitialWeights(prefixed(trained.sources, f"{how}:"), load)


def command_of(recipe: Recipe, inputs: RunInputs) -> str:
    """The command that repeats a run. It has the names of files without their folders, which differ by machine."""
    options = inputs if recipe.votes else dataclasses.replace(inputs, votes=None)
    return f"fer-train run {recipe.name} {options_of(options, assignments_of(recipe))}"


def options_of(inputs: RunInputs, assignments: Sequence[str]) -> str:
    """The options of a command that give ``inputs`` and ``--set`` the assignments; of files, they have the names."""
    joined = "".join(f" --data {path.name}" for path in inputs.data[1:])
    weights = f" --weights {named_weights(inputs.weights)}" if inputs.weights != "none" else ""
    votes = f" --votes {inputs.votes.name}" if inputs.votes else ""
    skip_bad = " --skip-bad" if inputs.skip_bad else ""
    changed = "".join(f" --set {assignment}" for assignment in assignments)
    return f"--data fer2013.csv{joined}{weights}{votes}{skip_bad}{changed}"


def named_weights(weights: str) -> str:
    """What ``--weights`` names, for a command: ``runs/NAME`` for a run, since NAME alone would be a bundle."""
    folder = Path(weights)
    return f"runs/{folder.name}" if is_run(weights) else folder.name


def is_run(weights: str) -> bool:
    """Whether ``weights`` names a run folder."""
    return (Path(weights) / _RUN).is_file()


def _training_set(recipe: Recipe, inputs: RunInputs, splits: Splits) -> TrainingSet:
    faces = splits.training
    votes = read_votes(inputs.votes, faces, splits.public) if inputs.votes and recipe.votes else None
    return TrainingSet(faces, votes, _teachers(recipe, splits) if recipe.teachers else None)


def _teachers(recipe: Recipe, splits: Splits) -> Teachers:
    """The recipe's view banks. Raises DataError and UsageError when they do not fit the data or each other."""
    banks = tuple(find_bank(name) for name in recipe.teachers)
    for name, bank in zip(recipe.teachers, banks, strict=True):
        theirs = bank.faces_of(name, splits)
    if len({(bank.seed, len(bank.logits), bank.training_sha256) for bank in banks}) > 1:
        raise UsageError(f"teachers {', '.join(recipe.teachers)}: their banks hold different views")
    missing = int((splits.kept & splits.first & ~theirs).sum())  # joined faces may learn from their labels alone
    if missing:
        raise UsageError(
            f"teachers {', '.join(recipe.teachers)}: their banks lack {missing:,} of the training faces. They were "
            "made of data with more splits. Give the same data, or make banks with `fer-train bank`"
        )
    return Teachers(banks, splits.published.select(theirs).pixels, splits.kept[theirs], theirs[splits.kept])


def _new_run(
    recipe: Recipe, inputs: RunInputs, splits: Splits, training: TrainingSet, start: tuple[Source, ...]
) -> Run:
    banks = training.teachers.banks if training.teachers else ()
    taught = [one for bank in banks for one in as_teacher(bank.sources, bank.sha256())]
    names = " and ".join(path.name for path in inputs.data)
    data = [data_source(f"Training of {names}", splits.training.sha256(), splits.excluded, splits.bad)]
    if training.votes is not None and inputs.votes:
        data.append(votes_source(inputs.votes.name, sha256_of(inputs.votes)))
    return Run(
        recipe=recipe,
        command=command_of(recipe, inputs),
        revision=_revision(),
        training_sha256=splits.training.sha256(),
        public_sha256=splits.public.sha256(),
        sources=distinct((*start, *taught, *data)),
        excluded=splits.excluded,
        skipped=splits.bad,
        measured=str(splits.public.split),
        best=None,
    )


def refuse_another_run(folder: Path, run: Run) -> None:
    """Raise UsageError when ``folder`` holds another run than ``run``, whatever epochs either has finished."""
    if not is_run(str(folder)):
        return
    found = dataclasses.replace(Run.load(folder), best=None, start=None, revision=run.revision)
    differing = [f.name for f in dataclasses.fields(Run) if getattr(found, f.name) != getattr(run, f.name)]
    if differing:
        raise UsageError(
            f"{folder} holds a run with another {', '.join(differing)}. Give another --out, or remove that folder."
        )


def _revision() -> str:
    """The Git commit of the source tree that is running; empty where it is installed without one."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        dirty = subprocess.run([*git, "status", "--porcelain", "--untracked-files=no"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f"{commit}+" if dirty.stdout else commit


def statistics_faces(training: LabelledFaces) -> Any:
    """The training faces, ``(512, 48, 48, 1)`` normalized float32, that batch-norm statistics are measured on."""
    return normalize(training.pixels[:_STATISTICS_FACES])[..., None]
