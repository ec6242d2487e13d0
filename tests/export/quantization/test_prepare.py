from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="the train extra is not installed")
pytestmark = pytest.mark.slow

import tf_keras as keras  # noqa: E402
from tf_keras import layers  # noqa: E402

from edge.evaluation.fer2013 import LabelledFaces  # noqa: E402
from edge.model.classifier import Network  # noqa: E402
from edge.model.preprocessing import dequantize, normalize  # noqa: E402
from export.edgetpu.predict import predict_mapping  # noqa: E402
from export.quantization.convert import convert, quantize_post_training, simulate_int8  # noqa: E402
from export.quantization.errors import ConversionError  # noqa: E402
from export.quantization.prepare import fold_batch_norms, prepare_network  # noqa: E402
from export.tflite_graph import read_graph  # noqa: E402
from train.models.mobilenet import Block, student  # noqa: E402
from train.models.registry import MODELS  # noqa: E402

RNG = np.random.default_rng(4)
FACES = (RNG.integers(0, 192, (16, 1, 1)) + RNG.integers(0, 64, (16, 48, 48))).astype(np.uint8)  # dark to bright


@pytest.mark.parametrize("name", ["paper", "shallow"])
def test_folding_changes_nothing_but_rounding(name: str) -> None:
    rng = np.random.default_rng(1)
    model = MODELS[name].build(0.3)
    model.set_weights([w + rng.uniform(0, 0.5, w.shape) for w in model.get_weights()])  # norms that do something
    prepared = prepare_network(model)
    faces = rng.uniform(-1, 1, (8, 48, 48, 1)).astype(np.float32)
    before, after = model.predict(faces, verbose=0), prepared.predict(faces, verbose=0)
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4 * np.abs(before).max())
    kinds = [type(layer) for layer in prepared.layers]
    assert layers.Dropout not in kinds
    assert layers.BatchNormalization not in kinds[kinds.index(layers.Flatten) :]


def test_folding_all_batch_norms_changes_nothing_but_rounding() -> None:
    model = student("tiny", 4, (Block(8, 2), Block(16, 1)), 0.2)
    rng = np.random.default_rng(2)
    model.set_weights([w + rng.uniform(0, 0.3, w.shape) for w in model.get_weights()])
    folded = fold_batch_norms(prepare_network(model))
    faces = normalize(FACES)[..., None]
    before, after = model.predict(faces, verbose=0), folded.predict(faces, verbose=0)
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4 * np.abs(before).max())
    assert layers.BatchNormalization not in map(type, folded.layers)


def test_a_batch_norm_behind_an_activation_is_not_folded() -> None:
    face = keras.Input((48, 48, 1))
    model = keras.Model(face, layers.BatchNormalization()(layers.Conv2D(3, 3, activation="relu")(face)))
    model.set_weights([w + RNG.uniform(0, 0.3, w.shape) for w in model.get_weights()])
    faces = normalize(FACES)[..., None]
    before, after = model.predict(faces, verbose=0), fold_batch_norms(model).predict(faces, verbose=0)
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def enlarging() -> Any:
    """A network like student-72 with one block, prepared."""
    model = student("tiny-72", 4, (Block(8, 2),), 0.2, size=72)
    rng = np.random.default_rng(2)
    model.set_weights([w + rng.uniform(0, 0.3, w.shape) for w in model.get_weights()])
    return prepare_network(model)


def post_training(network: Any) -> tuple[bytes, Any]:
    return quantize_post_training(network, LabelledFaces(FACES, np.zeros(len(FACES), np.int64), None)), network


def quantization_aware(network: Any) -> tuple[bytes, Any]:
    simulated = simulate_int8(network)
    simulated(normalize(FACES)[..., None], training=True)  # measures the ranges of its activations, a little
    return convert(simulated), simulated


@pytest.mark.filterwarnings("ignore:Statistics for quantized inputs")  # the converter's, about its older way
@pytest.mark.parametrize("quantize", [post_training, quantization_aware])
def test_a_network_that_enlarges_its_face_becomes_int8_and_is_predicted_to_map(
    enlarging: Any, quantize: Callable[[Any], tuple[bytes, Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    file, source = quantize(enlarging)
    assert capfd.readouterr().err == ""  # the converter logs from C++
    prediction = predict_mapping(read_graph(file, "tiny-72"))
    assert prediction.all_mapped, prediction
    first = prediction.ops[0]
    assert (first.op, first.version, first.output.shape) == ("RESIZE_BILINEAR", 2, (1, 72, 72, 1))
    network = Network(file, "tiny-72")
    steps = network.output_quantization
    int8 = dequantize(np.stack([network.logits(face) for face in FACES]), steps.scale, steps.zero_point)
    real = source(normalize(FACES)[..., None], training=False).numpy()
    assert int8 == pytest.approx(real, abs=0.05 * float(np.abs(real).max()))
    assert np.ptp(int8, axis=0).max() > 0.2 * np.abs(real).max()  # faces make a difference


def test_a_network_that_cannot_be_quantized_is_refused_by_the_layer_in_the_way() -> None:
    with pytest.raises(ConversionError, match=r"co-teacher: layer upsample \(UpSampling2D\)"):
        prepare_network(MODELS["co-teacher"].build(0.3))
