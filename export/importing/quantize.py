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

from export.quantization.errors import ConversionError
from export.quantization.native import native_messages_hidden


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
