"""The expression of a face: one inference of the bundle's int8 network on the CPU."""

from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.bundle import Bundle, Quantization
from edge.contract import INPUT_SIZE, LABELS, dequantize, encode, expression, softmax
from edge.errors import BundleError, RuntimeMissingError
from edge.records import Expression, Gray, Logits


class Network:
    """An int8 network in the TFLite runtime that is installed. Not for use from several threads at once.

    ``entry`` and ``leaving`` are the quantization that the file states for its input and output. Raises BundleError
    when ``file`` is no network of one face to seven logits, RuntimeMissingError when no TFLite runtime is installed.
    """

    def __init__(self, file: bytes, name: object, threads: int = 1) -> None:
        interpreter_class, self.runtime = find_runtime()
        try:
            self._interpreter = interpreter_class(model_content=file, num_threads=threads)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise BundleError(f"{name}: {self.runtime} cannot run its network: {error}") from error
        [entry] = self._interpreter.get_input_details()
        [leaving] = self._interpreter.get_output_details()
        self._input, self._output = entry["index"], leaving["index"]
        self.entry = _quantization(name, "input", entry, (1, INPUT_SIZE, INPUT_SIZE, 1))
        self.leaving = _quantization(name, "output", leaving, (1, len(LABELS)))

    def logits(self, face: Gray) -> NDArray[np.int8]:
        """Quantized logits of a cropped face: ``(48, 48)`` uint8 to ``(7,)`` int8."""
        self._interpreter.set_tensor(self._input, encode(face, self.entry.scale, self.entry.zero_point))
        self._interpreter.invoke()
        return np.asarray(self._interpreter.get_tensor(self._output)[0], np.int8)


class Classifier:
    """Says what faces show, by the network of one bundle. Holds one interpreter for the life of the process.

    Raises BundleError when the network's tensors are not what the card states, and as Network does.
    """

    accelerator = "cpu"

    def __init__(self, bundle: Bundle, threads: int = 1) -> None:
        self.card = bundle.card
        self._network = Network(bundle.model, bundle.folder, threads)
        self.runtime = self._network.runtime
        _expect(bundle, "input", self._network.entry, self.card.input)
        _expect(bundle, "output", self._network.leaving, self.card.output)

    def logits(self, face: Gray) -> NDArray[np.int8]:
        """Quantized logits of a cropped face: ``(48, 48)`` uint8 to ``(7,)`` int8."""
        return self._network.logits(face)

    def read(self, face: Gray) -> Logits:
        """Calibrated logits of a cropped face, ``(48, 48)`` uint8."""
        quantization = self.card.output
        logits = dequantize(self.logits(face), quantization.scale, quantization.zero_point, self.card.temperature)
        return tuple(logits.tolist())

    def classify(self, face: Gray) -> Expression:
        """Expression of a cropped face, ``(48, 48)`` uint8."""
        return expression(softmax(self.read(face)))


def _quantization(name: object, which: str, tensor: dict[str, Any], shape: tuple[int, ...]) -> Quantization:
    found = (tuple(int(size) for size in tensor["shape"]), np.dtype(tensor["dtype"]).name)
    if found != (shape, "int8"):
        raise BundleError(f"{name}: the network's {which} is {found[1]} {found[0]}, expected int8 {shape}")
    scale, zero_point = tensor["quantization"]
    return Quantization(float(scale), int(zero_point))


def _expect(bundle: Bundle, which: str, found: Quantization, stated: Quantization) -> None:
    if not np.isclose(found.scale, stated.scale) or found.zero_point != stated.zero_point:
        raise BundleError(
            f"{bundle.folder}: the network's {which} has scale {found.scale} and zero point {found.zero_point}, "
            f"the card says {stated.scale} and {stated.zero_point}"
        )


def find_runtime() -> tuple[Any, str]:
    """The interpreter class of the runtime that is installed, and its name with version.

    Raises RuntimeMissingError saying what to install.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415  a choice of extras

        return Interpreter, f"ai-edge-litert {metadata.version('ai-edge-litert')}"
    except ImportError:
        pass
    try:
        version = metadata.version("tflite-runtime")
    except metadata.PackageNotFoundError:
        raise RuntimeMissingError(
            "no TFLite runtime is installed: pip install 'fer-edge[litert]' (or 'fer-edge[tflite-runtime]')"
        ) from None
    if int(np.__version__.split(".")[0]) >= 2:
        raise RuntimeMissingError(
            f"tflite-runtime {version} cannot work with numpy {np.__version__}: pip install 'fer-edge[tflite-runtime]'"
        )
    from tflite_runtime.interpreter import Interpreter  # noqa: PLC0415

    return Interpreter, f"tflite-runtime {version}"
