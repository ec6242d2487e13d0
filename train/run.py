"""A training run's folder: ``run.json``, the weights beside it, and the command that repeats the run."""

import dataclasses
import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from edge.errors import UsageError
from edge.model.bundle import bundled
from edge.model.origin import Source
from edge.system.atomic_file import write_durably
from edge.untrusted_file import read_regular
from train.checkpoints import BEST_WEIGHTS, Epoch, load_best, read_history, writing_run
from train.data.dataset import Splits, read_splits
from train.progress import print_line
from train.recipes import Recipe, assignments_of, differences
from train.sources import OUR_LICENCE, data_source, distinct, sha256_of, sources_of_lines
from train.trainer import build_in_float32

_RUN = "run.json"
_LARGEST_FILE: Final = 1_000_000  # bytes; a whole one has a few thousand


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
        """Read the ``run.json`` of a run folder. Raises UsageError when it is none, or of a later version."""
        try:
            stored = json.loads(read_regular(folder / _RUN, _LARGEST_FILE))
            if unknown := _unknown_keys(stored):
                raise UsageError(
                    f"{folder}: a later version made this run, with {', '.join(unknown)}. Use that version."
                )
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
        load_best(model, folder)

    def unfinished(self, folder: Path) -> str:
        """How to end its training; empty if that has ended. A mean has no ``best`` epoch either, but no history."""
        if self.best or not read_history(folder):
            return ""
        return f"{folder}: the run is not finished. Continue it: {self.command} --out {shlex.quote(str(folder))}"

    def warn_unfinished(self, folder: Path) -> None:
        """Tell on stderr that its training has not ended, and how to go on."""
        if sentence := self.unfinished(folder):
            print_line(f"warning: its best epoch so far is taken. {sentence}")

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


def _unknown_keys(stored: Any) -> list[str]:
    """The keys of ``run.json`` that neither this version nor an earlier one writes."""
    parts = ((stored, Run), (stored["recipe"], Recipe), (stored["best"] or {}, Epoch))
    known = {field.name for _, kind in parts for field in dataclasses.fields(kind)} | {"init", "teachers", "votes"}
    return sorted({key for part, _ in parts for key in part} - known)


def _with_sources(stored: dict[str, Any]) -> dict[str, Any]:
    """What ``run.json`` has, with ``sources`` also when an earlier program wrote lines instead."""
    if "sources" in stored:
        return {**stored, "sources": msgspec.convert(stored["sources"], tuple[Source, ...])}
    kept = {key: value for key, value in stored.items() if key not in ("init", "teachers", "votes")}
    data = data_source("FER2013 Training", stored["training_sha256"], stored["excluded"], stored["skipped"])
    return {**kept, "sources": sources_of_lines(stored["init"], stored["teachers"], stored["votes"], data)}


def refuse_another_run(folder: Path, run: Run) -> None:
    """Raise UsageError when ``folder`` holds another run than ``run``, whatever epochs either has finished."""
    if not is_run(folder):
        return
    if differing := [*_differences(Run.load(folder), run)]:
        raise UsageError(
            f"{folder} holds another run, with {', '.join(differing)}. Give another --out, or remove that folder."
        )


def _differences(found: Run, run: Run) -> Iterator[str]:
    """What makes ``found`` another run than ``run``. The names of data do not: its faces may be packed anew."""
    yield from differences(found.recipe, run.recipe)
    same_training = found.training_sha256 == run.training_sha256
    if not same_training:
        yield "other training faces"
    if (found.measured, found.public_sha256) != (run.measured, run.public_sha256):
        yield "other faces to measure on"
    for role, what in (("start", "other weights to start from"), ("teacher", "other teachers")):
        if _of_role(found.sources, role) != _of_role(run.sources, role):
            yield what
    if same_training and _of_role(found.sources, "data") != _of_role(run.sources, "data"):
        yield "other votes"


def _of_role(sources: Sequence[Source], role: str) -> set[Source | str]:
    return {one.sha256 if role == "data" and one.sha256 else one for one in sources if one.role == role}


def command_of(recipe: Recipe, inputs: RunInputs) -> str:
    """The command that repeats a run. It has the names of files without their folders, which differ by machine."""
    options = inputs if recipe.votes else dataclasses.replace(inputs, votes=None)
    return f"fer-train run {recipe.name} {options_of(options, assignments_of(recipe))}"


def options_of(inputs: RunInputs, assignments: Sequence[str]) -> str:
    """The options of a command that give ``inputs`` and ``--set`` the assignments; of files, they have the names."""
    weights = f" --weights {named_weights(inputs.weights)}" if inputs.weights != "none" else ""
    votes = f" --votes {shlex.quote(inputs.votes.name)}" if inputs.votes else ""
    skip_bad = " --skip-bad" if inputs.skip_bad else ""
    changed = "".join(f" --set {shlex.quote(assignment)}" for assignment in assignments)
    return f"{data_options(inputs.data)}{weights}{votes}{skip_bad}{changed}"


def data_options(data: Sequence[Path]) -> str:
    """The ``--data`` of a command, with the names of the files."""
    return " ".join(f"--data {shlex.quote(path.absolute().name)}" for path in data)


def named_weights(weights: str) -> str:
    """What ``--weights`` names, for a command: ``runs/NAME`` for a run, since NAME alone would be a bundle."""
    folder = Path(weights)
    return shlex.quote(f"runs/{folder.name}" if names_run(weights) else folder.name)


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run."""
    return (folder / _RUN).is_file()


def names_run(network: str) -> bool:
    """Whether an argument names a run folder. A bundled model's name never does (edge.model.bundle.find_bundle)."""
    return network not in bundled() and is_run(Path(network))
