"""Bias correction: biases that make up for the rounding of the weights (Nagel et al. 2019, arXiv 1906.04721, 4.2).

A filter that compares neighbouring pixels has large weights that add up to about nothing. Rounded to int8 they add up
to something else, which is multiplied by the mean of what the filter sees: a shift of its output that is the same for
all faces. The bias can take it back.
"""

from typing import Any, Final

import numpy as np
import tf_keras as keras
from numpy.typing import NDArray
from tf_keras import layers

from edge.evaluation.fer2013 import LabelledFaces
from edge.model.preprocessing import normalize
from export.quantization.prepare import fold_batch_norms

_FACES: Final = 1024
_BATCH: Final = 128
_STEPS: Final = 127  # of an int8 weight to either side of 0


def correct_biases(network: Any, training: LabelledFaces) -> Any:
    """A copy of a prepared network, with its batch norms folded, that is to be quantized after training.

    Its biases are changed so that the rounded weights give the same mean for some Training faces as the weights of
    ``network`` do. What a layer sees is taken from the float network, not from the layers before it in int8.
    """
    corrected = fold_batch_norms(network)
    rounded = [layer for layer in corrected.layers if _has_bias(layer)]
    means = _mean_inputs(corrected, rounded, training.pixels[:_FACES])
    for layer, mean in zip(rounded, means, strict=True):
        kernel, bias = layer.get_weights()
        error = type(layer).from_config({**layer.get_config(), "activation": "linear", "use_bias": False})
        error.build(mean.shape)
        error.set_weights([_rounded(kernel, layer) - kernel])
        shift = np.asarray(error(mean))  # of the mean output: these layers are linear
        layer.set_weights([kernel, bias - shift.mean(axis=tuple(range(shift.ndim - 1)))])
    return corrected


def _has_bias(layer: Any) -> bool:
    return isinstance(layer, (layers.Conv2D, layers.DepthwiseConv2D, layers.Dense)) and bool(layer.use_bias)


def _mean_inputs(network: Any, inputs_of: list[Any], faces: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    """The mean input of each layer over all faces, with a batch axis of 1."""
    inputs = keras.Model(network.input, [layer.input for layer in inputs_of])
    sums = [0.0] * len(inputs_of)
    for start in range(0, len(faces), _BATCH):
        batch = normalize(faces[start : start + _BATCH])[..., np.newaxis]
        parts = inputs(batch, training=False)
        sums = [total + np.asarray(part).sum(axis=0, keepdims=True) for total, part in zip(sums, parts, strict=True)]
    return [np.asarray(total / len(faces), np.float32) for total in sums]


def _rounded(kernel: NDArray[np.float32], layer: Any) -> NDArray[np.float32]:
    """The weights as TensorFlow Lite rounds them: one scale for each filter, or for all of a dense layer."""
    if isinstance(layer, layers.Dense):
        largest = np.abs(kernel).max()
    else:
        filters = 2 if isinstance(layer, layers.DepthwiseConv2D) else 3
        largest = np.abs(kernel).max(axis=tuple({0, 1, 2, 3} - {filters}), keepdims=True)
    scale = np.where(largest > 0, largest / _STEPS, 1.0)
    return np.asarray(np.rint(kernel / scale) * scale, np.float32)
