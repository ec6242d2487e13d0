"""Plain stacks of convolutions and dense layers: ``paper``, ``shallow`` and ``vgg16``."""

from typing import Any

import tf_keras as keras
from tf_keras import layers

from train.models.layers import SamplewiseNormalization, face_input, with_logits


def paper(dropout: float) -> Any:
    """The four-convolution network of Alizadeh and Fazel 2017 (arXiv 1704.06756)."""
    face = x = face_input()
    for filters, size, padding in ((64, 3, "same"), (128, 5, "same"), (512, 3, "same"), (512, 3, "valid")):
        x = _norm_pool(layers.Conv2D(filters, size, padding=padding)(x), dropout)
    x = layers.Flatten()(x)
    for units in (256, 512):
        x = _hidden(x, units, dropout)
    return with_logits("paper", face, x)


def shallow(dropout: float) -> Any:
    """Two convolution blocks and one hidden layer: the baseline of the same paper."""
    face = x = face_input()
    for filters in (32, 64):
        x = _norm_pool(layers.Conv2D(filters, 3, padding="same")(x), dropout)
    return with_logits("shallow", face, _hidden(layers.Flatten()(x), 512, dropout))


def vgg16(dropout: float) -> Any:
    """The convolutions of VGG16 (arXiv 1409.1556) from random weights, behind a batch norm and a little noise.

    Each picture is first centred on its own mean and divided by its own standard deviation (samplewise). For 48x48
    faces the convolutions end in a 1x1 map of 512 channels. The two hidden layers are smaller than VGG's and carry an
    L2 penalty of 1e-3 on kernels and biases.
    """
    face = face_input()
    x = SamplewiseNormalization(name="samplewise", dtype="float32")(face)
    x = layers.GaussianNoise(0.01, name="noise")(layers.BatchNormalization(name="input_bn")(x))
    x = keras.applications.VGG16(include_top=False, weights=None, input_tensor=x).output
    x = layers.Flatten(name="flatten")(x)
    for number in (1, 2):
        penalty = keras.regularizers.L2(1e-3)
        x = layers.Dense(2048, "relu", kernel_regularizer=penalty, bias_regularizer=penalty, name=f"fc{number}")(x)
        x = layers.Dropout(dropout, name=f"dropout{number}")(x)
    return with_logits("vgg16", face, x)


def _norm_pool(x: Any, dropout: float) -> Any:
    """The layers that follow each convolution: batch norm, ReLU, max pooling, dropout."""
    x = layers.ReLU()(layers.BatchNormalization()(x))
    return layers.Dropout(dropout)(layers.MaxPooling2D()(x))


def _hidden(x: Any, units: int, dropout: float) -> Any:
    x = layers.ReLU()(layers.BatchNormalization()(layers.Dense(units)(x)))
    return layers.Dropout(dropout)(x)
