"""Give a network's batch norms back what published or exported weights have folded into an affine map."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras
from numpy.typing import NDArray

Values = NDArray[np.float32]
Affine = tuple[Values | float, Values]
"""What a folded graph multiplies a convolution's output by, and what it adds then, a channel."""


def restore_batch_norms(
    model: Any, kernel: Callable[[str], Values], affine: Callable[[str], Affine], faces: Values
) -> None:
    """Set the convolutions in front of ``pool``, and their batch norms, to what a folded graph computes.

    ``kernel`` and ``affine`` take the convolution's name; its batch norm has the same with ``_bn`` behind. ``faces`` is
    ``(n, 48, 48, 1)`` normalized training faces; a few hundred serve to measure the mean and variance that the batch
    norms begin with. In inference mode these cancel out: what the network computes does not depend on them. Raises
    what ``kernel`` and ``affine`` raise, and ValueError for values of another shape.
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
    """The layers from ``conv1`` to in front of ``pool``: a chain, each feeds the next."""
    ends = [model.layers.index(model.get_layer(name)) for name in ("conv1", "pool")]
    return list(model.layers[slice(*ends)])
