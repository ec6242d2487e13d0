"""Inception-ResNet-v1 (Szegedy et al. 2016, arXiv 1602.07261) as FaceNet (arXiv 1503.03832) implementations have it.

Layers with weights carry the names that the published Keras weights know them by.
"""

from typing import Any, Final

from tf_keras import layers

from train.models.layers import face_input, with_logits

SIZE: Final = 112
"""Height and width that faces are enlarged to. The weights were published for 160, at more than twice the work."""

_Branches = tuple[tuple[str, ...], ...]
_SINGLE: Final = ("1x1",)


def facenet(dropout: float) -> Any:
    """The network up to its 1792 pooled features, on faces standardized one by one, as its publisher does it."""
    face = face_input()
    x = layers.Resizing(SIZE, SIZE, "bilinear", name="resize")(face)
    x = layers.LayerNormalization((1, 2, 3), 1e-6, center=False, scale=False, name="standardize", dtype="float32")(x)
    x = _stem(layers.Concatenate(name="three_channels")([x, x, x]))
    for number in range(1, 6):
        x = _block(x, f"Block35_{number}", (_SINGLE, ("0a_1x1", "0b_3x3"), ("0a_1x1", "0b_3x3", "0c_3x3")), 32, 0.17)
    x = _reduction_a(x)
    for number in range(1, 11):
        x = _block(x, f"Block17_{number}", (_SINGLE, ("0a_1x1", "0b_1x7", "0c_7x1")), 128, 0.1)
    x = _reduction_b(x)
    for number in range(1, 7):
        scale = 1.0 if number == 6 else 0.2
        x = _block(x, f"Block8_{number}", (_SINGLE, ("0a_1x1", "0b_1x3", "0c_3x1")), 192, scale, last=number == 6)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return with_logits("facenet", face, layers.Dropout(dropout, name="dropout")(x))


def _stem(x: Any) -> Any:
    x = _conv(x, "Conv2d_1a_3x3", 32, stride=2, padding="valid")
    x = _conv(x, "Conv2d_2a_3x3", 32, padding="valid")
    x = layers.MaxPooling2D(3, 2)(_conv(x, "Conv2d_2b_3x3", 64))
    x = _conv(x, "Conv2d_3b_1x1", 80)
    x = _conv(x, "Conv2d_4a_3x3", 192, padding="valid")
    return _conv(x, "Conv2d_4b_3x3", 256, stride=2, padding="valid")


def _reduction_a(x: Any) -> Any:
    one, two = (f"Mixed_6a_Branch_{branch}_Conv2d_" for branch in (0, 1))
    narrow = _conv(_conv(x, f"{two}0a_1x1", 192), f"{two}0b_3x3", 192)
    return layers.Concatenate()(
        [_halved(x, f"{one}1a_3x3", 384), _halved(narrow, f"{two}1a_3x3", 256), layers.MaxPooling2D(3, 2)(x)]
    )


def _reduction_b(x: Any) -> Any:
    one, two, three = (f"Mixed_7a_Branch_{branch}_Conv2d_" for branch in (0, 1, 2))
    deep = _conv(_conv(x, f"{three}0a_1x1", 256), f"{three}0b_3x3", 256)
    return layers.Concatenate()(
        [
            _halved(_conv(x, f"{one}0a_1x1", 256), f"{one}1a_3x3", 384),
            _halved(_conv(x, f"{two}0a_1x1", 256), f"{two}1a_3x3", 256),
            _halved(deep, f"{three}1a_3x3", 256),
            layers.MaxPooling2D(3, 2)(x),
        ]
    )


def _block(x: Any, name: str, branches: _Branches, filters: int, scale: float, *, last: bool = False) -> Any:
    """Branches of convolutions, put together by a 1x1, of which ``scale`` is added to what came in."""
    ends = []
    for number, parts in enumerate(branches):
        y = x
        for part in parts:
            y = _conv(y, f"{name}_Branch_{number}_Conv2d_{part}", filters)
        ends.append(y)
    together = layers.Conv2D(x.shape[-1], 1, name=f"{name}_Conv2d_1x1")(layers.Concatenate()(ends))
    x = layers.Add()([x, layers.Rescaling(scale)(together)])
    return x if last else layers.ReLU()(x)


def _halved(x: Any, name: str, filters: int) -> Any:
    return _conv(x, name, filters, stride=2, padding="valid")


def _conv(x: Any, name: str, filters: int, *, stride: int = 1, padding: str = "same") -> Any:
    """A convolution of the size that its name ends in, batch norm and ReLU."""
    height, width = (int(side) for side in name.rsplit("_", 1)[1].split("x"))
    x = layers.Conv2D(filters, (height, width), stride, padding, use_bias=False, name=name)(x)
    x = layers.BatchNormalization(scale=False, momentum=0.995, epsilon=1e-3, name=f"{name}_BatchNorm")(x)
    return layers.ReLU()(x)
