"""Networks that quantization-aware training does not take: VGG16's front and ResNet50's resizing, scaled down."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow_model_optimization", reason="the export extra is not installed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Statistics for quantized inputs"),  # the converter's, about its older way
]

import tf_keras as keras  # noqa: E402
from tf_keras import layers  # noqa: E402

from edge.evaluation.fer2013 import LabelledFaces  # noqa: E402
from edge.model.classifier import Network  # noqa: E402
from edge.model.preprocessing import dequantize  # noqa: E402
from export.quantization.convert import quantize_post_training  # noqa: E402
from export.quantization.errors import ConversionError  # noqa: E402
from export.quantization.prepare import prepare_network  # noqa: E402
from train.models.layers import SamplewiseNormalization, ToColour, face_input, with_logits  # noqa: E402
from train.models.resnet import IMAGENET_MEANS  # noqa: E402
from train.trainer import predict_logits  # noqa: E402

FACES = LabelledFaces(
    np.random.default_rng(4).integers(40, 200, (24, 6, 6), np.uint8).repeat(8, 1).repeat(8, 2), np.zeros(24, int), None
)


def samplewise() -> Any:
    face = face_input()
    x = SamplewiseNormalization(name="samplewise")(face)
    x = layers.GaussianNoise(0.01)(layers.BatchNormalization()(x))
    x = layers.Conv2D(8, 3, 4, activation="relu")(x)
    return with_logits("samplewise", face, layers.Flatten()(x))


def resized() -> Any:
    face = face_input()
    x = ToColour(IMAGENET_MEANS)(layers.Resizing(96, 96, "bilinear", name="resize")(face))
    x = layers.Conv2D(8, 3, 4, use_bias=False)(x)
    x = layers.ReLU()(layers.Add()([x, layers.Conv2D(8, 1)(x)]))
    return with_logits("resized", face, layers.GlobalAveragePooling2D()(x))


@pytest.mark.parametrize(("build", "layer"), [(samplewise, "samplewise"), (resized, "resize")])
def test_a_network_off_the_plain_path_becomes_int8_after_training(build: Any, layer: str) -> None:
    keras.utils.set_random_seed(1)
    model = build()
    with pytest.raises(ConversionError, match=rf"layer {layer} \(\w+\) cannot be trained quantized"):
        prepare_network(model)
    network = Network(quantize_post_training(model, FACES, edge_tpu=False), "the file")
    assert network.input_quantization.scale == pytest.approx(1 / 128)
    quantization = network.output_quantization
    int8 = np.stack([network.logits(face) for face in FACES.pixels])
    real = dequantize(int8, quantization.scale, quantization.zero_point)
    exact = predict_logits(model, FACES.pixels)
    assert np.corrcoef(real.ravel(), exact.ravel())[0, 1] > 0.99
