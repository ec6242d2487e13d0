"""``fer-train judge``: train the small network that decides which of a cascade's proposals are faces.

It is trained twice: on drawn samples, and again with what it then took for faces and is none (hard negatives). At last
its scores are shifted, so that a score means as much in the file of another seed.
"""

from pathlib import Path
from typing import Any, Final

import numpy as np
import tensorflow as tf
import tf_keras as keras

from edge.evaluation.fer2013 import Split, read_faces
from edge.records import Gray
from edge.vision.judge import FACE_SCORE, INPUT_SIDE, STRIDE, FaceJudge, Floats, normalized
from train.data.judge_samples import JudgeSamples, face_samples, other_samples
from train.outputs import check_output, replacing

_FILTERS: Final = ((16, 5), (32, 3), (64, 3))
_HIDDEN: Final = 64
_BATCH: Final = 256
_RATE: Final = 2e-3
_SHARPEST: Final = 0.01  # smoothing of the labels
_SAME_SIZE, _OTHER_SIZE = 0.3, 0.5  # logarithm of the size from which on a face in a patch is in doubt, and is none
_FALSE_SHARE: Final = 0.001  # of new samples that are no faces, which score more than FACE_SCORE
_WEIGHTS: Final = (1.5, 1.5, 2.5, 0.8)  # in the loss: right, down, size, roll


def train_judge(data: Path, out: Path, samples: int, epochs: int, seed: int) -> float:
    """Train on FER2013's training faces, and write the weights. Returns the recall at one false patch in 1000.

    Raises UsageError when ``out`` cannot be written.
    """
    check_output(out, data)
    faces, rng = read_faces(data, Split.TRAINING).pixels, np.random.default_rng(seed)
    keras.utils.set_random_seed(seed)
    drawn = face_samples(faces, samples, rng) + other_samples(faces, samples // 2, rng)
    first = FaceJudge(_trained(drawn, epochs))
    weights = _trained(drawn + other_samples(faces, samples // 4, rng, first), epochs)
    halves: dict[str, Any] = {name: array.astype(np.float16) for name, array in weights.items()}
    recall = calibrate(halves, faces, min(samples, 20_000), seed)
    with replacing(out) as file:
        np.savez_compressed(file, **halves)
    return recall


def calibrate(weights: dict[str, Any], faces: Gray, samples: int, seed: int) -> float:
    """Shift the score of ``weights`` in place, so that one in 1000 new samples that are no faces has FACE_SCORE.

    Returns the share of new samples of faces that have more.
    """
    rng = np.random.default_rng((seed, 1))  # so that it does not matter how many samples the training took
    present, absent = face_samples(faces, samples // 10, rng), other_samples(faces, samples, rng)
    judge = FaceJudge(weights)
    threshold = np.quantile(judge.outputs(absent.patches)[:, 0], 1 - _FALSE_SHARE)
    weights["output_bias"][0] -= threshold - FACE_SCORE
    usual = present.patches[np.abs(present.targets[:, 3]) <= _SAME_SIZE]
    return float((judge.outputs(usual)[:, 0] > threshold).mean())


def _trained(samples: JudgeSamples, epochs: int) -> dict[str, Floats]:
    inputs = tensor = keras.Input((INPUT_SIDE, INPUT_SIDE, 1))
    for filters, kernel in _FILTERS:
        tensor = keras.layers.Conv2D(filters, kernel, STRIDE, "same", use_bias=False)(tensor)
        tensor = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.95)(tensor))
    tensor = keras.layers.Dropout(0.05)(keras.layers.Flatten()(tensor))
    # Without the norm, the first steps of Adam push most hidden units below 0 for every input, where they stay.
    tensor = keras.layers.BatchNormalization(momentum=0.95)(keras.layers.Dense(_HIDDEN, use_bias=False)(tensor))
    network = keras.Model(inputs, keras.layers.Dense(5)(keras.layers.ReLU()(tensor)))
    steps = max(1, epochs * len(samples.patches) // _BATCH)
    network.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(_RATE, steps)), _loss)
    network.fit(normalized(samples.patches)[..., np.newaxis], samples.targets, _BATCH, epochs, verbose=2)
    return _weights(network)


def _loss(truth: Any, output: Any) -> Any:
    """Cross-entropy of the score, and the Huber loss of where a face is."""
    is_face, growth = truth[:, 0], tf.abs(truth[:, 3])
    same_size = tf.cast(growth <= _SAME_SIZE, tf.float32)
    other_size = tf.cast(growth > _OTHER_SIZE, tf.float32)
    label = is_face * (1 - other_size) * (1 - 2 * _SHARPEST) + _SHARPEST
    doubt = is_face * (1 - same_size) * (1 - other_size)
    score = (1 - doubt) * tf.nn.sigmoid_cross_entropy_with_logits(label, output[:, 0])
    error = tf.abs(truth[:, 1:] - output[:, 1:])
    huber = tf.where(error < 0.1, 5 * error**2, error - 0.05) * _WEIGHTS
    return score + 1.5 * is_face * tf.reduce_sum(huber, -1)


def _weights(network: Any) -> dict[str, Floats]:
    """The weights as `FaceJudge` takes them: each batch norm is folded into the layer before it."""
    names = [f"convolution{number}" for number in range(len(_FILTERS))] + ["hidden", "output"]
    weights: dict[str, Floats] = {}
    for layer in network.layers:
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense):
            name = names.pop(0)
            weights[name], *bias = layer.get_weights()
            if bias:
                [weights[f"{name}_bias"]] = bias
        elif isinstance(layer, keras.layers.BatchNormalization):
            gamma, beta, mean, variance = layer.get_weights()
            factor = gamma / np.sqrt(variance + layer.epsilon)
            weights[name] = weights[name] * factor
            weights[f"{name}_bias"] = beta - mean * factor
    return weights
