import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="the train extra is not installed")
pytestmark = pytest.mark.slow

import tf_keras as keras  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from tf_keras import layers  # noqa: E402

from edge.evaluation.fer2013 import LabelledFaces  # noqa: E402
from edge.model.classifier import Network  # noqa: E402
from edge.model.preprocessing import dequantize, normalize  # noqa: E402
from export.quantization.bias_correction import correct_biases  # noqa: E402
from export.quantization.convert import quantize_post_training  # noqa: E402

BRIGHT = LabelledFaces(
    np.random.default_rng(1).integers(200, 250, (64, 48, 48)).astype(np.uint8), np.zeros(64, np.int64), None
)


def differences() -> keras.Model:
    """A network that compares neighbouring pixels: its kernels have large weights that add up to nothing."""
    rng = np.random.default_rng(3)
    face = x = layers.Input((48, 48, 1))
    x = layers.ReLU(6.0)(layers.Conv2D(4, 3, use_bias=False, name="conv")(x))
    x = layers.BatchNormalization(name="norm")(layers.DepthwiseConv2D(3, use_bias=False, name="compare")(x))
    model = keras.Model(
        face, layers.Dense(7, name="logits")(layers.GlobalAveragePooling2D()(layers.ReLU(6.0)(x))), name="differences"
    )
    model.get_layer("conv").set_weights([rng.uniform(0.1, 0.3, (3, 3, 1, 4))])
    kernel = rng.uniform(-1, 1, (3, 3, 4, 1))
    model.get_layer("compare").set_weights([20 * (kernel - kernel.mean(axis=(0, 1)))])
    model.get_layer("norm").set_weights([np.ones(4), np.full(4, 3.0), np.zeros(4), np.ones(4)])
    model.get_layer("logits").set_weights([np.eye(4, 7), np.zeros(7)])
    return model


def logits(file: bytes) -> NDArray[np.float32]:
    network = Network(file, "differences")
    steps = network.output_quantization
    return dequantize(np.stack([network.logits(face) for face in BRIGHT.pixels]), steps.scale, steps.zero_point)


@pytest.mark.filterwarnings("ignore:Statistics for quantized inputs")  # the converter's, about its older way
def test_corrected_biases_undo_the_shift_that_rounded_weights_cause() -> None:
    model = differences()
    expected = model(normalize(BRIGHT.pixels)[..., None], training=False).numpy()
    corrected = correct_biases(model, BRIGHT)

    def shift(network: keras.Model) -> float:
        return float(np.abs((logits(quantize_post_training(network, BRIGHT)) - expected).mean(axis=0)).max())

    assert shift(corrected) < 0.1 * shift(model)


def test_the_network_itself_is_left_as_it_is() -> None:
    model = differences()
    before = model.get_weights()
    correct_biases(model, BRIGHT)
    for weights, earlier in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weights, earlier)
