"""Training on several devices or machines with ``tf.distribute``.

Every worker reads the data and draws the same global batch from the same seed; each replica trains on its own slice.
Batch norms take their statistics across replicas, so that a step computes what one process would compute.
"""

import tempfile
from pathlib import Path
from typing import Any, Literal

import tensorflow as tf
import tf_keras as keras

from train.data.batches import Batch

StrategyName = Literal["single", "mirrored", "multiworker"]


class Workers:
    """The processes and devices that train one run together.

    ``single`` is this process alone, ``mirrored`` all GPUs of this machine. ``multiworker`` reads the addresses of all
    workers from ``TF_CONFIG``. ``chief`` is True for the one worker that writes the run's files.
    """

    def __init__(self, strategy: StrategyName = "single") -> None:
        match strategy:
            case "single":
                self.strategy = tf.distribute.get_strategy()
            case "mirrored":
                self.strategy = tf.distribute.MirroredStrategy()
            case "multiworker":
                self.strategy = tf.distribute.MultiWorkerMirroredStrategy()
        cluster = self.strategy.cluster_resolver
        self.chief = cluster is None or cluster.task_id in (None, 0)
        self._temporary = None if self.chief else tempfile.TemporaryDirectory(prefix="fer-train-worker-")

    @property
    def count(self) -> int:
        """Number of replicas that share one batch."""
        return int(self.strategy.num_replicas_in_sync)

    def writable(self, folder: Path) -> Path:
        """The folder to write to: ``folder`` itself for the chief, a temporary one for the other workers."""
        return Path(self._temporary.name) if self._temporary else folder

    def spread(self, batch: Batch) -> Batch:
        """Split a batch into one slice per replica."""
        return Batch._make(None if part is None else self._slices(part) for part in batch)

    def synchronized(self, model: Any) -> Any:
        """A copy whose batch norms take their statistics across replicas; with one replica, the network itself."""
        if self.count == 1:
            return model
        copy = keras.models.clone_model(model, clone_function=_synchronized)
        copy.set_weights(model.get_weights())
        return copy

    def _slices(self, part: Any) -> Any:
        if self.count == 1:
            return tf.constant(part)

        def slice_of(context: Any) -> Any:
            return tf.constant(part[context.replica_id_in_sync_group :: context.num_replicas_in_sync])

        return self.strategy.experimental_distribute_values_from_function(slice_of)


def _synchronized(layer: Any) -> Any:
    config = layer.get_config()
    if isinstance(layer, keras.layers.BatchNormalization):
        config["synchronized"] = True
    return type(layer).from_config(config)
