"""A run's folder on disk: the history of its epochs, its best weights, and a checkpoint to continue from."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import tensorflow as tf

from edge.errors import FerEdgeError, UsageError
from train.distributed import Workers

BEST_WEIGHTS: Final = "best.weights.h5"
HISTORY: Final = "history.jsonl"
_CHECKPOINTS: Final = "checkpoint"


class CheckpointError(FerEdgeError):
    """A run's folder cannot be written. The checkpoint of the last finished epoch, if there is one, is still there."""

    exit_code = 15


@dataclass(frozen=True)
class Epoch:
    """One line of a run's history.

    ``loss`` is what training minimizes, with the shares of teachers and votes. ``accuracy``, ``macro_f1`` (0 to 1) and
    ``validation_loss`` are of the averaged weights on the measured split, PublicTest where there is one.
    ``training_accuracy`` and ``training_loss`` are means over the epoch's steps: of the weights of each step, with
    dropout, on the changed pictures. Both losses are the mean cross-entropy of the label in nats. They are None in the
    history of an earlier version. ``input_share`` is the share of the time that was spent on reading and augmenting
    pictures.
    """

    epoch: int
    loss: float
    accuracy: float
    macro_f1: float
    learning_rate: float
    images_per_second: float
    input_share: float
    training_loss: float | None = None
    training_accuracy: float | None = None
    validation_loss: float | None = None


def read_history(folder: Path) -> list[Epoch]:
    """The finished epochs of a run, first to last; empty before the first one. Raises UsageError when it is damaged."""
    file = folder / HISTORY
    try:
        return [Epoch(**json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{file}: damaged, or written by a later version ({error}). {_mend(folder)}") from error


def load_best(model: Any, folder: Path) -> None:
    """Load a run's best averaged weights into a model of its network. Raises UsageError when there are none."""
    file = folder / BEST_WEIGHTS
    if not file.exists():
        raise UsageError(f"{folder}: the run has no {BEST_WEIGHTS} yet. Finish it with `fer-train run`.")
    try:
        model.load_weights(file)
    except (OSError, ValueError) as error:
        raise UsageError(f"{file}: not the weights of {model.name}: {error}. {_mend(folder)}") from error


def _mend(folder: Path) -> str:
    return f"Copy the whole folder again, or remove {folder} and train anew."


class RunFolder:
    """Writes a run's files, and finds the checkpoint of an interrupted run. Its writers raise CheckpointError.

    Of several workers only the chief writes into the folder. TensorFlow makes the others write too; their files go into
    a temporary folder.
    """

    def __init__(self, path: Path, workers: Workers) -> None:
        self.path, self.workers = path, workers
        with writing_run(path):
            path.mkdir(parents=True, exist_ok=True)
            self._tensorboard = tf.summary.create_file_writer(str(workers.writable(path) / "tensorboard"))
        self._latest = tf.train.latest_checkpoint(path / _CHECKPOINTS)
        self._manager: Any = None

    def history(self) -> list[Epoch]:
        """The epochs that the last checkpoint holds. One more, whose checkpoint was interrupted, is trained again.

        Raises UsageError when a file of the folder is damaged, or older than the others.
        """
        history, finished = read_history(self.path), self._finished_epochs()
        if not finished <= len(history) <= finished + 1:
            raise UsageError(
                f"{self.path}: its checkpoint holds {finished} epochs and its {HISTORY} {len(history)}, so a part of "
                f"the folder is lost or older. {_mend(self.path)}"
            )
        if finished and not (self.path / BEST_WEIGHTS).exists():
            raise UsageError(f"{self.path}: its {BEST_WEIGHTS} is lost. {_mend(self.path)}")
        return history[:finished]

    def _finished_epochs(self) -> int:
        if not self._latest:
            return 0
        with self._reading():
            return int(tf.train.load_checkpoint(self._latest).get_tensor("epoch/.ATTRIBUTES/VARIABLE_VALUE"))

    def restore(self, state: Any, *, weights_only: bool) -> None:
        """Load the last checkpoint, if there is one, into ``state``, which later checkpoints will hold.

        ``weights_only`` is for the start of a stage, whose optimizer and averaged weights start anew. Raises UsageError
        when the checkpoint is damaged.
        """
        self._manager = tf.train.CheckpointManager(
            state, self.workers.writable(self.path) / _CHECKPOINTS, max_to_keep=1
        )
        if not self._latest:
            return
        with self._reading():
            if weights_only:
                tf.train.Checkpoint(model=state.model).restore(self._latest).expect_partial()
            else:
                state.restore(self._latest).assert_existing_objects_matched()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """A context in which the checkpoint is read: what TensorFlow raises for a damaged one becomes a UsageError."""
        try:
            yield
        except (tf.errors.OpError, ValueError, LookupError, RuntimeError, AssertionError) as error:
            reason = str(error).partition("\n")[0]
            raise UsageError(f"{self._latest}: a damaged checkpoint ({reason}). {_mend(self.path)}") from error

    def save_checkpoint(self) -> None:
        """Save the state that was given to ``restore``; the previous checkpoint is removed after this is complete."""
        with writing_run(self.path):
            self._latest = self._manager.save()

    def save_best(self, model: Any) -> None:
        """Replace the best weights by those of ``model``, atomically."""
        partial = self.workers.writable(self.path) / f"making.{BEST_WEIGHTS}"
        with writing_run(self.path):
            model.save_weights(partial)
            if self.workers.chief:
                partial.replace(self.path / BEST_WEIGHTS)

    def save_history(self, history: list[Epoch]) -> None:
        """Replace the history atomically, and log its last epoch for TensorBoard."""
        if not self.workers.chief:
            return
        partial = self.path / f"{HISTORY}.part"
        with writing_run(self.path):
            partial.write_text("".join(json.dumps(asdict(epoch)) + "\n" for epoch in history))
            partial.replace(self.path / HISTORY)
            with self._tensorboard.as_default(step=history[-1].epoch):
                for name, value in asdict(history[-1]).items():
                    if value is not None:
                        tf.summary.scalar(name, value)
            self._tensorboard.flush()


@contextmanager
def writing_run(folder: Path) -> Iterator[None]:
    """A context in which a run's folder is written: an error of it, such as a full disk, becomes a CheckpointError."""
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        raise CheckpointError(
            f"{folder}: cannot be written: {error}. What is finished is saved: make room, then run the same command "
            "again to continue."
        ) from error
