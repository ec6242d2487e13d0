"""Two ways from a float network to an int8 TFLite file, and the gate that lets no float op slip through.

Quantization-aware training follows Jacob et al. 2018 (arXiv 1712.05877) as tensorflow-model-optimization does it;
post-training quantization is TensorFlow Lite's.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras
from numpy.typing import NDArray

from edge.evaluation.fer2013 import LabelledFaces
from edge.model.preprocessing import INPUT_SIZE, normalize
from export.edgetpu.predict import predict_mapping
from export.edgetpu.rules import OpStatus
from export.quantization.errors import ConversionError
from export.quantization.native import native_messages_hidden
from export.tflite_graph import read_graph
from train.data.batches import Teachers, TrainingSet
from train.data.view_bank import make_bank
from train.models.layers import Enlarge
from train.recipes import Recipe
from train.trainer import compile_logits, configure_keras, fit

_EPOCHS: Final = 2
_LEARNING_RATE: Final = 1e-4
_REPRESENTATIVE_FACES: Final = 512


def train_quantized(model: Any, recipe: Recipe, training: LabelledFaces, public: LabelledFaces, folder: Path) -> Any:
    """Quantization-aware training of a prepared float network for two epochs; it can be continued in ``folder``.

    The float network is the teacher, on the same views. Quantization ranges are learned from Training faces only.
    """
    short = _quantization_recipe(recipe)
    configure_keras(short)
    quantized = simulate_int8(model)
    teacher = make_bank(compile_logits(model), training, _EPOCHS, recipe.seed)
    fit(quantized, short, TrainingSet(training, teachers=Teachers.of_all((teacher,), training)), public, folder)
    return quantized


def simulate_int8(model: Any) -> Any:
    """A copy of a prepared float network in which int8 is simulated, as quantization-aware training needs it."""
    tools = tfmot.quantization.keras

    def annotate(layer: Any) -> Any:
        return tools.quantize_annotate_layer(layer, _SameRange()) if isinstance(layer, Enlarge) else layer

    annotated = tools.quantize_annotate_model(keras.models.clone_model(model, clone_function=annotate))
    apply = tf.autograph.experimental.do_not_convert(tools.quantize_apply)  # as in compile_logits
    with tools.quantize_scope({_SameRange.__name__: _SameRange}):
        return apply(annotated)


class _SameRange(tfmot.quantization.keras.QuantizeConfig):  # type: ignore[misc]  # it has no types
    """A layer without weights whose output has its input's range, so that nothing is to be simulated."""

    def get_weights_and_quantizers(self, _layer: Any) -> list[Any]:
        return []

    def get_activations_and_quantizers(self, _layer: Any) -> list[Any]:
        return []

    def set_quantize_weights(self, _layer: Any, _weights: Any) -> None:
        """There are none."""

    def set_quantize_activations(self, _layer: Any, _activations: Any) -> None:
        """There are none."""

    def get_output_quantizers(self, _layer: Any) -> list[Any]:
        return []

    def get_config(self) -> dict[str, Any]:
        return {}


def _quantization_recipe(recipe: Recipe) -> Recipe:
    return Recipe(
        f"{recipe.name} (quantization-aware)",
        model=recipe.model,
        epochs=_EPOCHS,
        learning_rate=_LEARNING_RATE,
        batch=recipe.batch,
        weight_decay=0.0,
        dropout=0.0,
        degradation=recipe.degradation,
        distillation=0.9,
        temperature=2.0,
        seed=recipe.seed,
    )


def convert(quantized: Any) -> bytes:
    """Convert a quantization-aware Keras model to an int8 TFLite file with int8 input and output, batch 1.

    Raises ConversionError when a tensor is float or a shape is dynamic.
    """
    return _converted(_converter(quantized))


def quantize_post_training(model: Any, training: LabelledFaces, *, edge_tpu: bool = True) -> bytes:
    """Quantize a float network without training, by the ranges of its activations for some Training faces.

    A black and a white picture are added to them, so that the input's scale is exactly 1/128. Without ``edge_tpu`` the
    file may have ops that the Edge TPU compiler cannot read. Raises what ``convert`` raises.
    """
    faces = training.pixels[:_REPRESENTATIVE_FACES]
    plain = np.stack([np.zeros_like(faces[0]), np.full_like(faces[0], 255)])

    def representative() -> Iterator[list[NDArray[np.float32]]]:
        for face in np.concatenate([plain, faces]):
            yield [normalize(face)[np.newaxis, :, :, np.newaxis]]

    converter = _converter(model)
    converter.representative_dataset = representative
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    return _converted(converter, edge_tpu=edge_tpu)


def _converter(model: Any) -> Any:
    """A converter of one traced function. ``from_keras_model`` saves the model first, which takes much longer."""
    face = tf.TensorSpec((1, INPUT_SIZE, INPUT_SIZE, 1), tf.float32, name="face")  # a dynamic batch would add ops
    inference = tf.function(lambda face: model(face, training=False), autograph=False).get_concrete_function(face)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([inference], model)
    converter.experimental_lower_to_saved_model = False
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    # The Edge TPU compiler takes dense layers with one scale only.
    converter._experimental_disable_per_channel_quantization_for_dense_layers = True
    return converter


def _converted(converter: Any, *, edge_tpu: bool = True) -> bytes:
    with native_messages_hidden():
        file = bytes(converter.convert())
    check_int8(file, edge_tpu=edge_tpu)
    return file


def check_int8(file: bytes, *, edge_tpu: bool = True) -> None:
    """Raise ConversionError for a float tensor or a dynamic shape.

    With ``edge_tpu`` also for an op that the Edge TPU compiler cannot read.
    """
    graph = read_graph(file, "the converted file")
    for tensor in graph.tensors:
        if tensor.dtype.startswith("FLOAT"):
            raise ConversionError(f"tensor {tensor.name} of the converted file is {tensor.dtype.lower()}")
        if tensor.dynamic:
            raise ConversionError(f"tensor {tensor.name} of the converted file has a dynamic shape")
    if not edge_tpu:
        return
    prediction = predict_mapping(graph)
    if prediction.refused:
        raise ConversionError(f"the Edge TPU compiler would refuse the converted file: {prediction.refused}")
    for op in prediction.ops:
        if op.status in {OpStatus.DTYPE, OpStatus.VERSION}:
            raise ConversionError(f"op {op.index}, {op.op}, of the converted file: {op.reason}")
