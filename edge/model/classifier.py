"""The expression of a face: one inference of the bundle's int8 network, on the CPU or an accelerator."""

import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge.errors import BundleError, RuntimeMissingError
from edge.model.bundle import Bundle, Quantization
from edge.model.preprocessing import INPUT_SIZE, LABELS, dequantize, encode, expression, softmax
from edge.records import Expression, Gray, Logits


class Network:
    """An int8 network in the TFLite runtime that is installed. Not for use from several threads at once.

    ``entry`` and ``leaving`` are the quantization that the file states for its input and output. ``delegates`` are of
    :func:`open_delegate`. Raises BundleError when ``file`` is no network of one face to seven logits,
    RuntimeMissingError when no TFLite runtime is installed.
    """

    def __init__(self, file: bytes, name: object, threads: int = 1, delegates: Sequence[object] = ()) -> None:
        interpreter_class, self.runtime = find_runtime()
        try:
            self._interpreter = interpreter_class(
                model_content=file, num_threads=threads, experimental_delegates=list(delegates)
            )
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise BundleError(f"{name}: {self.runtime} cannot run its network: {error}") from error
        [entry] = self._interpreter.get_input_details()
        [leaving] = self._interpreter.get_output_details()
        self._input, self._output = entry["index"], leaving["index"]
        self.entry = _quantization(name, "input", entry, (1, INPUT_SIZE, INPUT_SIZE, 1))
        self.leaving = _quantization(name, "output", leaving, (1, len(LABELS)))

    def logits(self, face: Gray) -> NDArray[np.int8]:
        """Quantized logits of a cropped face: ``(48, 48)`` uint8 to ``(7,)`` int8.

        Raises RuntimeError or ValueError when a delegate's device fails; the CPU does not.
        """
        self._interpreter.set_tensor(self._input, encode(face, self.entry.scale, self.entry.zero_point))
        self._interpreter.invoke()
        return np.asarray(self._interpreter.get_tensor(self._output)[0], np.int8)


class Accelerator(Protocol):
    """What computes the network beside the CPU, as long as it can (edge.model.edgetpu)."""

    @property
    def working(self) -> bool:
        """Whether it computes now."""

    @property
    def degraded(self) -> str | None:
        """Why it does not although it should; None when all is as it should be."""

    def tend(self) -> None:
        """Look after it between frames; quick."""

    def settle(self) -> None:
        """Wait until it is clear whether it works."""

    def logits(self, face: Gray) -> NDArray[np.int8] | None:
        """As :meth:`Network.logits`; None when the CPU must compute this face. Never raises."""


class Classifier:
    """Says what faces show, by the network of one bundle. Holds its interpreter for the life of the process.

    The CPU's interpreter is always ready, and computes what the ``accelerator`` does not. Raises BundleError when the
    network's tensors are not what the card states, and as Network does.
    """

    def __init__(self, bundle: Bundle, threads: int = 1, accelerator: Accelerator | None = None) -> None:
        self.card = bundle.card
        self._network = Network(bundle.model, bundle.folder, threads)
        self._accelerator = accelerator
        self.runtime = self._network.runtime
        self.threads = threads
        expect_quantization(bundle, self._network)

    @property
    def accelerator(self) -> str:
        """What computes now: ``edgetpu``, ``cpu``, or ``cpu (degraded)`` in the place of an accelerator."""
        if self._accelerator and self._accelerator.working:
            return "edgetpu"
        return "cpu (degraded)" if self.degraded else "cpu"

    @property
    def degraded(self) -> str | None:
        """Why an accelerator does not compute although it should, as a sentence."""
        return self._accelerator.degraded if self._accelerator else None

    def tend(self) -> None:
        """Look after the accelerator. To be called between frames; returns at once."""
        if self._accelerator:
            self._accelerator.tend()

    def settle(self) -> None:
        """Wait until it is clear whether the accelerator works, so that all faces are computed in one place."""
        if self._accelerator:
            self._accelerator.settle()

    def logits(self, face: Gray) -> NDArray[np.int8]:
        """Quantized logits of a cropped face: ``(48, 48)`` uint8 to ``(7,)`` int8."""
        found = self._accelerator.logits(face) if self._accelerator else None
        return self._network.logits(face) if found is None else found

    def read(self, face: Gray) -> Logits:
        """Calibrated logits of a cropped face, ``(48, 48)`` uint8."""
        quantization = self.card.output
        logits = dequantize(self.logits(face), quantization.scale, quantization.zero_point)
        return tuple(self.card.temperature.calibrated(logits).tolist())

    def classify(self, face: Gray) -> Expression:
        """Expression of a cropped face, ``(48, 48)`` uint8."""
        return expression(softmax(self.read(face)))


def _quantization(name: object, which: str, tensor: dict[str, Any], shape: tuple[int, ...]) -> Quantization:
    found = (tuple(int(size) for size in tensor["shape"]), np.dtype(tensor["dtype"]).name)
    if found != (shape, "int8"):
        raise BundleError(f"{name}: the network's {which} is {found[1]} {found[0]}, expected int8 {shape}")
    scale, zero_point = tensor["quantization"]
    return Quantization(float(scale), int(zero_point))


def expect_quantization(bundle: Bundle, network: Network) -> None:
    """Raise BundleError when a network's input or output is not quantized as the card states."""
    _expect(bundle, "input", network.entry, bundle.card.input)
    _expect(bundle, "output", network.leaving, bundle.card.output)


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


def open_delegate(library: str) -> object:
    """The delegate of a shared library, in the runtime that is installed.

    Raises what the runtime raises: OSError when there is no such library, AttributeError when it is none of a delegate,
    ValueError when it finds no device. A library that does not fit the runtime may crash the process, now or later.
    """
    interpreter_class, _ = find_runtime()
    return sys.modules[interpreter_class.__module__].load_delegate(library)
