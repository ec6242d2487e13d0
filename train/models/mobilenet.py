"""MobileNetV1 (Howard et al. 2017, arXiv 1704.04861): the co-teacher and the students.

The students have a stride-1 stem, so that a 48x48 face has the feature-map sizes that the original has for 96x96.
Convolution, batch norm and ReLU6 are separate layers, as quantization-aware training requires.
Only the dense convolutions use mixed precision: on CPUs with bfloat16 instructions it makes them twice as fast, but
depthwise convolutions several times slower. A whole training step becomes 1.2 to 1.5 times as fast.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Final

from tf_keras import layers

from edge.model.preprocessing import INPUT_SIZE
from train.models.layers import Enlarge, ToColour, face_input, with_logits

CHANNEL_MEANS: Final = (103.939, 116.779, 123.68)
"""Means that the face-pretrained MobileNetV1 subtracts from its three channels, 0..255."""


@dataclass(frozen=True)
class Block:
    """One depthwise-separable block."""

    filters: int
    stride: int


# The thirteen blocks of MobileNetV1, with its strides.
MOBILENET_V1: Final = tuple(
    Block(filters, stride)
    for filters, stride in (
        [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)] + [(512, 1)] * 5 + [(1024, 2), (1024, 1)]
    )
)

# 5/8 of the filters where most parameters are and feature maps are small, 1/2 elsewhere.
SMALL_BLOCKS: Final = tuple(
    dataclasses.replace(block, filters=block.filters * (5 if block.filters in {256, 512} else 4) // 8)
    for block in MOBILENET_V1
)


def student(name: str, stem: int, blocks: tuple[Block, ...], dropout: float, size: int = INPUT_SIZE) -> Any:
    """A student network on grey faces; ``stem`` is the number of filters of its first convolution.

    A ``size`` over 48 enlarges the face first, which makes the feature maps larger with the same weights.
    """
    face = x = face_input()
    if size != INPUT_SIZE:
        x = Enlarge(size, name="enlarge")(face)
    x = layers.Conv2D(stem, 3, padding="same", use_bias=False, name="conv1")(x)
    return _head(name, face, _separable(_norm_relu(x, "conv1"), blocks), dropout)


def divide_filters(divisor: int) -> tuple[int, tuple[Block, ...]]:
    """Filters of the stem, and the blocks, with the filters divided by ``divisor`` (1 / the paper's alpha)."""
    return 32 // divisor, tuple(dataclasses.replace(block, filters=block.filters // divisor) for block in MOBILENET_V1)


def co_teacher(dropout: float) -> Any:
    """MobileNetV1 as the published face-pretrained weights require it: 144x144, three channels, their input range."""
    face = face_input()
    x = ToColour(CHANNEL_MEANS, name="three_channels")(
        layers.UpSampling2D(3, interpolation="bilinear", name="upsample")(face)
    )
    x = _norm_relu(layers.Conv2D(32, 3, 2, padding="same", use_bias=False, name="conv1")(x), "conv1")
    return _head("co-teacher", face, _separable(x, MOBILENET_V1), dropout)


def _separable(x: Any, blocks: tuple[Block, ...]) -> Any:
    for number, block in enumerate(blocks, start=1):
        depthwise, pointwise = f"conv_dw_{number}", f"conv_pw_{number}"
        x = layers.DepthwiseConv2D(3, block.stride, padding="same", use_bias=False, name=depthwise, dtype="float32")(x)
        x = _norm_relu(x, depthwise)
        x = layers.Conv2D(block.filters, 1, use_bias=False, name=pointwise)(x)
        x = _norm_relu(x, pointwise)
    return x


def _head(name: str, face: Any, x: Any, dropout: float) -> Any:
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return with_logits(name, face, layers.Dropout(dropout, name="dropout")(x))


def _norm_relu(x: Any, name: str) -> Any:
    x = layers.BatchNormalization(name=f"{name}_bn", dtype="float32")(x)
    return layers.ReLU(6.0, name=f"{name}_relu", dtype="float32")(x)
