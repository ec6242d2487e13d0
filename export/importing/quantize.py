"""Quantize a float32 ``.tflite`` file to int8 after training, by the ranges of its activations for some faces.

These are the steps that TensorFlow's converter takes itself after it has made the float file. Taking them here makes
every kind of source the same, and a float32 ``.tflite`` one of them.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.lite.python.convert import mlir_quantize
from tensorflow.lite.python.optimize.calibrator import Calibrator

from edge.model.bundle import MAX_BYTES, MODEL_FILE
from export.edgetpu.rules import ADVICE
from export.importing.native import native_messages_hidden
from export.quantization.convert import ConversionError
from export.tflite_graph import Graph, read_graph

_LIMIT = MAX_BYTES[MODEL_FILE]
_BETWEEN = {"QUANTIZE", "DEQUANTIZE"}


def quantize(file: bytes, inputs: Iterable[NDArray[np.float32]], name: object) -> bytes:
    """The int8 form of a float32 file; ``inputs`` are what it gets for typical faces, with a batch of 1.

    Raises ConversionError, with ``name``, when TensorFlow cannot run or quantize it.
    """

    def representative() -> Iterator[list[NDArray[np.float32]]]:
        yield from ([values] for values in inputs)

    try:
        with native_messages_hidden():
            calibrated = Calibrator(file).calibrate(representative)
            return bytes(
                mlir_quantize(
                    calibrated,
                    fully_quantize=True,
                    input_data_type=tf.int8,
                    output_data_type=tf.int8,
                    disable_per_channel_for_dense_layers=True,  # the Edge TPU compiler takes one scale
                )
            )
    except (ValueError, RuntimeError) as error:
        raise ConversionError(f"{name}: TensorFlow cannot quantize this network: {error}") from error


def check_size(file: bytes, bytes_of_weight: int, name: object) -> None:
    """Raise ConversionError when a network with weights of so many bytes has no room on a device as int8."""
    size = len(file) // bytes_of_weight
    if size > _LIMIT:
        raise ConversionError(
            f"{name}: as int8 it has about {size / 2**20:.0f} MiB; a device takes up to {_LIMIT // 2**20}. Train a "
            "network with fewer parameters: large dense layers behind Flatten are the usual reason."
        )


def check_integer(file: bytes, name: object) -> None:
    """Raise ConversionError, which lists every op that stayed in float, unless the whole file computes in integers."""
    if floats := list(_float_ops(read_graph(file, name))):
        listed = "".join(f"\n  {line}" for line in floats)
        count = "one op stays" if len(floats) == 1 else f"{len(floats)} ops stay"
        raise ConversionError(
            f"{name}: cannot become int8: {count} in float:{listed}\nReplace them, and train it again: a device runs "
            "int8 only."
        )


def _float_ops(graph: Graph) -> Iterator[str]:
    for op in graph.ops:
        tensors = [tensor for tensor in (*op.inputs, *op.outputs) if tensor]
        if op.name not in _BETWEEN and any(tensor.dtype.startswith("FLOAT") for tensor in tensors):
            advice = f": {ADVICE[op.name]}" if op.name in ADVICE else ""
            yield f"op {op.index}, {op.name} ({op.outputs[0].name.rpartition(';')[2]}){advice}"
