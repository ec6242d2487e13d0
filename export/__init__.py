"""From a training run to a deployable bundle: quantization-aware training, int8 conversion, card, golden outputs."""
