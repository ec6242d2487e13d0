"""Training on several devices or machines, handed over to ``tf.distribute``.

Every worker reads the data and draws the same global batch from the same seed; each replica learns from its own slice.
Batch norms measure across replicas then, so that a step computes what one process would.
"""

import tempfile
from pathlib import Path
from typing import Any, Final, Literal

import tensorflow as tf
import tf_keras as keras

from train.data.batches import Batch

Kind = Literal["single", "mirrored", "multiworker"]
KINDS: Final = ("single", "mirrored", "multiworker")


class Workers:
    """The replicas of a run, and this process's place among them.

    ``multiworker`` reads ``TF_CONFIG``, which tells each worker its own and the others' addresses.
    """

    def __init__(self, kind: Kind = "single") -> None:
        match kind:
            case "single":
                self.strategy = tf.distribute.get_strategy()
            case "mirrored":
                self.strategy = tf.distribute.MirroredStrategy()
            case "multiworker":
                self.strategy = tf.distribute.MultiWorkerMirroredStrategy()
        cluster = self.strategy.cluster_resolver
        self.chief = cluster is None or cluster.task_id in (None, 0)
        self._elsewhere = None if self.chief else tempfile.TemporaryDirectory(prefix="fer-train-worker-")

    @property
    def count(self) -> int:
        """Replicas that share one batch."""
        return int(self.strategy.num_replicas_in_sync)

    def writable(self, folder: Path) -> Path:
        """``folder`` for the first worker; for the others a temporary one."""
        return Path(self._elsewhere.name) if self._elsewhere else folder

    def spread(self, batch: Batch) -> Batch:
        """Give every replica its slice of a batch."""
        return Batch._make(None if part is None else self._slices(part) for part in batch)

    def synchronized(self, model: Any) -> Any:
        """A network whose batch norms measure across replicas; for one replica the network itself."""
        if self.count == 1:
            return model
        copy = keras.models.clone_model(model, clone_function=_synchronized)
        copy.set_weights(model.get_weights())
        return copy

    def _slices(self, part: Any) -> Any:
        if self.count == 1:
            return tf.constant(part)

        def own(context: Any) -> Any:
            return tf.constant(part[context.replica_id_in_sync_group :: context.num_replicas_in_sync])

        return self.strategy.experimental_distribute_values_from_function(own)


def _synchronized(layer: Any) -> Any:
    config = layer.get_config()
    if isinstance(layer, keras.layers.BatchNormalization):
        config["synchronized"] = True
    return type(layer).from_config(config)
