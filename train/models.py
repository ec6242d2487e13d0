"""The networks.

Every one takes ``(batch, 48, 48, 1)`` float32 as ``edge.contract.normalize`` makes it and ends in seven logits.

The students are MobileNetV1 (Howard et al. 2017, arXiv 1704.04861) with a stride-1 stem, so that 48x48 faces go
through the strides that the original sees at 96x96. Convolution, batch norm and ReLU6 are separate layers, which is
the form that quantization-aware training folds.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import tf_keras as keras
from tf_keras import layers

from edge.contract import INPUT_SIZE, LABELS

CHANNEL_MEANS: Final = (103.939, 116.779, 123.68)
"""What the face-pretrained MobileNetV1 subtracts from its three channels, 0..255."""


@dataclass(frozen=True)
class Block:
    """One depthwise-separable block; ``source`` is the MobileNetV1 block whose pretrained weights fit it."""

    source: int
    filters: int
    stride: int


# MobileNetV1's thirteen blocks, its own strides.
_STUDENT: Final = tuple(
    Block(number, filters, stride)
    for number, (filters, stride) in enumerate(
        [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)] + [(512, 1)] * 5 + [(1024, 2), (1024, 1)],
        start=1,
    )
)

# The same backbone cut to 1.1 M parameters and 45 MMAC: block 3 costs a quarter of all MACs, blocks 9 to 13 most
# parameters.
_STUDENT_SMALL: Final = (
    Block(1, 64, 1),
    Block(2, 128, 2),
    Block(4, 256, 2),
    Block(5, 256, 1),
    Block(6, 512, 2),
    Block(7, 512, 1),
    Block(8, 512, 2),
    Block(9, 512, 1),
)


def _mobilenet(name: str, blocks: tuple[Block, ...], dropout: float) -> Any:
    picture = _picture()
    x = _norm_relu(layers.Conv2D(32, 3, padding="same", use_bias=False, name="conv1")(picture), "conv1")
    return _head(name, picture, _separable(x, blocks), dropout)


def _co_teacher(dropout: float) -> Any:
    """MobileNetV1 as the published face-pretrained weights know it: 96x96, three channels, its own input range."""
    picture = _picture()
    x = layers.UpSampling2D(2, interpolation="bilinear", name="upsample")(picture)
    x = layers.Concatenate(name="three_channels")([layers.Rescaling(128.0, 128.0 - mean)(x) for mean in CHANNEL_MEANS])
    x = _norm_relu(layers.Conv2D(32, 3, 2, padding="same", use_bias=False, name="conv1")(x), "conv1")
    return _head("co-teacher", picture, _separable(x, _STUDENT), dropout)


def _paper(dropout: float) -> Any:
    """The four-convolution network of Alizadeh and Fazel 2017 (arXiv 1704.06756)."""
    picture = x = _picture()
    for filters, size, padding in ((64, 3, "same"), (128, 5, "same"), (512, 3, "same"), (512, 3, "valid")):
        x = layers.Conv2D(filters, size, padding=padding)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.Dropout(dropout)(layers.MaxPooling2D()(x))
    x = layers.Flatten()(x)
    for units in (256, 512):
        x = layers.ReLU()(layers.BatchNormalization()(layers.Dense(units)(x)))
        x = layers.Dropout(dropout)(x)
    return _model("paper", picture, x)


def _shallow(dropout: float) -> Any:
    """Two convolution blocks and one hidden layer, the paper's baseline."""
    picture = x = _picture()
    for filters in (32, 64):
        x = layers.Conv2D(filters, 3, padding="same")(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.Dropout(dropout)(layers.MaxPooling2D()(x))
    x = layers.Dense(512)(layers.Flatten()(x))
    x = layers.Dropout(dropout)(layers.ReLU()(layers.BatchNormalization()(x)))
    return _model("shallow", picture, x)


def _picture() -> Any:
    return keras.Input((INPUT_SIZE, INPUT_SIZE, 1), name="face")


def _separable(x: Any, blocks: tuple[Block, ...]) -> Any:
    for block in blocks:
        depthwise, pointwise = f"conv_dw_{block.source}", f"conv_pw_{block.source}"
        x = layers.DepthwiseConv2D(3, block.stride, padding="same", use_bias=False, name=depthwise)(x)
        x = _norm_relu(x, depthwise)
        x = layers.Conv2D(block.filters, 1, use_bias=False, name=pointwise)(x)
        x = _norm_relu(x, pointwise)
    return x


def _head(name: str, picture: Any, x: Any, dropout: float) -> Any:
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return _model(name, picture, layers.Dropout(dropout, name="dropout")(x))


def _model(name: str, picture: Any, features: Any) -> Any:
    """Close a network with seven logits, in float32 whatever the precision of the rest."""
    return keras.Model(picture, layers.Dense(len(LABELS), name="logits", dtype="float32")(features), name=name)


def _norm_relu(x: Any, name: str) -> Any:
    x = layers.BatchNormalization(name=f"{name}_bn")(x)
    return layers.ReLU(6.0, name=f"{name}_relu")(x)


@dataclass(frozen=True)
class Architecture:
    """A network by name: what it is, where it comes from, and how it is built for a dropout rate."""

    name: str
    source: str
    build: Callable[[float], Any]


MODELS: Final = {
    model.name: model
    for model in (
        Architecture("paper", "4-conv CNN, Alizadeh and Fazel 2017, arXiv 1704.06756", _paper),
        Architecture("shallow", "2-conv CNN, the same paper's baseline", _shallow),
        Architecture("co-teacher", "MobileNetV1 at 96x96, arXiv 1704.04861; HSE-FaceRes weights", _co_teacher),
        Architecture(
            "student",
            "MobileNetV1 with a stride-1 stem at 48x48",
            lambda dropout: _mobilenet("student", _STUDENT, dropout),
        ),
        Architecture(
            "student-small",
            "the same without block 3, four blocks at 512 channels",
            lambda dropout: _mobilenet("student-small", _STUDENT_SMALL, dropout),
        ),
    )
}
"""Every network that a recipe can name."""


def macs(model: Any) -> int:
    """Multiply-accumulates of one forward pass: convolutions, depthwise convolutions and dense layers."""
    total = 0
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D | layers.DepthwiseConv2D | layers.Dense):
            kernel = layer.weights[0].shape.num_elements()
            positions = layer.output_shape[1:-1]  # (height, width); () for a dense layer
            total += int(kernel) * math.prod(positions)
    return total
