"""From a training run to a bundle for devices: quantization, int8 conversion, card, golden outputs, Edge TPU."""

import train  # noqa: F401  it selects the Keras that can be quantized, before TensorFlow is imported
