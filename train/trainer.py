"""The training loop: seeded, resumable after every epoch, keeping the averaged weights most accurate on PublicTest.

PublicTest only measures accuracy and chooses the epoch; it never enters a gradient or a batch-norm statistic.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import tensorflow as tf
import tf_keras as keras
from numpy.typing import NDArray

from edge.errors import UsageError
from edge.evaluation.fer2013 import LabelledFaces
from edge.evaluation.metrics import Figures, measure, reliability_diagram
from edge.labels import FER2013_LABELS
from edge.model.preprocessing import normalize, softmax
from train.checkpoints import Epoch, RunFolder, load_best
from train.data.batches import Batch, TrainingSet, batches
from train.data.ferplus import VOTES
from train.distributed import Workers
from train.models.registry import MODELS, find_architecture
from train.progress import Progress, print_line
from train.recipes import Recipe
from train.schedules import Stage, epochs_since_best, learning_rate, stages

_PREDICT_BATCH: Final = 256
_INPUT_SHAPE: Final = (48, 48, 1)


def configure_keras(recipe: Recipe) -> None:
    """Seed Python, numpy and TensorFlow, and set the precision. Call it before a model is built.

    Each random layer gets a generator of its own, which the loop seeds for each epoch.
    """
    keras.backend.experimental.enable_tf_random_generator()
    keras.utils.set_random_seed(recipe.seed)
    keras.mixed_precision.set_global_policy(recipe.precision)


def build_in_float32(recipe: Recipe) -> Any:
    """The recipe's network in float32, whatever precision the recipe trains in.

    Raises UsageError when there is no such network.
    """
    policy = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy("float32")
    try:
        return find_architecture(recipe.model).build(recipe.dropout)
    finally:
        keras.mixed_precision.set_global_policy(policy)


def check_recipe(model: Any, recipe: Recipe, faces: int) -> None:
    """Raise UsageError when ``recipe`` cannot train ``model``, its network, on that many faces."""
    if faces < recipe.batch:
        raise UsageError(f"{faces:,} training faces are fewer than one batch of {recipe.batch:,}")
    if recipe.head_epochs and not MODELS[recipe.model].freeze:
        raise UsageError(f"head_epochs={recipe.head_epochs}: {recipe.model} has no pretrained backbone to freeze")
    if recipe.small_epochs:
        _accept_input_size(model, recipe.small_side)


def fit(
    model: Any,
    recipe: Recipe,
    training: TrainingSet,
    public: LabelledFaces,
    folder: Path,
    workers: Workers | None = None,
) -> Epoch:
    """Train ``model`` in place and leave it with its best averaged weights; returns the epoch that they are from.

    Epochs are measured in float32, because the weights are evaluated and exported in float32: in bfloat16 a ResNet50
    was right about a dozen more of PublicTest's faces. ``folder`` receives the history, the best weights, a TensorBoard
    log and a checkpoint per epoch. An interrupted run in it is continued. ``check_recipe`` must have passed. Raises
    CheckpointError when the folder cannot be written, UsageError when what is in it is damaged.
    """
    return _Training(model, recipe, training, public, RunFolder(folder, workers or Workers())).run()


def predict_logits(model: Any, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Logits of a Keras model, ``(n, 7)`` float32, for faces ``(n, 48, 48)`` uint8 in single crop."""
    return compile_logits(model)(pixels)


def compile_logits(model: Any) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """``predict_logits`` of one model, to be called many times: TensorFlow compiles it once, which takes seconds."""
    # No network has Python that depends on tensors, and to look for it takes AutoGraph seconds.
    forward = tf.function(lambda inputs: model(inputs, training=False), autograph=False)
    # One trace for batches of every size, and no warning about retracing when many models are measured one by one.
    traced = forward.get_concrete_function(tf.TensorSpec((None, *_INPUT_SHAPE), tf.float32))

    def logits(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        starts = range(0, len(pixels), _PREDICT_BATCH)
        parts = [traced(tf.constant(_inputs(pixels[start : start + _PREDICT_BATCH]))) for start in starts]
        return np.concatenate([np.asarray(part, np.float32) for part in parts])

    return logits


def measure_model(model: Any, faces: LabelledFaces) -> Figures:
    """Accuracy and confusion of a Keras model, single crop, without test-time augmentation."""
    return _figures(predict_logits(model, faces.pixels), faces)


def compile_measure(model: Any, recipe: Recipe) -> Callable[[LabelledFaces], tuple[Figures, float]]:
    """``measure_model`` of one model, with the weights that it has at each call; TensorFlow compiles it once.

    It measures in float32, whatever precision the recipe trains in. It returns the mean cross-entropy of the label too,
    in nats.
    """
    in_float32 = recipe.precision == "float32"
    measured = model if in_float32 else build_in_float32(recipe)
    predict = compile_logits(measured)

    def figures_and_loss(faces: LabelledFaces) -> tuple[Figures, float]:
        if not in_float32:
            measured.set_weights(model.get_weights())
        logits = predict(faces.pixels)
        return _figures(logits, faces), reliability_diagram(faces.labels, softmax(logits)).nll

    return figures_and_loss


def _figures(logits: NDArray[np.float32], faces: LabelledFaces) -> Figures:
    return measure(faces.labels, logits.argmax(axis=1), FER2013_LABELS)


def _inputs(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    return normalize(pixels)[..., np.newaxis]


class _Steps(NamedTuple):
    """The means over an epoch's steps, as in train.checkpoints.Epoch, and the seconds spent waiting for batches."""

    loss: float
    training_loss: float
    training_accuracy: float
    waited: float


class _Training:
    """Trains one run to its end, from its first epoch or after the last finished one."""

    def __init__(
        self,
        model: Any,
        recipe: Recipe,
        training: TrainingSet,
        public: LabelledFaces,
        folder: RunFolder,
    ) -> None:
        self._model, self._recipe, self._training, self._public = model, recipe, training, public
        self._folder = folder
        self._measure = compile_measure(model, recipe)
        self._learning = _learning_model(model, training)
        self._history = folder.history()

    def run(self) -> Epoch:
        for stage in stages(self._recipe):
            if len(self._history) < stage.end and not self._out_of_patience():
                self._run_stage(stage)
        load_best(self._model, self._folder.path)
        return self._best()

    def _run_stage(self, stage: Stage) -> None:
        freeze = MODELS[self._recipe.model].freeze
        if freeze and self._recipe.head_epochs:
            freeze(self._model, stage.head_only)
        loop = _Loop(self._learning, self._recipe, stage, self._training, self._folder.workers)
        self._folder.restore(loop.state, weights_only=len(self._history) <= stage.first)
        for epoch in range(len(self._history), stage.end):
            self._run_epoch(loop, epoch)
            if self._out_of_patience():
                print_line(f"{self._recipe.name}: no better epoch for {self._recipe.patience}; stopped early")
                return

    def _run_epoch(self, loop: "_Loop", epoch: int) -> None:
        started = time.monotonic()
        losses = [result.validation_loss or 0.0 for result in self._history[loop.first_epoch :]]
        steps = loop.run_epoch(batches(self._recipe, self._training, epoch), epoch, losses)
        seconds = time.monotonic() - started
        with loop.averaged():
            figures, validation_loss = self._measure(self._public)
            result = Epoch(
                epoch,
                steps.loss,
                figures.accuracy,
                figures.macro_f1,
                loop.learning_rate,
                images_per_second=len(self._training) / seconds,
                input_share=steps.waited / seconds,
                training_loss=steps.training_loss,
                training_accuracy=steps.training_accuracy,
                validation_loss=validation_loss,
            )
            if not self._history or result.accuracy > self._best().accuracy:
                self._folder.save_best(self._model)
        self._history.append(result)
        self._folder.save_history(self._history)
        loop.epoch.assign(epoch + 1)
        self._folder.save_checkpoint()
        print_line(_summary(self._recipe, result, len(self._training), self._public))

    def _best(self) -> Epoch:
        return max(self._history, key=lambda result: result.accuracy)

    def _out_of_patience(self) -> bool:
        on_loss, patience = self._recipe.monitor == "loss", self._recipe.patience
        values = [-(epoch.validation_loss or 0.0) if on_loss else epoch.accuracy for epoch in self._history]
        return bool(patience) and epochs_since_best(values) >= patience


class _Loop:
    """One stage: its optimizer, averaged weights, number of finished epochs, and training step."""

    def __init__(self, model: Any, recipe: Recipe, stage: Stage, training: TrainingSet, workers: Workers) -> None:
        self._model, self._recipe, self._stage, self._workers = model, recipe, stage, workers
        self._features_of = training.features
        self._small_epochs = 0 if stage.head_only else recipe.small_epochs
        if self._small_epochs:
            _accept_input_size(model, recipe.small_side)
        self._steps = len(training) // recipe.batch
        self._progress = Progress(recipe.name, recipe.all_epochs, self._steps)
        with workers.strategy.scope():
            self._optimizer = _optimizer(recipe, stage.learning_rate)
            self._optimizer.build(model.trainable_variables)
            self._variables = [v for v in model.variables if v.dtype.is_floating]
            self._ema = [tf.Variable(v, trainable=False) for v in self._variables]
            self.epoch = tf.Variable(0, trainable=False, dtype=tf.int64)
        self.state = tf.train.Checkpoint(model=model, optimizer=self._optimizer, ema=self._ema, epoch=self.epoch)
        self._step = tf.function(self._train_step, autograph=False)  # as in compile_logits

    @property
    def first_epoch(self) -> int:
        """The first epoch of the stage."""
        return self._stage.first

    @property
    def learning_rate(self) -> float:
        """Learning rate of the last step."""
        return float(self._optimizer.learning_rate.numpy())

    def run_epoch(self, feed: Iterator[Batch], epoch: int, losses: list[float]) -> _Steps:
        """Take one step per batch; ``losses`` are the validation losses of the stage's earlier epochs."""
        for number, generator in enumerate(_random_generators(self._model)):
            generator.reset_from_seed(hash((self._recipe.seed, epoch, number)))
        measured, waited = [], 0.0
        small = epoch - self._stage.first < self._small_epochs
        for step in range(self._steps):
            requested = time.monotonic()
            batch = next(feed)
            waited += time.monotonic() - requested
            done = (epoch - self._stage.first) * self._steps + step
            self._optimizer.learning_rate.assign(learning_rate(self._recipe, self._stage, done, self._steps, losses))
            decay = tf.constant(min(self._recipe.ema, (1 + done) / (10 + done)), tf.float32)
            measured.append(self._step(self._workers.spread(batch), decay, small=small))
            self._progress.show(epoch, step + 1)
        loss, training_loss, training_accuracy = np.mean([step.numpy() for step in measured], axis=0, dtype=float)
        return _Steps(float(loss), float(training_loss), float(training_accuracy), waited)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """A context in which the model has its averaged weights."""
        current = [variable.numpy() for variable in self._variables]
        for variable, average in zip(self._variables, self._ema, strict=True):
            variable.assign(average)
        try:
            yield
        finally:
            for variable, value in zip(self._variables, current, strict=True):
                variable.assign(value)

    def _train_step(self, batch: Batch, decay: Any, *, small: bool) -> Any:
        strategy = self._workers.strategy
        measured = strategy.run(self._replica_step, (batch, small))
        sums = strategy.reduce(tf.distribute.ReduceOp.SUM, measured, axis=None)
        for average, variable in zip(self._ema, self._variables, strict=True):
            average.assign(decay * average + (1.0 - decay) * variable)
        return sums

    def _replica_step(self, batch: Batch, small: bool) -> Any:
        """Take a step; returns this replica's parts of loss, cross-entropy of the label, and accuracy, ``(3,)``."""
        with tf.GradientTape() as tape:
            outputs = self._outputs(batch.inputs, small)
            loss = self._loss(batch, outputs)
        gradients = tape.gradient(loss, self._model.trainable_variables)
        self._optimizer.apply_gradients(zip(gradients, self._model.trainable_variables, strict=True))
        logits, labels = outputs["logits"], tf.argmax(batch.labels, axis=1)  # without smoothing; the larger of a mix
        plain = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        right = tf.cast(tf.argmax(logits, axis=1) == labels, tf.float32)
        return tf.stack([loss, *(tf.reduce_sum(part) / self._recipe.batch for part in (plain, right))])

    def _outputs(self, inputs: Any, small: bool) -> Any:
        side = self._recipe.small_side
        return self._model(tf.image.resize(inputs, (side, side), "area") if small else inputs, training=True)

    def _loss(self, batch: Batch, outputs: Any) -> Any:
        """The part of the whole batch's mean loss that this replica contributes."""
        recipe = self._recipe
        logits = outputs["logits"]
        loss = batch.weights * _cross_entropy(batch.labels, logits)
        if batch.teacher is not None:  # Hinton et al. 2015, arXiv 1503.02531
            soft = recipe.temperature**2 * _cross_entropy(batch.teacher, logits / recipe.temperature)
            share = recipe.distillation * tf.reduce_sum(batch.teacher, axis=1)  # 0 for a face without teachers
            loss = (1 - share) * loss + recipe.distillation * soft
        if batch.votes is not None:
            loss += recipe.votes * _cross_entropy(batch.votes, outputs["votes"])
        if self._features_of is not None:
            taught = self._features_of(batch.inputs if batch.clean is None else batch.clean, training=False)
            loss += recipe.features * _cosine_distance(outputs["features"], taught)
        penalty = tf.add_n([tf.cast(extra, tf.float32) for extra in self._model.losses] or [tf.constant(0.0)])
        return tf.reduce_sum(loss) / recipe.batch + penalty / self._workers.count


def _optimizer(recipe: Recipe, learning_rate: float) -> Any:
    match recipe.optimizer:
        case "adamw":
            optimizer = keras.optimizers.AdamW(learning_rate, weight_decay=recipe.weight_decay)
        case "sgd":
            optimizer = keras.optimizers.SGD(
                learning_rate, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay
            )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def _accept_input_size(model: Any, side: int) -> None:
    """Make a network accept pictures of ``side`` pixels too. Raises UsageError when its layers cannot."""
    model.input_spec = keras.layers.InputSpec(shape=(None, None, None, 1))
    try:
        model(tf.zeros((1, side, side, 1)))
    except ValueError as error:
        raise UsageError(
            f"small_epochs: {model.name} cannot take pictures of {side} pixels: its layers have a fixed input size. "
            "Give --set small_epochs=0."
        ) from error


def _cross_entropy(targets: Any, logits: Any) -> Any:
    return tf.nn.softmax_cross_entropy_with_logits(targets, logits)


def _cosine_distance(one: Any, other: Any) -> Any:
    """1 minus the cosine of the angle between the vectors of two batches, ``(b, n)``: 0 for the same direction."""
    return 1.0 - tf.reduce_sum(tf.math.l2_normalize(one, 1) * tf.math.l2_normalize(other, 1), axis=1)


def _random_generators(model: Any) -> list[Any]:
    """The random generators of dropout and noise layers, which Keras leaves out of its checkpoints."""
    layers = [layer for layer in model.layers if isinstance(layer, keras.__internal__.layers.BaseRandomLayer)]
    return [layer._random_generator._generator for layer in layers]  # no public way to them


def feature_model(model: Any) -> Any:
    """The same network up to its pooled features, ``(b, n)``: what its last layer makes logits of."""
    return keras.Model(model.input, model.layers[-1].input, name=model.name)


def _learning_model(model: Any, training: TrainingSet) -> Any:
    """The same network with all outputs that training uses: logits, and where they are learned, votes and features."""
    features = model.layers[-1].input
    outputs = {"logits": model.output}
    if training.votes is not None:
        outputs["votes"] = keras.layers.Dense(len(VOTES), name="votes", dtype="float32")(features)
    if training.features is not None:
        outputs["features"] = keras.layers.Activation("linear", name="features", dtype="float32")(features)
    return keras.Model(model.input, outputs, name=model.name)


def _summary(recipe: Recipe, result: Epoch, faces: int, public: LabelledFaces) -> str:
    left = (recipe.all_epochs - result.epoch - 1) * faces / result.images_per_second / 60
    return (
        f"{recipe.name} epoch {result.epoch + 1}/{recipe.all_epochs}: loss {result.loss:.3f}, Training "
        f"{result.training_accuracy:.1%} ({result.training_loss:.3f}), {public.split} {result.accuracy:.2%} "
        f"({result.validation_loss:.3f}), {result.images_per_second:.0f} img/s ({result.input_share:.1%} input), "
        f"{left:.0f} min left"
    )
