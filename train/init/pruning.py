"""Filter pruning (Li et al. 2017, arXiv 1608.08710): initialize a network from a wider one of the same layers.

The filters that contribute most to the next layer are kept; Li et al. rank them by the L1 norm of their weights.
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
    """Set the weights of ``model`` to those of the filters of ``wide`` that contribute most.

    ``wide`` is a trained network of the same layers. ``faces`` is ``(n, 48, 48, 1)`` normalized training faces,
    float32; a few hundred are enough to measure the contributions, and the batch-norm statistics, which compensate for
    the removed inputs.
    """
    contributions = filter_contributions(wide, faces)
    chain = backbone_layers(model)
    kept: NDArray[np.int64] = np.arange(1)  # indices of the kept input channels; the picture has one
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
            best = np.sort(np.argsort(contributions[layer.name])[::-1][: layer.filters])
            layer.set_weights([stored[0][:, :, kept][..., best]])
            kept = best
        x = layer(x)
    kernel, bias = wide.get_layer("logits").get_weights()
    model.get_layer("logits").set_weights([kernel[kept], bias])


def filter_contributions(model: Any, faces: Values) -> dict[str, Values]:
    """How much each filter contributes to the next dense convolution or layer, by the convolution's name.

    It is the standard deviation of the filter's output there, times the L2 norm of the weights that read it.
    """
    readers = [layer for layer in model.layers if _is_dense_convolution(layer) or isinstance(layer, Dense)]
    inputs = keras.Model(model.input, [reader.input for reader in readers[1:]])(faces)
    contributions = {}
    for (source, reader), x in zip(pairwise(readers), inputs, strict=True):
        deviation = tf.math.reduce_std(tf.cast(x, tf.float32), axis=range(len(x.shape) - 1)).numpy()
        weights = reader.get_weights()[0]
        contributions[source.name] = deviation * np.linalg.norm(weights.reshape(-1, weights.shape[-1]), axis=1)
    return contributions


def _is_dense_convolution(layer: Any) -> bool:
    return isinstance(layer, Conv2D) and not isinstance(layer, DepthwiseConv2D)
