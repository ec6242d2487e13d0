"""Prepare a trained network for quantization: one path of layers, no dropout, no batch norm behind a dense layer.

tensorflow-model-optimization leaves a batch norm behind a dense layer in float, even in an int8 file. So it is folded
into the weights of the dense layer first, which changes only the rounding. Behind a convolution, quantization-aware
training needs the batch norm: without one, it does not simulate the rounding of the weights.
"""

from typing import Any

import numpy as np
import tf_keras as keras
from tf_keras import layers

from export.quantization.errors import ConversionError
from train.models.layers import Enlarge

_QUANTIZABLE = (
    Enlarge,
    layers.Conv2D,
    layers.DepthwiseConv2D,
    layers.BatchNormalization,
    layers.ReLU,
    layers.MaxPooling2D,
    layers.GlobalAveragePooling2D,
    layers.Flatten,
    layers.Dense,
)


def prepare_network(model: Any) -> Any:
    """A copy of ``model`` that computes the same with layers that can be quantized; ``model`` is unchanged.

    Raises ConversionError with the layer's name if a layer is off the path or cannot be trained quantized.
    """
    return _fold(model, (layers.Dense,))


def fold_batch_norms(network: Any) -> Any:
    """A copy of a prepared network with all batch norms folded that follow a layer with weights."""
    return _fold(network, (layers.Conv2D, layers.DepthwiseConv2D, layers.Dense))


def _fold(model: Any, kinds: tuple[Any, ...]) -> Any:
    """A copy of ``model`` without dropout, and without the batch norms right behind linear layers of these kinds."""
    copies = [layer for layer in _path(model) if not isinstance(layer, layers.Dropout)]
    x = face = keras.Input(model.input_shape[1:], name="face")
    index = 0
    while index < len(copies):
        layer, following = copies[index], copies[index + 1 : index + 2]
        folds = _is_linear(layer, kinds) and following and isinstance(following[0], layers.BatchNormalization)
        x = _folded(layer, following[0], x) if folds else _copied(layer, x)
        index += 2 if folds else 1
    return keras.Model(face, x, name=model.name)


def _is_linear(layer: Any, kinds: tuple[Any, ...]) -> bool:
    return isinstance(layer, kinds) and layer.activation is keras.activations.linear


def _path(model: Any) -> list[Any]:
    """The layers after the input; each must feed only the next."""
    path = [layer for layer in model.layers if not isinstance(layer, layers.InputLayer)]
    tensor = model.input
    for layer in path:
        if layer.input is not tensor:
            raise ConversionError(f"{model.name}: layer {layer.name} is not on one path from the picture to the logits")
        if not isinstance(layer, (*_QUANTIZABLE, layers.Dropout)):
            raise ConversionError(
                f"{model.name}: layer {layer.name} ({type(layer).__name__}) cannot be trained quantized"
            )
        tensor = layer.output
    return path


def _copied(layer: Any, x: Any) -> Any:
    copy = type(layer).from_config(layer.get_config())
    x = copy(x)
    copy.set_weights(layer.get_weights())
    return x


def _folded(layer: Any, norm: Any, x: Any) -> Any:
    """``norm(layer(x))`` as one layer with a bias."""
    kernel, *bias = layer.get_weights()
    gamma, beta, mean, variance = norm.get_weights()
    factor = gamma / np.sqrt(variance + norm.epsilon)
    copy = type(layer).from_config({**layer.get_config(), "use_bias": True})
    x = copy(x)
    # A depthwise kernel is (height, width, filters, 1); the others end with their filters.
    of_filters = factor[:, np.newaxis] if isinstance(layer, layers.DepthwiseConv2D) else factor
    copy.set_weights([kernel * of_filters, (sum(bias) - mean) * factor + beta])
    return x
