"""``fer-train run``: trains a recipe into a run folder, or continues there."""

import dataclasses
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.errors import UsageError
from edge.model.origin import Source
from train.checkpoints import read_history, writing_run
from train.data.batches import Teachers, TrainingSet
from train.data.dataset import Splits, read_splits
from train.data.ferplus import check_votes, read_votes
from train.data.view_bank import ViewBank, find_bank
from train.distributed import Workers
from train.feature_teacher import FeatureTeacher, find_feature_teacher
from train.initial_weights import InitialWeights, find_initial_weights, statistics_faces
from train.models.pointwise import with_products
from train.models.registry import MODELS
from train.outputs import check_folder, make_folder
from train.progress import print_line
from train.recipes import Recipe
from train.report import write_report
from train.run import Run, RunInputs, command_of, is_run, names_run, refuse_another_run
from train.sources import as_teacher, data_source, distinct, sha256_of, votes_source
from train.trainer import check_recipe, compile_measure, configure_keras, feature_model, fit, predict_logits


def train_recipe(recipe: Recipe, inputs: RunInputs, folder: Path, workers: Workers) -> Run:
    """Train ``recipe`` into ``folder``, or continue the run that was interrupted there.

    Raises UsageError when the folder holds another run or cannot be made, and what ``check_inputs`` raises.
    """
    check_folder(folder)  # before the data, which may take a minute to parse
    check_inputs(recipe, inputs)
    if inputs.votes and not recipe.votes:
        print_line(f"warning: {inputs.votes} is not used: the recipe has votes=0. To learn from it: --set votes=0.5")
    if workers.chief and names_run(inputs.weights):
        start = Path(inputs.weights)
        Run.load(start).warn_unfinished(start)
    splits = read_splits(*inputs.data, skip_bad=inputs.skip_bad)
    print_line(str(splits))
    return train_prepared(prepare_run(recipe, inputs, splits), folder, workers)


@dataclass(frozen=True)
class PreparedRun:
    """A run that can begin: its ``run.json`` before the first epoch, its faces, its start, and its feature teacher."""

    run: Run
    splits: Splits
    training: TrainingSet
    weights: InitialWeights
    feature_teacher: FeatureTeacher | None


def check_inputs(recipe: Recipe, inputs: RunInputs) -> InitialWeights:
    """The weights that a run of ``recipe`` starts from.

    Raises UsageError when there is no such network or it cannot start from them, and when the recipe needs votes and
    ``inputs`` has none; DataError and UsageError when the votes or a teacher are missing, or teachers do not fit.
    """
    if recipe.votes and inputs.votes is None:
        raise UsageError(f"recipe {recipe.name} learns from FERPlus: give --votes fer2013new.csv, or --set votes=0")
    if recipe.votes and inputs.votes:
        check_votes(inputs.votes)
    _find_banks(recipe)
    find_feature_teacher(recipe)
    return find_initial_weights(recipe, inputs.weights)


def prepare_run(recipe: Recipe, inputs: RunInputs, splits: Splits) -> PreparedRun:
    """Check everything that a run of ``recipe`` needs; ``splits`` are the faces of ``inputs.data``.

    Raises what ``check_inputs`` raises, and DataError and UsageError when teachers or votes do not fit the faces.
    """
    weights = check_inputs(recipe, inputs)
    training = _training_set(recipe, inputs, splits)
    features = find_feature_teacher(recipe)
    networks = (*weights.sources, *(features.sources if features else ()))
    return PreparedRun(_new_run(recipe, inputs, splits, training, networks), splits, training, weights, features)


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
        model = _build(recipe)
        check_recipe(model, recipe, len(prepared.training))  # before run.json: a corrected command may take the folder
        faces = statistics_faces(splits.training)
        training = _with_features(prepared, model, faces)
        prepared.weights.load(model, faces)
        model = workers.synchronized(model)
    if prepared.weights.sources:
        run = dataclasses.replace(run, start=compile_measure(model, recipe)(splits.public)[0].accuracy)
        print_line(f"{recipe.name} before training: {run.measured} {run.start:.2%}")
    if workers.chief and not is_run(folder):  # a finished run stays one until the end, whatever happens meanwhile
        run.save(folder)
    best = fit(model, recipe, training, splits.public, folder, workers)
    run = dataclasses.replace(run, best=best)
    if workers.chief:
        run.save(folder)
        logits = predict_logits(run.model(folder), splits.public.pixels)
        with writing_run(folder):
            write_report(folder, run.command, read_history(folder), splits.public, logits)
    return run


def _build(recipe: Recipe) -> Any:
    model = MODELS[recipe.model].build(recipe.dropout)
    return with_products(model) if recipe.precision == "float32" else model


def _with_features(prepared: PreparedRun, model: Any, faces: Any) -> TrainingSet:
    """The training set with the network of the feature teacher. Raises UsageError when its features do not fit."""
    teacher = prepared.feature_teacher
    if teacher is None:
        return prepared.training
    network = teacher.build(prepared.run.recipe, faces)
    theirs, own = network.output_shape[-1], feature_model(model).output_shape[-1]
    if theirs != own:
        raise UsageError(
            f"feature_teacher={prepared.run.recipe.feature_teacher}: {teacher.network} has {theirs:,} pooled features, "
            f"{prepared.run.recipe.model} has {own:,}. Name a network with as many"
        )
    return dataclasses.replace(prepared.training, features=network)


def _training_set(recipe: Recipe, inputs: RunInputs, splits: Splits) -> TrainingSet:
    faces = splits.training
    votes = read_votes(inputs.votes, faces, splits.public) if inputs.votes and recipe.votes else None
    return TrainingSet(faces, votes, _teachers(recipe, splits) if recipe.teachers else None)


def _teachers(recipe: Recipe, splits: Splits) -> Teachers:
    """The recipe's view banks. Raises DataError and UsageError when they do not fit the data or each other."""
    banks = _find_banks(recipe)
    for name, bank in zip(recipe.teachers, banks, strict=True):
        theirs = bank.faces_of(name, splits)
    missing = int((splits.kept & splits.first & ~theirs).sum())  # joined faces may learn from their labels alone
    if missing:
        raise UsageError(
            f"teachers {', '.join(recipe.teachers)}: their banks lack {missing:,} of the training faces. They were "
            "made of data with more splits. Give the same data, or make banks with `fer-train bank`"
        )
    return Teachers(banks, splits.published.select(theirs).pixels, splits.kept[theirs], theirs[splits.kept])


def _find_banks(recipe: Recipe) -> tuple[ViewBank, ...]:
    banks = tuple(find_bank(name) for name in recipe.teachers)
    if len({(bank.seed, len(bank.logits), bank.training_sha256) for bank in banks}) > 1:
        raise UsageError(f"teachers {', '.join(recipe.teachers)}: their banks hold different views")
    return banks


def _new_run(
    recipe: Recipe, inputs: RunInputs, splits: Splits, training: TrainingSet, networks: tuple[Source, ...]
) -> Run:
    banks = training.teachers.banks if training.teachers else ()
    taught = [one for bank in banks for one in as_teacher(bank.sources, bank.sha256())]
    names = " and ".join(path.absolute().name for path in inputs.data)
    data = [data_source(f"Training of {names}", splits.training.sha256(), splits.excluded, splits.bad)]
    if training.votes is not None and inputs.votes:
        data.append(votes_source(inputs.votes.name, sha256_of(inputs.votes)))
    return Run(
        recipe=recipe,
        command=command_of(recipe, inputs),
        revision=_revision(),
        training_sha256=splits.training.sha256(),
        public_sha256=splits.public.sha256(),
        sources=distinct((*networks, *taught, *data)),
        excluded=splits.excluded,
        skipped=splits.bad,
        measured=str(splits.public.split),
        best=None,
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
