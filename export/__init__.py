"""From a training run to a deployable bundle: quantization-aware training, int8 conversion, card, golden outputs."""

import train  # noqa: F401  it chooses the Keras that can be quantized, which must happen before TensorFlow is imported
