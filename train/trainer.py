"""The training loop: seeded, resumable at every epoch, keeping the averaged weights that do best on PublicTest.

PublicTest only measures and chooses the epoch; it never enters a gradient or a batch-norm statistic.
"""

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import tensorflow as tf
import tf_keras as keras
from numpy.typing import NDArray

from edge.contract import LABELS, normalize
from edge.errors import UsageError
from edge.fer2013 import LabelledFaces
from edge.metrics import Figures, measure
from train.augment import augment
from train.ferplus import VOTES
from train.recipes import Recipe

BEST: Final = "best.weights.h5"
_HISTORY: Final = "history.jsonl"


@dataclass(frozen=True)
class Epoch:
    """One line of a run's history. ``accuracy`` and ``macro_f1`` are of the averaged weights on PublicTest."""

    epoch: int
    loss: float
    accuracy: float
    macro_f1: float
    images_per_second: float


@dataclass(frozen=True)
class TrainingSet:
    """Faces to learn from and, where the recipe asks for them, their FERPlus votes, ``(n, 10)`` float32."""

    faces: LabelledFaces
    votes: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.faces)


def fit(model: Any, recipe: Recipe, training: TrainingSet, public: LabelledFaces, folder: Path) -> Epoch:
    """Train ``model`` in place and leave it with its best averaged weights; returns the epoch that they are from.

    ``folder`` receives ``history.jsonl``, ``best.weights.h5`` and a checkpoint per epoch. An interrupted run found
    there is continued. Raises UsageError when the folder holds a run of another recipe.
    """
    folder.mkdir(parents=True, exist_ok=True)
    loop = _Loop(model, recipe, training)
    manager = tf.train.CheckpointManager(loop.state, folder / "checkpoint", max_to_keep=1)
    history = _read_history(folder)
    if manager.latest_checkpoint:
        loop.state.restore(manager.latest_checkpoint).assert_existing_objects_matched()
    history = history[: int(loop.epoch)]  # an epoch that was noted but not checkpointed is done again
    for epoch in range(int(loop.epoch), recipe.epochs):
        started = time.monotonic()
        loss = loop.run_epoch(epoch)
        speed = len(training) / (time.monotonic() - started)
        with loop.averaged():
            figures = evaluate(model, public)
            line = Epoch(epoch, loss, figures.accuracy, figures.macro_f1, speed)
            if line.accuracy > max((past.accuracy for past in history), default=-1.0):
                model.save_weights(folder / BEST)
        history.append(line)
        _write_history(folder, history)
        loop.epoch.assign(epoch + 1)
        manager.save()
        _say(recipe, line, len(training))
    model.load_weights(folder / BEST)
    return max(history, key=lambda line: line.accuracy)


def predict(model: Any, faces: LabelledFaces) -> NDArray[np.float32]:
    """Logits of every face in single crop, ``(n, 7)`` float32."""
    inputs = normalize(faces.pixels)[..., np.newaxis]
    return np.asarray(model.predict(inputs, batch_size=256, verbose=0), np.float32)


def evaluate(model: Any, faces: LabelledFaces) -> Figures:
    """Figures of a Keras model, single crop, no test-time augmentation."""
    return measure(faces.labels, predict(model, faces).argmax(axis=1))


def prepare(recipe: Recipe) -> None:
    """Seed Python, numpy and TensorFlow and choose the precision; call before a model is built.

    Random layers get generators of their own, which the loop can set anew for each epoch.
    """
    keras.backend.experimental.enable_tf_random_generator()
    keras.utils.set_random_seed(recipe.seed)
    keras.mixed_precision.set_global_policy(recipe.precision)


class _Loop:
    """The state of a run: model, optimizer, averaged weights and the number of finished epochs."""

    def __init__(self, model: Any, recipe: Recipe, training: TrainingSet) -> None:
        self._model = model if training.votes is None else _with_votes(model)
        model = self._model
        self._recipe = recipe
        self._training = training
        self._steps = len(training) // recipe.batch
        if not self._steps:
            raise UsageError(f"{len(training)} training faces are fewer than one batch of {recipe.batch}")
        self._optimizer = keras.optimizers.AdamW(recipe.learning_rate, weight_decay=recipe.weight_decay)
        self._optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
        self._optimizer.build(model.trainable_variables)
        self._variables = [v for v in model.variables if v.dtype.is_floating]
        self._ema = [tf.Variable(v, trainable=False) for v in self._variables]
        self.epoch = tf.Variable(0, trainable=False, dtype=tf.int64)
        self.state = tf.train.Checkpoint(model=model, optimizer=self._optimizer, ema=self._ema, epoch=self.epoch)
        self._step = tf.function(self._train_step)

    def run_epoch(self, epoch: int) -> float:
        """Go once over the training faces; returns the mean loss. Its random draws depend on seed and epoch only."""
        recipe, training = self._recipe, self._training
        rng = np.random.default_rng([recipe.seed, epoch])
        order = rng.permutation(len(training))[: self._steps * recipe.batch]
        for number, generator in enumerate(_generators(self._model)):
            generator.reset_from_seed(hash((recipe.seed, epoch, number)))
        mixing = recipe.mixup > 0 and epoch < 0.8 * recipe.epochs
        losses = []
        for step, chosen in enumerate(np.split(order, self._steps)):
            inputs = normalize(augment(training.faces.pixels[chosen], rng))[..., np.newaxis]
            targets = [_smooth(training.faces.labels[chosen], recipe.label_smoothing)]
            if training.votes is not None:
                targets.append(training.votes[chosen])
            if mixing:
                inputs, *targets = _mix([inputs, *targets], recipe.mixup, rng)
            done = epoch * self._steps + step
            self._optimizer.learning_rate.assign(self._learning_rate(done))
            decay = min(recipe.ema, (1 + done) / (10 + done))
            losses.append(
                self._step(tf.constant(inputs), [tf.constant(t) for t in targets], tf.constant(decay, tf.float32))
            )
            _show_progress(recipe, epoch, step, self._steps)
        return float(np.mean([float(loss) for loss in losses]))

    def averaged(self) -> "_Swap":
        """A context in which the model carries its averaged weights."""
        return _Swap(self._variables, self._ema)

    def _train_step(self, inputs: Any, targets: Any, decay: Any) -> Any:
        with tf.GradientTape() as tape:
            outputs = self._model(inputs, training=True)
            outputs = outputs if isinstance(outputs, list) else [outputs]
            weights = (1.0, self._recipe.votes)
            loss = sum(
                weight * tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(target, logits))
                for weight, target, logits in zip(weights, targets, outputs, strict=False)
            )
        gradients = tape.gradient(loss, self._model.trainable_variables)
        self._optimizer.apply_gradients(zip(gradients, self._model.trainable_variables, strict=True))
        for average, variable in zip(self._ema, self._variables, strict=True):
            average.assign(decay * average + (1.0 - decay) * variable)
        return loss

    def _learning_rate(self, step: int) -> float:
        """Linear warm-up, then a cosine to zero (Loshchilov and Hutter, arXiv 1608.03983)."""
        warmup = self._recipe.warmup * self._steps
        if step < warmup:
            return self._recipe.learning_rate * (step + 1) / warmup
        progress = (step - warmup) / max(1, self._recipe.epochs * self._steps - warmup)
        return float(self._recipe.learning_rate * 0.5 * (1 + np.cos(np.pi * progress)))


class _Swap:
    def __init__(self, variables: list[Any], averages: list[Any]) -> None:
        self._pairs = list(zip(variables, averages, strict=True))

    def __enter__(self) -> None:
        self._kept = [variable.numpy() for variable, _ in self._pairs]
        for variable, average in self._pairs:
            variable.assign(average)

    def __exit__(self, *_: object) -> None:
        for (variable, _average), kept in zip(self._pairs, self._kept, strict=True):
            variable.assign(kept)


def _generators(model: Any) -> list[Any]:
    """The random generators of dropout and noise layers. Keras keeps them out of its checkpoints on purpose."""
    layers = [layer for layer in model.layers if isinstance(layer, keras.__internal__.layers.BaseRandomLayer)]
    return [layer._random_generator._generator for layer in layers]  # no public way to them


def _smooth(labels: NDArray[np.int64], smoothing: float) -> NDArray[np.float32]:
    classes = len(LABELS)
    onehot = np.eye(classes, dtype=np.float32)[labels]
    return onehot * np.float32(1 - smoothing) + np.float32(smoothing / classes)


def _mix(parts: list[NDArray[np.float32]], alpha: float, rng: np.random.Generator) -> list[NDArray[np.float32]]:
    """Blend each face and its targets with another one's (mixup, Zhang et al., arXiv 1710.09412)."""
    n = len(parts[0])
    weight, other = rng.beta(alpha, alpha, n).astype(np.float32), rng.permutation(n)
    shares = [weight.reshape(n, *[1] * (part.ndim - 1)) for part in parts]
    return [share * part + (1 - share) * part[other] for share, part in zip(shares, parts, strict=True)]


def _with_votes(model: Any) -> Any:
    """The same network with a second head that predicts the FERPlus votes; it is dropped after training."""
    votes = keras.layers.Dense(len(VOTES), name="votes", dtype="float32")(model.layers[-1].input)
    return keras.Model(model.input, [model.output, votes])


def _read_history(folder: Path) -> list[Epoch]:
    file = folder / _HISTORY
    return [Epoch(**json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []


def _write_history(folder: Path, history: list[Epoch]) -> None:
    making = folder / f"{_HISTORY}.part"
    making.write_text("".join(json.dumps(asdict(line)) + "\n" for line in history))
    making.replace(folder / _HISTORY)


def _show_progress(recipe: Recipe, epoch: int, step: int, steps: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{recipe.name} epoch {epoch + 1}/{recipe.epochs}, step {step + 1}/{steps}", end="", file=sys.stderr)


def _say(recipe: Recipe, line: Epoch, n: int) -> None:
    left = (recipe.epochs - line.epoch - 1) * n / line.images_per_second / 60
    start = "\r" if sys.stderr.isatty() else ""
    print(
        f"{start}{recipe.name} epoch {line.epoch + 1}/{recipe.epochs}: loss {line.loss:.3f}, "
        f"PublicTest {line.accuracy:.2%}, {line.images_per_second:.0f} img/s, {left:.0f} min left",
        file=sys.stderr,
        flush=True,
    )
