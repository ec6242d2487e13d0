"""Input and output layers that all networks share."""

from typing import Any

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
