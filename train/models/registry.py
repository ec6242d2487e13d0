"""The table of all networks.

Each takes ``(batch, 48, 48, 1)`` float32 as ``edge.model.preprocessing.normalize`` makes it and ends in seven
float32 logits. The families are in the modules ``plain``, ``mobilenet``, ``inception`` and ``resnet``.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import tf_keras as keras
from tf_keras import layers

from edge.errors import UsageError, nearest
from train.models import inception, mobilenet, plain, resnet


@dataclass(frozen=True)
class Architecture:
    """A network: its name, its source, and ``build``, which makes the Keras model for a dropout rate.

    ``freeze(model, head_only)`` sets ``trainable`` of a pretrained backbone's layers in place: ``head_only`` is True in
    the first stage of training and False in the second, which is also the state after ``build``. None: the whole
    network is trained at once. The rest says which weights training may start from; None: none of that kind.
    ``weights`` is a key of ``train.init.pretrained.PUBLISHED``. ``wider`` is a network of the same layers with at least
    as many filters, which is pruned (train/init/pruning.py). ``narrower`` is a network whose function this one can
    reproduce (train/init/net2net.py).
    """

    name: str
    source: str
    build: Callable[[float], Any]
    freeze: Callable[[Any, bool], None] | None = None
    weights: str | None = None
    wider: str | None = None
    narrower: str | None = None

    @property
    def sources(self) -> tuple[str, ...]:
        """The networks whose runs and bundles training may start from."""
        return tuple(filter(None, (self.name, self.wider, self.narrower)))


MODELS: Final = {
    model.name: model
    for model in (
        Architecture("paper", "4-conv CNN, Alizadeh and Fazel 2017, arXiv 1704.06756", plain.paper),
        Architecture("shallow", "2-conv CNN, the same paper's baseline", plain.shallow),
        Architecture("vgg16", "VGG16 convolutions at 48x48, arXiv 1409.1556; two FC 2048", plain.vgg16),
        Architecture(
            "resnet50-imagenet",
            "ResNet50 at 224x224, arXiv 1512.03385; ImageNet weights",
            resnet.imagenet,
            resnet.freeze_imagenet,
            "imagenet",
        ),
        Architecture(
            "resnet50-vggface",
            "ResNet50 at 224x224, arXiv 1710.08092; keras-vggface's VGGFace2 weights",
            resnet.vggface,
            resnet.freeze_vggface,
            "vggface",
        ),
        Architecture(
            "teacher",
            "ResNet50 v1.5 at 48x48 without early pooling, arXiv 1512.03385",
            resnet.teacher,
            narrower="student-half",
        ),
        Architecture(
            "co-teacher",
            "MobileNetV1 at 144x144, arXiv 1704.04861; HSE-FaceRes weights",
            mobilenet.co_teacher,
            weights="faceres",
        ),
        Architecture(
            "facenet",
            "Inception-ResNet-v1 at 112x112, arXiv 1602.07261; FaceNet weights",
            inception.facenet,
            weights="facenet",
        ),
        Architecture(
            "student",
            "MobileNetV1 with a stride-1 stem at 48x48",
            lambda dropout: mobilenet.student("student", *mobilenet.divide_filters(1), dropout),
            weights="faceres",
        ),
        Architecture(
            "student-72",
            "student on faces enlarged to 72x72",
            lambda dropout: mobilenet.student("student-72", *mobilenet.divide_filters(1), dropout, size=72),
            wider="student",
        ),
        Architecture(
            "student-small",
            "student with 1/2 to 5/8 of the filters",
            lambda dropout: mobilenet.student("student-small", 16, mobilenet.SMALL_BLOCKS, dropout),
            wider="student",
        ),
        Architecture(
            "student-small-72",
            "student-small on faces enlarged to 72x72",
            lambda dropout: mobilenet.student("student-small-72", 16, mobilenet.SMALL_BLOCKS, dropout, size=72),
            wider="student-small",
        ),
        Architecture(
            "student-half",
            "student with half the filters",
            lambda dropout: mobilenet.student("student-half", *mobilenet.divide_filters(2), dropout),
            wider="student",
        ),
        Architecture(
            "student-quarter",
            "student with a quarter of the filters",
            lambda dropout: mobilenet.student("student-quarter", *mobilenet.divide_filters(4), dropout),
            wider="student",
        ),
    )
}
"""Every network that a recipe can name."""


def find_architecture(name: str) -> Architecture:
    """The network called ``name``. Raises UsageError with the nearest name."""
    if name not in MODELS:
        raise UsageError(f"no network {name!r}; {nearest(name, MODELS)}")
    return MODELS[name]


def macs(model: Any) -> int:
    """Multiply-accumulates of one forward pass: convolutions, depthwise convolutions, dense layers, nested models."""
    total = 0
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            total += macs(layer)
        elif isinstance(layer, layers.Conv2D | layers.DepthwiseConv2D | layers.Dense):
            kernel = layer.weights[0].shape.num_elements()
            positions = layer.output_shape[1:-1]  # (height, width); () for a dense layer
            total += int(kernel) * math.prod(positions)
    return total
