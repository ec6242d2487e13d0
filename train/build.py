"""``fer-train build``: carries out a plan (train.plans), run by run, and goes on where it was interrupted.

Each run has a folder of its own in one folder for all. A finished run is kept when it is the one that the plan would
make there: of the same recipe, data, votes and weights. All that can be checked without training is checked before the
first epoch, so that no missing file stops a build after hours.
"""

import dataclasses
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import tf_keras as keras

from edge.errors import UsageError
from edge.evaluation.metrics import Figures
from train.average import average_networks, describe_mean
from train.checkpoints import BEST_WEIGHTS
from train.data.dataset import Splits, read_splits
from train.distributed import Workers
from train.outputs import check_folder, make_folder
from train.plans import Cycle, Mean, Plan, PlannedRun
from train.progress import print_line
from train.recipes import Recipe, assignments_of, customize
from train.run import Run, RunInputs, is_run, options_of, refuse_another_run
from train.training import check_inputs, prepare_run, train_prepared


@dataclass(frozen=True)
class Build:
    """A plan with what it is carried out on.

    ``inputs`` has the data, the votes and the published weights. ``assignments`` change the recipe of each cycle, as
    train.recipes.customize does it. ``folder`` is to hold the folders of all runs.
    """

    plan: Plan
    inputs: RunInputs
    assignments: Sequence[str]
    folder: Path

    @property
    def result(self) -> Path:
        """The run folder of the model."""
        return self.folder / self.plan.runs[-1].name

    @property
    def next_command(self) -> str:
        """The command that makes a bundle of the model."""
        return shlex.join(["fer-export", "bundle", str(self.result), *_data(self.inputs), "--out", "my-bundle"])

    def check(self) -> Splits:
        """Check what the plan needs and what its folder holds, without training; returns the faces.

        Raises UsageError and DataError when data, votes, teachers or weights are missing or do not fit, and when the
        folder holds runs that this plan would not make there.
        """
        if is_run(self.folder):
            raise UsageError(f"{self.folder} is a run. Give --out a folder for all runs of the plan")
        check_folder(self.folder)
        for run in self.plan.runs:
            if isinstance(run, Cycle):
                check_inputs(self._recipe(run), self._inputs_now(run))
        splits = read_splits(*self.inputs.data, skip_bad=self.inputs.skip_bad)
        print_line(str(splits))
        for run in self.plan.runs:
            self._check_run(run, splits)
        return splits

    def run(self) -> Figures | None:
        """Make all runs that are not finished; returns the model's figures, or None when it was finished before.

        Raises what ``check`` raises, and CheckpointError when the folder cannot be written.
        """
        splits = self.check()
        make_folder(self.folder)
        print_line(self._title())
        figures = None
        for run in self.plan.runs:
            print_line(f"{self._count(run)} {self._state(run)}")
            if self._is_finished(run):
                continue
            if isinstance(run, Cycle):
                self._train(run, splits)
            else:
                figures = self._average(run)
        return figures

    def describe(self) -> Iterator[str]:
        """The lines of a shell script that does the same: each run, and the single command that makes it."""
        yield f"# {self._title()}"
        for run in self.plan.runs:
            yield f"# {self._count(run)} {self._state(run)}"
            yield self._command_of(run)
        yield f"# then, for a device:\n{self.next_command}"

    def _train(self, cycle: Cycle, splits: Splits) -> None:
        keras.backend.clear_session()  # the memory of the cycle before
        prepared = prepare_run(self._recipe(cycle), self._inputs_of(cycle), splits)
        run = train_prepared(prepared, self.folder / cycle.name, Workers())
        assert run.best
        print_line(f"{self._count(cycle)} {run.measured} {run.best.accuracy:.2%} at epoch {run.best.epoch + 1}")

    def _average(self, mean: Mean) -> Figures:
        members, folder = self._folders(mean), self.folder / mean.name
        _, figures = average_networks(members, mean.shares, self.inputs.data, folder)
        self._describe_mean(mean).save(folder)
        return figures

    def _check_run(self, run: PlannedRun, splits: Splits) -> None:
        folder = self.folder / run.name
        unfinished = [name for name in run.made_of if not self._is_finished(self._named(name))]
        if folder.exists() and unfinished:
            raise UsageError(
                f"{folder} exists, but {self.folder / unfinished[0]}, which it is made of, is not finished. Remove "
                f"{folder}, or give another --out."
            )
        if isinstance(run, Cycle):
            refuse_another_run(folder, prepare_run(self._recipe(run), self._inputs_now(run), splits).run)
        elif is_run(folder):
            refuse_another_run(folder, self._describe_mean(run))
        elif folder.exists():
            raise UsageError(f"{folder} is no run. Give another --out, or remove it.")

    def _describe_mean(self, mean: Mean) -> Run:
        """The mean's ``run.json``, with the command of the whole build."""
        random = " --weights none" if self.inputs.weights == "none" else ""  # what `build` wants to be told
        command = f"fer-train build {self.plan.name} {options_of(self.inputs, self.assignments)}{random}"
        return dataclasses.replace(describe_mean(self._folders(mean), mean.shares, self.inputs.data), command=command)

    def _is_finished(self, run: PlannedRun) -> bool:
        folder = self.folder / run.name
        if not is_run(folder) or not (folder / BEST_WEIGHTS).is_file():
            return False
        return isinstance(run, Mean) or Run.load(folder).best is not None

    def _recipe(self, cycle: Cycle) -> Recipe:
        return customize(cycle.recipe, list(self.assignments))

    def _inputs_of(self, cycle: Cycle) -> RunInputs:
        weights = str(self.folder / cycle.start) if cycle.start else self.inputs.weights
        return dataclasses.replace(self.inputs, weights=weights)

    def _inputs_now(self, cycle: Cycle) -> RunInputs:
        """The inputs, without the weights of a cycle that is not finished yet."""
        if cycle.start and not self._is_finished(self._named(cycle.start)):
            return dataclasses.replace(self.inputs, weights="none")
        return self._inputs_of(cycle)

    def _named(self, name: str) -> PlannedRun:
        return next(run for run in self.plan.runs if run.name == name)

    def _folders(self, mean: Mean) -> list[str]:
        return [str(self.folder / name) for name in mean.made_of]

    def _command_of(self, run: PlannedRun) -> str:
        out = ["--out", str(self.folder / run.name)]
        if isinstance(run, Mean):
            shares = ",".join(f"{share:g}" for share in run.shares)
            words = ["average", *self._folders(run), "--shares", shares, *_data(self.inputs)]
        else:
            recipe, inputs = self._recipe(run), self._inputs_of(run)
            changed = [word for assignment in assignments_of(recipe) for word in ("--set", assignment)]
            words = ["run", recipe.name, *_data(inputs), *_further(inputs), *changed]
        return shlex.join(["fer-train", *words, *out])

    def _title(self) -> str:
        return f"{self.plan.name}: {len(self.plan.runs)} runs in {self.folder}{self._hours(self.plan.hours)}"

    def _count(self, run: PlannedRun) -> str:
        return f"run {self.plan.runs.index(run) + 1} of {len(self.plan.runs)}, {run.name}:"

    def _state(self, run: PlannedRun) -> str:
        if self._is_finished(run):
            best = Run.load(self.folder / run.name).best
            return f"finished{f', {best.accuracy:.2%}' if best else ''}"
        begun = "goes on" if is_run(self.folder / run.name) else "to be made"
        return f"{begun}{self._hours(run.hours)}"

    def _hours(self, hours: float) -> str:
        """How long it takes there in the recipes' precision; nothing with another ``--set``, which may change that."""
        if any(not assignment.startswith("precision=") for assignment in self.assignments):
            return ""
        return f", about {hours:.1f} hours on two AVX-512 cores" if hours else ", some minutes"


def _data(inputs: RunInputs) -> list[str]:
    return [word for path in inputs.data for word in ("--data", str(path))]


def _further(inputs: RunInputs) -> list[str]:
    votes = ["--votes", str(inputs.votes)] if inputs.votes else []
    return ["--weights", inputs.weights, *votes, *(["--skip-bad"] if inputs.skip_bad else [])]
