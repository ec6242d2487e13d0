"""MobileNetV1 (Howard et al. 2017, arXiv 1704.04861): the co-teacher and the students.

The students have a stride-1 stem, so that 48x48 faces go through the strides that the original sees at 96x96.
Convolution, batch norm and ReLU6 are separate layers, which is the form that quantization-aware training folds.
Mixed precision is for the dense convolutions alone: on CPUs with bfloat16 instructions they become twice as fast,
depthwise convolutions several times slower. A whole training step is 1.2 to 1.5 times as fast this way.
"""

from dataclasses import dataclass
from typing import Any, Final

from tf_keras import layers

from train.models.parts import colour, picture, with_logits

CHANNEL_MEANS: Final = (103.939, 116.779, 123.68)
"""What the face-pretrained MobileNetV1 subtracts from its three channels, 0..255."""


@dataclass(frozen=True)
class Block:
    """One depthwise-separable block; ``source`` is the MobileNetV1 block whose pretrained weights fit it."""

    source: int
    filters: int
    stride: int


# MobileNetV1's thirteen blocks, its own strides.
WHOLE: Final = tuple(
    Block(number, filters, stride)
    for number, (filters, stride) in enumerate(
        [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)] + [(512, 1)] * 5 + [(1024, 2), (1024, 1)],
        start=1,
    )
)

# The same backbone cut to 0.8 M parameters and 43 MMAC: block 3 costs a quarter of all MACs, blocks 9 to 13 most
# parameters.
SMALL: Final = (
    Block(1, 64, 1),
    Block(2, 128, 2),
    Block(4, 256, 2),
    Block(5, 256, 1),
    Block(6, 512, 2),
    Block(7, 512, 1),
    Block(8, 512, 2),
)


def student(name: str, blocks: tuple[Block, ...], dropout: float, width: float = 1.0) -> Any:
    """The backbone on 48x48 grey; ``width`` multiplies the filters of every layer (the paper's alpha)."""
    face = picture()
    stem = layers.Conv2D(int(32 * width), 3, padding="same", use_bias=False, name="conv1")
    return _head(name, face, _separable(_norm_relu(stem(face), "conv1"), blocks, width), dropout)


def co_teacher(dropout: float) -> Any:
    """MobileNetV1 as the published face-pretrained weights know it: 96x96, three channels, its own input range."""
    face = picture()
    x = colour(layers.UpSampling2D(2, interpolation="bilinear", name="upsample")(face), CHANNEL_MEANS)
    x = _norm_relu(layers.Conv2D(32, 3, 2, padding="same", use_bias=False, name="conv1")(x), "conv1")
    return _head("co-teacher", face, _separable(x, WHOLE, 1.0), dropout)


def _separable(x: Any, blocks: tuple[Block, ...], width: float) -> Any:
    for block in blocks:
        depthwise, pointwise = f"conv_dw_{block.source}", f"conv_pw_{block.source}"
        x = layers.DepthwiseConv2D(3, block.stride, padding="same", use_bias=False, name=depthwise, dtype="float32")(x)
        x = _norm_relu(x, depthwise)
        x = layers.Conv2D(int(block.filters * width), 1, use_bias=False, name=pointwise)(x)
        x = _norm_relu(x, pointwise)
    return x


def _head(name: str, face: Any, x: Any, dropout: float) -> Any:
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return with_logits(name, face, layers.Dropout(dropout, name="dropout")(x))


def _norm_relu(x: Any, name: str) -> Any:
    x = layers.BatchNormalization(name=f"{name}_bn", dtype="float32")(x)
    return layers.ReLU(6.0, name=f"{name}_relu", dtype="float32")(x)
