"""Classify the expression of a face: one inference of the bundle's int8 network, on the CPU or an accelerator."""

import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from edge.errors import BundleError, RuntimeMissingError
from edge.labels import FEWEST, MOST, Labels
from edge.model.bundle import Bundle, Quantization
from edge.model.preprocessing import INPUT_SIZE, dequantize, encode, expression, softmax
from edge.records import EventTuning, Expression, Gray, Logits

EDGE_TPU: Final = "an Edge TPU"
"""What computes on an Edge TPU, where a card's tolerances name runtimes."""


class Network:
    """An int8 network in the installed TFLite runtime. Not thread-safe.

    ``file`` is the content of a .tflite file, and ``name`` what errors call it. ``delegates`` come from
    :func:`open_delegate`. ``input_quantization`` and ``output_quantization`` are those that the file states, and
    ``classes`` is how many logits it gives.

    Raises BundleError when the network does not map one face to 2 to 16 logits, and RuntimeMissingError when no TFLite
    runtime is installed.
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
        input_tensor = _only_tensor(name, "input", self._interpreter.get_input_details())
        output_tensor = _only_tensor(name, "output", self._interpreter.get_output_details())
        self._input_index, self._output_index = input_tensor["index"], output_tensor["index"]
        self.classes = int(output_tensor["shape"][-1]) if len(output_tensor["shape"]) else 0
        one_face = (1, INPUT_SIZE, INPUT_SIZE, 1)
        self.input_quantization = _quantization(name, "input", input_tensor, one_face, str(one_face))
        possible = (1, min(max(self.classes, FEWEST), MOST))
        self.output_quantization = _quantization(name, "output", output_tensor, possible, f"(1, {FEWEST} to {MOST})")

    def logits(self, face: Gray) -> NDArray[np.int8]:
        """Quantized logits of a cropped face: ``(48, 48)`` uint8 to ``(classes,)`` int8.

        Raises RuntimeError or ValueError when a delegate's device fails; the CPU does not.
        """
        quantization = self.input_quantization
        self._interpreter.set_tensor(self._input_index, encode(face, quantization.scale, quantization.zero_point))
        self._interpreter.invoke()
        return np.asarray(self._interpreter.get_tensor(self._output_index)[0], np.int8)


class Accelerator(Protocol):
    """A device that runs the network in place of the CPU while it works (edge.model.edgetpu)."""

    @property
    def working(self) -> bool:
        """Whether it is used now."""

    @property
    def degraded(self) -> str | None:
        """Why it is not used although it should be, as a sentence; None when nothing is wrong."""

    def poll(self) -> None:
        """Start a trial that is due, or take the result of one. To be called between frames; returns at once."""

    def wait(self) -> None:
        """Wait for the result of a trial that is due or running."""

    def logits(self, face: Gray) -> NDArray[np.int8] | None:
        """Like :meth:`Network.logits`; None when the CPU must compute this face. Never raises."""


class CardTerms(Protocol):
    """What the frame loop takes from a model's card (edge.model.bundle.Card)."""

    @property
    def name(self) -> str:
        """The model's name."""

    @property
    def sha256(self) -> str:
        """The hash of its file."""

    @property
    def labels(self) -> Labels:
        """The names of the network's outputs, in their order."""

    @property
    def crop_margin(self) -> float:
        """The margin of edge.model.preprocessing.crop."""

    @property
    def events(self) -> EventTuning:
        """The thresholds of edge.events.episodes."""

    @property
    def threshold(self) -> float:
        """The probability below which the expression is uncertain."""


class FaceClassifier(Protocol):
    """What classifies faces, in the frame loop and in pictures: on a device a :class:`Classifier`."""

    @property
    def card(self) -> CardTerms:
        """What the model's card states."""

    @property
    def runtime(self) -> str:
        """What runs the network, with its version."""

    @property
    def accelerator(self) -> str:
        """As :attr:`Classifier.accelerator`."""

    @property
    def degraded(self) -> str | None:
        """As :attr:`Classifier.degraded`."""

    def poll_accelerator(self) -> None:
        """As :meth:`Classifier.poll_accelerator`."""

    def wait_for_accelerator(self) -> None:
        """As :meth:`Classifier.wait_for_accelerator`."""

    def read(self, face: Gray) -> Logits:
        """As :meth:`Classifier.read`."""

    def classify(self, face: Gray) -> Expression:
        """As :meth:`Classifier.classify`."""


class Classifier:
    """Classifies faces with the network of one bundle; its interpreter lives as long as it does.

    The CPU's interpreter is always ready, and computes the faces that the ``accelerator`` does not. Raises BundleError
    when the network's tensors are not what the card states, and what Network raises.
    """

    def __init__(self, bundle: Bundle, threads: int = 1, accelerator: Accelerator | None = None) -> None:
        self.card = bundle.card
        self._network = Network(bundle.model, bundle.folder, threads)
        self._accelerator = accelerator
        self.runtime = self._network.runtime
        self.threads = threads
        check_tensors(bundle, self._network)

    @property
    def accelerator(self) -> str:
        """What classifies now: ``edgetpu``, ``cpu``, or ``cpu (degraded)`` in place of an accelerator."""
        if self._accelerator and self._accelerator.working:
            return "edgetpu"
        return "cpu (degraded)" if self.degraded else "cpu"

    @property
    def degraded(self) -> str | None:
        """Why an accelerator is not used although it should be, as a sentence; None when nothing is wrong."""
        return self._accelerator.degraded if self._accelerator else None

    @property
    def computed_by(self) -> str:
        """What rounds the logits now, for a card's tolerances: EDGE_TPU, or the runtime on the CPU."""
        return EDGE_TPU if self.accelerator == "edgetpu" else self.runtime

    def poll_accelerator(self) -> None:
        """Start or end a trial of the accelerator. To be called between frames; returns at once."""
        if self._accelerator:
            self._accelerator.poll()

    def wait_for_accelerator(self) -> None:
        """Wait until it is known whether the accelerator works, so that one device classifies all faces."""
        if self._accelerator:
            self._accelerator.wait()

    def logits(self, face: Gray) -> NDArray[np.int8]:
        """Quantized logits of a cropped face: ``(48, 48)`` uint8 to ``(n,)`` int8 in the order of the card's labels."""
        accelerated = self._accelerator.logits(face) if self._accelerator else None
        return self._network.logits(face) if accelerated is None else accelerated

    def read(self, face: Gray) -> Logits:
        """Calibrated logits of a cropped face: ``(48, 48)`` uint8 to floats in the order of the card's labels."""
        quantization = self.card.output
        logits = dequantize(self.logits(face), quantization.scale, quantization.zero_point)
        return tuple(self.card.temperature.calibrated(logits).tolist())

    def classify(self, face: Gray) -> Expression:
        """The expression of a cropped face, ``(48, 48)`` uint8, with the probability of every label."""
        return expression(softmax(self.read(face)), self.card.labels)


def _only_tensor(name: object, which: str, tensors: Sequence[dict[str, Any]]) -> dict[str, Any]:
    if len(tensors) != 1:
        raise BundleError(f"{name}: the network has {len(tensors)} {which}s, expected 1")
    return tensors[0]


def _quantization(
    name: object, which: str, tensor: dict[str, Any], shape: tuple[int, ...], expected: str
) -> Quantization:
    found = (tuple(int(size) for size in tensor["shape"]), np.dtype(tensor["dtype"]).name)
    if found != (shape, "int8"):
        raise BundleError(f"{name}: the network's {which} is {found[1]} {found[0]}, expected int8 {expected}")
    scale, zero_point = tensor["quantization"]
    return Quantization(float(scale), int(zero_point))


def check_tensors(bundle: Bundle, network: Network) -> None:
    """Raise BundleError when a network has not a logit for each label, or is not quantized as the card states."""
    if network.classes != len(bundle.card.labels):
        raise BundleError(
            f"{bundle.folder}: the network gives {network.classes} logits, and the card has {len(bundle.card.labels)} "
            "labels"
        )
    _check_tensor(bundle, "input", network.input_quantization, bundle.card.input)
    _check_tensor(bundle, "output", network.output_quantization, bundle.card.output)


def _check_tensor(bundle: Bundle, which: str, found: Quantization, stated: Quantization) -> None:
    if not np.isclose(found.scale, stated.scale) or found.zero_point != stated.zero_point:
        raise BundleError(
            f"{bundle.folder}: the network's {which} has scale {found.scale} and zero point {found.zero_point}, "
            f"the card says {stated.scale} and {stated.zero_point}"
        )


def find_runtime() -> tuple[Any, str]:
    """The interpreter class of the installed TFLite runtime, and its name with version.

    Raises RuntimeMissingError, which says what to install.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415  an optional dependency

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
    """Load the delegate of a shared library into the installed runtime.

    Raises what the runtime raises: OSError when the library cannot be loaded, AttributeError when it is no delegate,
    ValueError when it finds no device. A library that does not fit the runtime may crash the process, now or later.
    """
    interpreter_class, _ = find_runtime()
    return sys.modules[interpreter_class.__module__].load_delegate(library)
