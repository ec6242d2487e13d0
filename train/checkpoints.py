"""A run's folder on disk: the history of its epochs, its best weights, and a checkpoint to continue from."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import tensorflow as tf

from edge.errors import FerEdgeError
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
    """The finished epochs of a run, first to last; empty before the first one."""
    file = folder / HISTORY
    return [Epoch(**json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []


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

    def finished_epochs(self) -> int:
        """How many epochs the last checkpoint holds; 0 without one."""
        if not self._latest:
            return 0
        return int(tf.train.load_checkpoint(self._latest).get_tensor("epoch/.ATTRIBUTES/VARIABLE_VALUE"))

    def restore(self, state: Any, *, weights_only: bool) -> None:
        """Load the last checkpoint, if there is one, into ``state``, which later checkpoints will hold.

        ``weights_only`` is for the start of a stage, whose optimizer and averaged weights start anew.
        """
        self._manager = tf.train.CheckpointManager(
            state, self.workers.writable(self.path) / _CHECKPOINTS, max_to_keep=1
        )
        if not self._latest:
            return
        if weights_only:
            tf.train.Checkpoint(model=state.model).restore(self._latest).expect_partial()
        else:
            state.restore(self._latest).assert_existing_objects_matched()

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
