"""Pointwise convolutions as matrix products, for training in float32 on processors.

A 1x1 convolution of stride 1 is a product of each pixel's channels and a matrix. TensorFlow computes its gradient for
the input slowly on AVX2: 422 ms instead of 30 for a batch of 64 and 1024 channels at 3x3 pixels. As products, a step of
``student`` is 1.6 times as fast (docs/training.md). The networks that are measured and exported keep the convolutions.
"""

from typing import Any

import tensorflow as tf
import tf_keras as keras
from tf_keras import layers


class Conv2D(layers.Conv2D):  # type: ignore[misc]  # tf_keras has no types
    """A 1x1 convolution of stride 1, computed as a matrix product.

    It has Keras's name because weight files call layers by their class, and these weights are read as convolutions.
    """

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """From ``(b, h, w, c)`` and ``(1, 1, c, filters)`` to ``(b, h, w, filters)``."""
        channels, filters = kernel.shape[2:]
        products = tf.reshape(inputs, (-1, channels)) @ tf.reshape(kernel, (channels, filters))
        return tf.reshape(products, tf.concat([tf.shape(inputs)[:3], [filters]], axis=0))


def with_products(model: Any) -> Any:
    """The same network with the same weights, which computes its pointwise convolutions as matrix products."""
    same = keras.models.clone_model(model, clone_function=_as_product)
    same.set_weights(model.get_weights())
    return same


def _as_product(layer: Any) -> Any:
    pointwise = type(layer) is layers.Conv2D and layer.kernel_size == layer.strides == (1, 1) and layer.groups == 1
    return (Conv2D if pointwise else type(layer)).from_config(layer.get_config())
