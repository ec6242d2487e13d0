"""Make a trained network ready to be quantized: one path of layers, no dropout, no batch norm behind a dense layer.

tensorflow-model-optimization leaves a batch norm behind a dense layer in float inside a file that calls itself int8, so
it is folded into the dense layer's weights first, which changes nothing but rounding.
"""

from typing import Any

import numpy as np
import tf_keras as keras
from tf_keras import layers

from export.quantization.convert import ConversionError

_QUANTIZABLE = (
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
    """The same function as ``model`` in layers that quantize, with copied weights; ``model`` is left as it is.

    Raises ConversionError naming the layer of a network that is not one path, or has a layer that stays in float.
    """
    copies = [layer for layer in _path(model) if not isinstance(layer, layers.Dropout)]
    x = picture = keras.Input(model.input_shape[1:], name="face")
    index = 0
    while index < len(copies):
        layer, following = copies[index], copies[index + 1 : index + 2]
        folds = isinstance(layer, layers.Dense) and following and isinstance(following[0], layers.BatchNormalization)
        x = _folded(layer, following[0], x) if folds else _copied(layer, x)
        index += 2 if folds else 1
    return keras.Model(picture, x, name=model.name)


def _path(model: Any) -> list[Any]:
    """The layers behind the input, each of which must feed the next and nothing else."""
    path = [layer for layer in model.layers if not isinstance(layer, layers.InputLayer)]
    tensor = model.input
    for layer in path:
        if layer.input is not tensor:
            raise ConversionError(f"{model.name}: layer {layer.name} is not on one path from the picture to the logits")
        if not isinstance(layer, (*_QUANTIZABLE, layers.Dropout)):
            raise ConversionError(
                f"{model.name}: layer {layer.name} ({type(layer).__name__}) cannot be quantized to int8. "
                "Export paper, shallow, student or student-small; other networks serve as teachers."
            )
        tensor = layer.output
    return path


def _copied(layer: Any, x: Any) -> Any:
    copy = type(layer).from_config(layer.get_config())
    x = copy(x)
    copy.set_weights(layer.get_weights())
    return x


def _folded(dense: Any, norm: Any, x: Any) -> Any:
    """``norm(dense(x))`` as one dense layer."""
    kernel, bias = dense.get_weights()
    gamma, beta, mean, variance = norm.get_weights()
    factor = gamma / np.sqrt(variance + norm.epsilon)
    copy = layers.Dense(dense.units, name=dense.name)
    x = copy(x)
    copy.set_weights([kernel * factor, (bias - mean) * factor + beta])
    return x
