"""Predictions for files of TensorFlow's converter, and which of them the export accepts."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow_model_optimization", reason="the export extra is not installed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Statistics for quantized inputs"),  # the converter's, about its older way
]

import tensorflow as tf  # noqa: E402
import tensorflow_model_optimization as tfmot  # noqa: E402
import tf_keras as keras  # noqa: E402
from tf_keras import layers  # noqa: E402

from edge.evaluation.fer2013 import LabelledFaces  # noqa: E402
from export.edgetpu.predict import Prediction, predict_mapping  # noqa: E402
from export.edgetpu.rules import OpStatus  # noqa: E402
from export.quantization.convert import check_int8, convert, quantize_post_training  # noqa: E402
from export.quantization.errors import ConversionError  # noqa: E402
from export.tflite_graph import read_graph  # noqa: E402

Layers = Callable[[Any], Any]


def plain(picture: Any) -> Any:
    x = layers.ReLU()(layers.Conv2D(8, 3, padding="same")(picture))
    return layers.Dense(7)(layers.Flatten()(layers.MaxPooling2D()(x)))


def leaky(picture: Any) -> Any:
    return layers.Dense(7)(layers.Flatten()(layers.LeakyReLU()(layers.Conv2D(8, 3)(picture))))


@functools.cache
def quantized(build: Layers, batch: int | None = 1, io: Any = tf.int8, per_channel_dense: bool = False) -> bytes:
    """Convert untrained layers by post-training quantization."""

    def pictures() -> Iterator[list[np.ndarray]]:
        rng = np.random.default_rng(0)
        for _ in range(4):
            yield [rng.uniform(-1, 1, (batch or 1, 8, 8, 1)).astype(np.float32)]

    picture = keras.Input((8, 8, 1), batch_size=batch)
    converter = tf.lite.TFLiteConverter.from_keras_model(keras.Model(picture, build(picture)))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = pictures
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = io
    converter._experimental_disable_per_channel_quantization_for_dense_layers = not per_channel_dense
    return bytes(converter.convert())


def predicted(file: bytes) -> Prediction:
    return predict_mapping(read_graph(file, "converted"))


def test_an_int8_network_is_predicted_to_map_and_passes_the_gate() -> None:
    file = quantized(plain)
    check_int8(file)
    prediction = predicted(file)
    assert prediction.all_mapped
    assert [op.op for op in prediction.ops] == ["CONV_2D", "MAX_POOL_2D", "RESHAPE", "FULLY_CONNECTED"]


def test_a_float_network_is_not_quantized() -> None:
    picture = keras.Input((8, 8, 1), batch_size=1)
    model = keras.Model(picture, plain(picture))
    refused = predicted(bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())).refused
    assert refused is not None
    assert "Model not quantized" in refused


def test_both_ways_of_quantizing_leave_dense_layers_one_scale() -> None:
    """Hidden ones too: trained with one scale, they came out of the converter with many."""
    face = keras.Input((48, 48, 1), name="face")
    x = layers.Flatten()(layers.MaxPooling2D(8)(layers.ReLU()(layers.Conv2D(4, 3, padding="same")(face))))
    model = keras.Model(face, layers.Dense(7)(layers.ReLU()(layers.Dense(16)(x))))
    pixels = np.random.default_rng(1).integers(0, 256, (8, 48, 48), np.uint8)
    faces = LabelledFaces(pixels, np.zeros(8, np.int64), None)
    for file in (convert(tfmot.quantization.keras.quantize_model(model)), quantize_post_training(model, faces)):
        prediction = predicted(file)
        assert [op.op for op in prediction.ops].count("FULLY_CONNECTED") == 2
        assert not any("FULLY_CONNECTED" in warning for warning in prediction.warnings)


def test_per_channel_dense_weights_as_tensorflow_writes_them_are_warned_of() -> None:
    warnings = predicted(quantized(plain, per_channel_dense=True)).warnings
    assert any("FULLY_CONNECTED with a scale for each of 7 outputs" in warning for warning in warnings)
    assert not any("FULLY_CONNECTED" in warning for warning in predicted(quantized(plain)).warnings)


def test_a_leaky_relu_ends_the_partition() -> None:
    prediction = predicted(quantized(leaky))
    assert prediction.partition == (0, 1)
    assert (prediction.ops[1].op, prediction.ops[1].status) == ("LEAKY_RELU", OpStatus.UNSUPPORTED)


def test_a_batch_of_two_maps_nothing_and_a_dynamic_one_gives_a_warning() -> None:
    prediction = predicted(quantized(plain, batch=2))
    assert prediction.mapped_ops == 0
    assert prediction.ops[0].status == OpStatus.RANK
    file = quantized(plain, batch=None)
    assert any("the batch size is dynamic" in warning for warning in predicted(file).warnings)
    with pytest.raises(ConversionError, match="dynamic"):
        check_int8(file)


def test_float_inputs_and_outputs_stay_on_the_cpu_around_what_maps() -> None:
    prediction = predicted(quantized(plain, io=tf.float32))
    assert [op.mapping for op in prediction.ops] == ["cpu", "tpu", "tpu", "tpu", "tpu", "cpu"]
    assert {prediction.ops[0].op, prediction.ops[-1].op} == {"QUANTIZE", "DEQUANTIZE"}
    assert prediction.ops[-1].status == OpStatus.DTYPE


def test_uint8_inputs_and_outputs_cost_two_more_ops() -> None:
    prediction = predicted(quantized(plain, io=tf.uint8))
    assert prediction.all_mapped
    assert [op.op for op in prediction.ops].count("QUANTIZE") == 2
