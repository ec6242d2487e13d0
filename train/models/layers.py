"""What every network begins and ends with."""

from typing import Any

import tf_keras as keras
from tf_keras import layers

from edge.model.preprocessing import INPUT_SIZE, LABELS


def face_input() -> Any:
    """The input: ``(batch, 48, 48, 1)`` float32 as ``edge.model.preprocessing.normalize`` makes it."""
    return keras.Input((INPUT_SIZE, INPUT_SIZE, 1), name="face")


def colour(x: Any, means: tuple[float, float, float]) -> Any:
    """Turn normalized grey back into pixels, 0..255, copied to three channels less each channel's mean."""
    return layers.Concatenate(name="three_channels")([layers.Rescaling(128.0, 128.0 - mean)(x) for mean in means])


def with_logits(name: str, face: Any, features: Any) -> Any:
    """Close a network with seven logits, in float32 whatever the precision of the rest."""
    return keras.Model(face, layers.Dense(len(LABELS), name="logits", dtype="float32")(features), name=name)
