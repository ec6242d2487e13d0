"""Input and output layers that all networks share."""

from collections.abc import Sequence
from typing import Any, Final

import tensorflow as tf
import tf_keras as keras
from tf_keras import layers

from edge.labels import FER2013_LABELS
from edge.model.preprocessing import INPUT_SIZE

_LEAST_VARIANCE: Final = (4 / 128) ** 2  # of four grey levels


class SamplewiseNormalization(layers.Layer):  # type: ignore[misc]
    """Centre each picture on its own mean, and divide it by its own standard deviation.

    A picture of less contrast than four grey levels is not amplified further: its noise would be all there is, and a
    plain one would ruin the int8 range of the factor. Only with these operations does the whole network become int8;
    Keras's LayerNormalization adds a negation, which TFLite has in float only.
    """

    def call(self, pictures: Any) -> Any:
        """Pictures ``(b, h, w, c)`` of any scale to such of mean 0 and variance 1."""
        centred = pictures - tf.reduce_mean(pictures, [1, 2, 3], keepdims=True)
        variance = tf.reduce_mean(centred * centred, [1, 2, 3], keepdims=True)
        return centred * tf.math.rsqrt(tf.maximum(variance, tf.cast(_LEAST_VARIANCE, variance.dtype)))


def face_input() -> Any:
    """The input: ``(batch, 48, 48, 1)`` float32 as ``edge.model.preprocessing.normalize`` makes it."""
    return keras.Input((INPUT_SIZE, INPUT_SIZE, 1), name="face")


class ToColour(layers.Layer):  # type: ignore[misc]
    """Turn normalized grey into three equal channels of pixels, 0..255, and subtract each channel's mean.

    It is a convolution with constants. As a multiplication of three channels, TensorFlow's converter gives the int8
    input a scale of 1 in place of 1/128, with which a picture is lost.
    """

    def __init__(self, means: Sequence[float], **options: Any) -> None:
        super().__init__(**options)
        self._means = tuple(means)

    def call(self, grey: Any) -> Any:
        """From ``(b, h, w, 1)`` to ``(b, h, w, 3)``."""
        kernel = tf.fill([1, 1, 1, len(self._means)], tf.cast(128.0, grey.dtype))
        offsets = tf.cast([128.0 - mean for mean in self._means], grey.dtype)
        return tf.nn.bias_add(tf.nn.conv2d(grey, kernel, 1, "VALID"), offsets)

    def get_config(self) -> dict[str, Any]:
        """What makes the layer again."""
        return {**super().get_config(), "means": self._means}


def with_logits(name: str, face: Any, features: Any) -> Any:
    """A model from ``face`` to seven logits of ``features``; the logits are float32 in any precision."""
    return keras.Model(face, layers.Dense(len(FER2013_LABELS), name="logits", dtype="float32")(features), name=name)


@keras.utils.register_keras_serializable("fer-edge")
class Enlarge(layers.Layer):  # type: ignore[misc]  # tf_keras has no types
    """Bilinear enlargement to ``size`` pixels a side, float32, for networks that are to run on devices.

    Corners stay at the corners. Keras's Resizing has half-pixel centers instead, and the Edge TPU compiler leaves such
    ops on the CPU (export/edgetpu/rules.py).
    """

    def __init__(self, size: int, **keywords: Any) -> None:
        super().__init__(**{"dtype": "float32", **keywords})
        self.size = size

    def call(self, face: Any) -> Any:
        """Enlarge faces ``(batch, height, width, channels)``."""
        return tf.raw_ops.ResizeBilinear(
            images=face, size=(self.size, self.size), align_corners=True, half_pixel_centers=False
        )

    def get_config(self) -> dict[str, Any]:
        """What ``__init__`` takes."""
        return {**super().get_config(), "size": self.size}
