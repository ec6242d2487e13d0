"""Input and output layers that all networks share."""

from typing import Any

import tensorflow as tf
import tf_keras as keras
from tf_keras import layers

from edge.labels import FER2013_LABELS
from edge.model.preprocessing import INPUT_SIZE


def face_input() -> Any:
    """The input: ``(batch, 48, 48, 1)`` float32 as ``edge.model.preprocessing.normalize`` makes it."""
    return keras.Input((INPUT_SIZE, INPUT_SIZE, 1), name="face")


def to_colour(x: Any, means: tuple[float, float, float]) -> Any:
    """Turn normalized grey into three equal channels of pixels, 0..255, and subtract each channel's mean."""
    return layers.Concatenate(name="three_channels")([layers.Rescaling(128.0, 128.0 - mean)(x) for mean in means])


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
