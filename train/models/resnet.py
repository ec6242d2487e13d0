"""ResNet50 (He et al. 2015, arXiv 1512.03385) in three variants.

``teacher`` is a variant for 48x48 faces. ``resnet50-imagenet`` and ``resnet50-vggface`` are fine-tuned in two stages
from weights published for 224x224. Their backbone is one layer, a nested model that always runs in inference mode, so
that its batch norms keep the published statistics.
"""

from typing import Any, Final

import tf_keras as keras
from tf_keras import layers

from train.models.layers import ToColour, face_input, with_logits

BACKBONE: Final = "resnet50"
"""Name of the layer that published weights are loaded into; Keras gives its own ResNet50 this name."""

PUBLISHED_SIZE: Final = 224
"""Height and width that published ResNet50 weights were trained at. Frozen layers need the same size."""

IMAGENET_MEANS: Final = (103.939, 116.779, 123.68)
"""Blue, green, red means that Keras's ImageNet ResNet50 subtracts from pixels 0..255."""
VGGFACE2_MEANS: Final = (91.4953, 103.8827, 131.0912)
"""Blue, green, red means that keras-vggface's VGGFace2 networks subtract ("version 2" of its preprocessing)."""

_STAGES: Final = ((64, 3), (128, 4), (256, 6), (512, 3))  # filters of the inner convolutions, blocks
_FROZEN_LAYERS: Final = 155
RELU_CEILING: Final = 6.0
"""Upper limit of the activations of ``teacher``, the same as that of the students (ReLU6)."""


def teacher(dropout: float) -> Any:
    """ResNet50 with larger feature maps for 48x48 faces: stages of 24, 12, 6 and 3 pixels instead of 12 to 2.

    Two 3x3 convolutions at full resolution replace the 7x7 convolution and max pooling, which would drop 15 of every 16
    positions at once. Each stage halves the resolution in its first 3x3 convolution (v1.5). Each block starts as the
    identity (gamma 0 in its last batch norm, Goyal et al. 2017, arXiv 1706.02677). Activations are ReLU6, so that it
    can start with a student's function (train/init/net2net.py).
    """
    face = x = face_input()
    for number in (1, 2):
        x = layers.ReLU(RELU_CEILING)(_conv_norm(x, f"conv1_{number}_3x3", 32, 3, 1))
    x = _stages(x, first_stride=2, stride_at="3x3", last_gamma="zeros", ceiling=RELU_CEILING)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return with_logits("teacher", face, layers.Dropout(dropout, name="dropout")(x))


def imagenet(dropout: float) -> Any:
    """Keras's ResNet50, pooled, with dropout and seven logits."""
    size = (PUBLISHED_SIZE, PUBLISHED_SIZE, 3)
    backbone = keras.applications.ResNet50(include_top=False, weights=None, input_shape=size)
    face, x = _features(backbone, IMAGENET_MEANS)
    model = with_logits("resnet50-imagenet", face, layers.Dropout(dropout, name="dropout")(x))
    freeze_imagenet(model, head_only=False)
    return model


def vggface(dropout: float) -> Any:
    """The ResNet50 of keras-vggface with its layer names, followed by two hidden layers."""
    colours = keras.Input((PUBLISHED_SIZE, PUBLISHED_SIZE, 3))
    x = layers.ReLU()(_conv_norm(colours, "conv1/7x7_s2", 64, 7, 2))
    x = _stages(layers.MaxPooling2D(3, 2)(x), first_stride=1, stride_at="1x1_reduce", last_gamma="ones", ceiling=None)
    face, x = _features(keras.Model(colours, x, name=BACKBONE), VGGFACE2_MEANS)
    for number, units in enumerate((2048, 1024), start=1):
        x = layers.Dense(units, "relu", name=f"fc{number}")(layers.Dropout(dropout, name=f"dropout{number}")(x))
    model = with_logits("resnet50-vggface", face, x)
    freeze_vggface(model, head_only=False)
    return model


def freeze_imagenet(model: Any, head_only: bool) -> None:
    """Freeze the whole backbone in the first stage, its first 155 layers (up to ``conv5_block1_out``) in the second."""
    for number, layer in enumerate(model.get_layer(BACKBONE).layers):
        layer.trainable = not (head_only or number < _FROZEN_LAYERS)


def freeze_vggface(model: Any, head_only: bool) -> None:
    """Freeze the whole backbone in the first stage, its batch norms in the second."""
    for layer in model.get_layer(BACKBONE).layers:
        layer.trainable = not (head_only or isinstance(layer, layers.BatchNormalization))


def _features(backbone: Any, means: tuple[float, float, float]) -> tuple[Any, Any]:
    """The input, and the 2048 pooled features of a published backbone."""
    face = face_input()
    x = layers.Resizing(PUBLISHED_SIZE, PUBLISHED_SIZE, "bilinear", name="resize")(face)
    colours = ToColour(means, name="three_channels")(x)
    return face, layers.GlobalAveragePooling2D(name="pool")(backbone(colours, training=False))


def _stages(x: Any, *, first_stride: int, stride_at: str, last_gamma: str, ceiling: float | None) -> Any:
    """The sixteen bottleneck blocks; ``stride_at`` is the convolution that halves the size, ``ceiling`` limits ReLU."""
    for stage, (filters, blocks) in enumerate(_STAGES, start=2):
        for block in range(1, blocks + 1):
            stride = (first_stride if stage == 2 else 2) if block == 1 else 1
            shortcut, name = x, f"conv{stage}_{block}"
            if block == 1:
                shortcut = _conv_norm(x, f"{name}_1x1_proj", 4 * filters, 1, stride)
            for part, size in (("1x1_reduce", 1), ("3x3", 3)):
                x = _conv_norm(x, f"{name}_{part}", filters, size, stride if part == stride_at else 1)
                x = layers.ReLU(ceiling)(x)
            x = _conv_norm(x, f"{name}_1x1_increase", 4 * filters, 1, 1, last_gamma)
            x = layers.ReLU(ceiling)(layers.Add()([x, shortcut]))
    return x


def _conv_norm(x: Any, name: str, filters: int, size: int, stride: int, gamma: str = "ones") -> Any:
    x = layers.Conv2D(filters, size, stride, padding="same", use_bias=False, name=name)(x)
    return layers.BatchNormalization(gamma_initializer=gamma, name=f"{name}/bn")(x)
