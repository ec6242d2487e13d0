"""Start a network of fewer filters from a wider one of the same layers: its filters that tell most are kept.

Structured pruning, as Li et al. 2017 (arXiv 1608.08710); a filter counts by what it contributes to the next layer.
"""

from itertools import pairwise
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras
from numpy.typing import NDArray
from tf_keras.layers import BatchNormalization, Conv2D, Dense, DepthwiseConv2D

from train.init.batch_norm import Values, backbone_layers


def prune_filters(model: Any, wide: Any, faces: Values) -> None:
    """Give ``model`` the most telling filters of ``wide``, a trained network of the same layers.

    ``faces`` is ``(n, 48, 48, 1)`` normalized training faces; a few hundred serve to see what filters contribute, and
    to measure the mean and variance of the batch norms, which make up for the inputs that are gone.
    """
    telling = filter_contributions(wide, faces)
    chain = backbone_layers(model)
    kept: NDArray[np.int64] = np.arange(1)  # of the channels that come in: those of the picture
    x = keras.Model(model.input, chain[0].input)(faces)
    for layer in chain:
        stored = wide.get_layer(layer.name).get_weights()
        if isinstance(layer, BatchNormalization):
            mean, variance = (moment.numpy() for moment in tf.nn.moments(tf.cast(x, tf.float32), (0, 1, 2)))
            gamma, beta, *_ = stored
            layer.set_weights([gamma[kept], beta[kept], mean, variance])
        elif isinstance(layer, DepthwiseConv2D):
            layer.set_weights([stored[0][:, :, kept]])
        elif isinstance(layer, Conv2D):
            best = np.sort(np.argsort(telling[layer.name])[::-1][: layer.filters])
            layer.set_weights([stored[0][:, :, kept][..., best]])
            kept = best
        x = layer(x)
    kernel, bias = wide.get_layer("logits").get_weights()
    model.get_layer("logits").set_weights([kernel[kept], bias])


def filter_contributions(model: Any, faces: Values) -> dict[str, Values]:
    """By the name of each convolution that chooses its filters, how much each filter moves the next such layer.

    The standard deviation of what arrives there, times the length of the weights that read it.
    """
    readers = [layer for layer in model.layers if _chooses(layer) or isinstance(layer, Dense)]
    arriving = keras.Model(model.input, [reader.input for reader in readers[1:]])(faces)
    moved = {}
    for (source, reader), x in zip(pairwise(readers), arriving, strict=True):
        deviation = tf.math.reduce_std(tf.cast(x, tf.float32), axis=range(len(x.shape) - 1)).numpy()
        weights = reader.get_weights()[0]
        moved[source.name] = deviation * np.linalg.norm(weights.reshape(-1, weights.shape[-1]), axis=1)
    return moved


def _chooses(layer: Any) -> bool:
    return isinstance(layer, Conv2D) and not isinstance(layer, DepthwiseConv2D)
