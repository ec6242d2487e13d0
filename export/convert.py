"""Quantization-aware training and conversion to an int8 TFLite file, gated so that no float op slips through.

Quantization-aware training follows Jacob et al. 2018 (arXiv 1712.05877) as tensorflow-model-optimization does it.
"""

import dataclasses
from pathlib import Path
from typing import Any, Final

import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras

from edge.classify import find_runtime
from edge.contract import INPUT_SIZE
from edge.errors import FerEdgeError
from edge.fer2013 import LabelledFaces
from export.edgetpu import predict
from export.flatbuffer import read_graph
from export.tpu_rules import Status
from train.batches import TrainingSet
from train.recipes import Recipe
from train.trainer import Epoch, fit, prepare

_EPOCHS: Final = 2
_LEARNING_RATE: Final = 1e-4


class ConversionError(FerEdgeError):
    """The network cannot be turned into an int8 file that keeps the contract."""

    exit_code = 11


def quantize_aware(
    model: Any, recipe: Recipe, training: LabelledFaces, public: LabelledFaces, folder: Path
) -> tuple[Any, Epoch]:
    """Train the quantized form of a trained float model for a short while; resumable in ``folder``.

    Returns it with the epoch it is from. Quantisation ranges are learned from Training faces alone.
    """
    prepare(recipe)
    quantized = tfmot.quantization.keras.quantize_model(model)
    short = dataclasses.replace(
        recipe,
        name=f"{recipe.name} (quantization-aware)",
        epochs=_EPOCHS,
        learning_rate=_LEARNING_RATE,
        mixup=0.0,
        votes=0.0,
    )
    return quantized, fit(quantized, short, TrainingSet(training), public, folder)


def convert(quantized: Any) -> bytes:
    """Convert a quantization-aware Keras model to an int8 TFLite file with int8 input and output, batch 1.

    Raises ConversionError when a tensor is float or a shape is dynamic.
    """
    fixed = keras.Input((INPUT_SIZE, INPUT_SIZE, 1), batch_size=1, name="face")  # else the batch becomes dynamic ops
    converter = tf.lite.TFLiteConverter.from_keras_model(keras.Model(fixed, quantized(fixed, training=False)))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    file = bytes(converter.convert())
    gate(file)
    return file


def gate(file: bytes) -> None:
    """Refuse a TFLite file with a float tensor, a dynamic shape, or an op that the Edge TPU compiler cannot read.

    Raises ConversionError naming the tensor or op.
    """
    interpreter = find_runtime()[0](model_content=file)
    for tensor in interpreter.get_tensor_details():
        if np.issubdtype(tensor["dtype"], np.floating):
            raise ConversionError(f"tensor {tensor['name']} of the converted file is {np.dtype(tensor['dtype']).name}")
        if any(size < 0 for size in tensor["shape_signature"]):
            raise ConversionError(f"tensor {tensor['name']} of the converted file has a dynamic shape")
    prediction = predict(read_graph(file, "the converted file"))
    if prediction.refused:
        raise ConversionError(f"the Edge TPU compiler would refuse the converted file: {prediction.refused}")
    for op in prediction.ops:
        if op.status in {Status.DTYPE, Status.VERSION}:
            raise ConversionError(f"op {op.index}, {op.op}, of the converted file: {op.reason}")
