"""Initialize a student from the int8 file of its bundle, so that it can be trained further without its run.

The weights are rounded to int8 at first. After four epochs ``student`` was more accurate than the run that its bundle
was made of.
"""

from typing import Any, Final

import numpy as np
from tf_keras.layers import Conv2D, Dense, DepthwiseConv2D

from edge.errors import UsageError
from edge.model.bundle import Bundle, Card
from edge.model.classifier import find_runtime
from edge.model.origin import Source
from train.init.batch_norm import Values, restore_batch_norms
from train.sources import OUR_LICENCE, distinct, sources_of_earlier_card

_RESULT_MARKS: Final = ("Relu6", "BiasAdd")  # parts of the names of a layer's results; its kernel has neither
_LAYERS_WITH_KERNEL: Final = (Conv2D, DepthwiseConv2D, Dense)


def bundle_sources(card: Card) -> tuple[Source, ...]:
    """A bundle's network as what another is made of, and what it was made of itself."""
    figures = card.figures
    made = f"{card.origin.train_command} ({figures.split} {figures.accuracy:.2%})"
    network = Source("start", f"int8 bundle {card.name}", made, OUR_LICENCE, card.sha256)
    return distinct((network, *(card.origin.sources or sources_of_earlier_card(card.origin))))


def load_bundle_weights(model: Any, bundle: Bundle, faces: Values) -> None:
    """Load the weights of a bundle of the same network into ``model``.

    ``faces`` are those of train.init.batch_norm.restore_batch_norms. Raises UsageError when the bundle is of another
    network, or when its file lacks the layer names of this one.
    """
    layers = {layer.name for layer in model.layers if isinstance(layer, _LAYERS_WITH_KERNEL)}
    kernels, biases = _constants(bundle, layers)
    if set(kernels) != layers or set(biases) != layers:
        raise UsageError(
            f"--weights {bundle.folder}: its file does not have the layer names of {model.name}. Only bundles of "
            "students that this version exported can be trained further."
        )
    try:
        restore_batch_norms(model, lambda name: _as_keras(kernels[name]), lambda name: (1.0, biases[name]), faces)
        model.get_layer("logits").set_weights([kernels["logits"].T, biases["logits"]])
    except ValueError as error:
        raise UsageError(f"--weights {bundle.folder}: not the weights of {model.name}: {error}") from error


def _constants(bundle: Bundle, layers: set[str]) -> tuple[dict[str, Values], dict[str, Values]]:
    """Kernels and biases by the name of their layer, in real units, shaped as TFLite has them."""
    interpreter_class, _ = find_runtime()
    interpreter = interpreter_class(model_content=bundle.model)
    interpreter.allocate_tensors()
    kernels: dict[str, Values] = {}
    biases: dict[str, Values] = {}
    for tensor in interpreter.get_tensor_details():
        name, parameters = tensor["name"], tensor["quantization_parameters"]
        named = [part for part in _layers_in(name) if part in layers]
        bias = tensor["dtype"] == np.int32 and len(parameters["scales"]) > 0
        if named and (bias or not any(result in name for result in _RESULT_MARKS)):
            axes = np.ones(len(tensor["shape"]), int)
            axes[parameters["quantized_dimension"]] = -1
            real = interpreter.get_tensor(tensor["index"]) * parameters["scales"].reshape(axes)
            (biases if bias else kernels)[named[-1]] = real.astype(np.float32)
    return kernels, biases


def _layers_in(name: str) -> list[str]:
    """The parts of a tensor's name, which are layers and operations, without what quantization-aware training adds."""
    return [part.removeprefix("quant_") for part in name.replace(";", "/").split("/")]


def _as_keras(kernel: Values) -> Values:
    """From ``(out, h, w, in)``, or ``(1, h, w, channels)`` of a depthwise convolution, to Keras's order of axes."""
    return kernel.transpose((1, 2, 3, 0))
