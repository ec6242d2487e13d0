"""Networks that know the classes of the data set ``blobs`` by heart: seven shades, told by the mean pixel.

No training: the scores are ``2 c m - c^2`` for mean pixel m and shade c, which is largest for the nearest shade.
"""

from typing import Any

import numpy as np

SHADES = 20.0 + 35.0 * np.arange(7)


def network(
    keras: Any,
    side: int = 48,
    channels: int = 1,
    *,
    mean: float = 0,
    deviation: float = 255,
    end: str = "softmax",
    activation: Any = "relu",
    shades: np.ndarray = SHADES,
) -> Any:
    """A Keras model that takes ``(pixel - mean) / deviation``; ``keras`` is the module of either version.

    ``end`` is its last activation, or ``logits``; ``activation`` is one that does not matter for the scores.
    """
    layers = keras.layers
    face = keras.Input((side, side, channels), name="face")
    x = layers.Conv2D(4, 3, padding="same", activation=activation, name="features")(face)
    x = layers.Concatenate()([layers.GlobalAveragePooling2D()(face), layers.GlobalAveragePooling2D()(x)])
    scores = layers.Dense(len(shades), name="scores", activation=None if end == "logits" else end)(x)
    model = keras.Model(face, scores)
    scaled = (shades - mean) / deviation
    kernel = np.zeros((channels + 4, len(shades)))
    kernel[:channels] = 2 * scaled / channels
    sharpness = 25 * (deviation / 255) ** 2
    model.get_layer("scores").set_weights([kernel * sharpness, -(scaled**2) * sharpness])
    return model
