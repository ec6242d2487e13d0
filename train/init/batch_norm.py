"""Restore batch norms from weights in which they are folded into an affine map, as inference formats do it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras
from numpy.typing import NDArray

Values = NDArray[np.float32]
Affine = tuple[Values | float, Values]
"""Factor and bias of a folded graph, which it applies to a convolution's output; one value per channel."""


def restore_batch_norms(
    model: Any, kernel: Callable[[str], Values], affine: Callable[[str], Affine], faces: Values
) -> None:
    """Set the convolutions before ``pool`` and their batch norms, so that they compute the same as a folded graph.

    ``kernel`` and ``affine`` take a convolution's name; its batch norm has the same name with ``_bn`` appended.
    ``faces`` is ``(n, 48, 48, 1)`` normalized training faces, float32; a few hundred are enough to measure the initial
    mean and variance of the batch norms. In inference mode these cancel out, so the network's output does not depend on
    them. Raises what ``kernel`` and ``affine`` raise, and ValueError for values of another shape.
    """
    chain = backbone_layers(model)
    x = keras.Model(model.input, chain[0].input)(faces)
    for layer in chain:
        if isinstance(layer, keras.layers.BatchNormalization):
            scale, bias = affine(layer.name.removesuffix("_bn"))
            mean, variance = (moment.numpy() for moment in tf.nn.moments(tf.cast(x, tf.float32), (0, 1, 2)))
            layer.set_weights([scale * np.sqrt(variance + layer.epsilon), bias + scale * mean, mean, variance])
        elif layer.weights:
            layer.set_weights([kernel(layer.name)])
        x = layer(x)


def backbone_layers(model: Any) -> list[Any]:
    """The layers from ``conv1`` up to, but without, ``pool``; each feeds only the next."""
    ends = [model.layers.index(model.get_layer(name)) for name in ("conv1", "pool")]
    return list(model.layers[slice(*ends)])
