"""Read a ``.tflite`` file into frozen values: the graph, its tensors, its ops and their versions.

The schema of ``ai-edge-litert`` needs no TensorFlow, so reading takes well under a second.
"""

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge.errors import BundleError, RuntimeMissingError, UsageError
from edge.untrusted_file import open_regular

EDGE_TPU_OP: Final = "edgetpu-custom-op"
"""Name of the op that holds everything the Edge TPU compiler mapped."""

IDENTIFIER: Final = b"TFL3"
"""Bytes 4 to 8 of every file of schema version 3."""

_WITH_WEIGHTS: Final = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}
# Exceptions of the schema's reader for damaged offsets; it has no verifier.
_DAMAGE: Final = (struct.error, ValueError, TypeError, LookupError, AttributeError, OverflowError, MemoryError)


@dataclass(frozen=True)
class Tensor:
    """One tensor. ``dtype`` is the schema's name, such as ``INT8``; ``scales`` has one entry per quantized channel.

    ``data`` has the bytes of a constant; None for a tensor that is computed at run time.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    dynamic: bool
    data: bytes | None

    @property
    def constant(self) -> bool:
        """Whether its content is in the file."""
        return self.data is not None

    @property
    def elements(self) -> int:
        """Number of elements; 1 for a scalar."""
        return math.prod(self.shape)

    def integers(self) -> NDArray[np.int64]:
        """Content of an INT32 or INT64 constant, flat: axes, paddings, shapes, strides."""
        return np.frombuffer(self.data or b"", "<i8" if self.dtype == "INT64" else "<i4").astype(np.int64)


@dataclass(frozen=True)
class Op:
    """One op in the order of execution. ``name`` is the schema's (``CONV_2D``), or a custom op's own.

    ``inputs`` has None for an absent optional input; ``custom`` has the options of a custom op as bytes.
    """

    index: int
    name: str
    version: int
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    options: Any
    custom: bytes

    def option(self, name: str) -> Any:
        """An option by the schema's name; 0, the schema's default, if it is missing."""
        return getattr(self.options, name, 0)


@dataclass(frozen=True)
class Graph:
    """The main subgraph of a file: ``inputs`` and ``outputs`` in their order, ``ops`` in the order of execution."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    tensors: tuple[Tensor, ...]
    ops: tuple[Op, ...]


def read_file(path: Path) -> bytes:
    """The bytes of a file that is named on the command line. Raises UsageError, also for a pipe: it may never end."""
    try:
        with open_regular(path) as opened:
            return opened.read()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error


def read_graph(file: bytes, name: object) -> Graph:
    """Read the bytes of a ``.tflite`` file; ``name`` is for messages.

    Raises BundleError when it is not a TFLite file or damaged, RuntimeMissingError when the schema is not installed.
    """
    try:
        from ai_edge_litert import schema_py_generated as schema  # noqa: PLC0415  an extra, and not cheap to load
    except ImportError as error:
        raise RuntimeMissingError(
            f"reading a .tflite file needs ai-edge-litert: pip install 'fer-edge[export]' ({error})"
        ) from error
    if file[4:8] != IDENTIFIER:
        raise BundleError(f"{name}: not a TFLite file: its identifier is missing")
    try:
        model = schema.ModelT.InitFromPackedBuf(file, 0)
        return _graph(model, _names(schema.TensorType), _names(schema.BuiltinOperator))
    except _DAMAGE as error:
        raise BundleError(f"{name}: a damaged TFLite file: {error}. Copy or convert it again.") from error


def count_macs(graph: Graph) -> int:
    """Multiply-accumulates of one pass: convolutions, depthwise convolutions and dense layers."""
    total = 0
    for op in graph.ops:
        weights = op.inputs[1] if len(op.inputs) > 1 else None
        if weights is None or op.name not in _WITH_WEIGHTS:
            continue
        outputs = op.outputs[0].elements
        # Weights are (filters, height, width, channels), of a depthwise convolution (1, height, width, channels).
        total += outputs * math.prod(weights.shape[1:-1] if op.name == "DEPTHWISE_CONV_2D" else weights.shape[1:])
    return total


def count_parameters(graph: Graph) -> int:
    """Numbers in a network's constants; shapes and axes do not count."""
    constants = {id(tensor): tensor for op in graph.ops for tensor in op.inputs if tensor and tensor.constant}
    return sum(t.elements for t in constants.values() if t.scales or t.dtype.startswith("FLOAT"))


def _names(enumeration: type) -> dict[int, str]:
    return {number: name for name, number in vars(enumeration).items() if isinstance(number, int)}


def _graph(model: Any, dtypes: dict[int, str], builtins: dict[int, str]) -> Graph:
    main = model.subgraphs[0]
    tensors = tuple(_tensor(tensor, model.buffers[tensor.buffer], dtypes) for tensor in main.tensors)
    ops = []
    for index, op in enumerate(main.operators):
        code = model.operatorCodes[op.opcodeIndex]
        # Files from before 2020 have the number in an older, narrower field; the larger of both is the op.
        builtin = builtins[max(code.builtinCode, code.deprecatedBuiltinCode)]
        ops.append(
            Op(
                index=index,
                name=_text(code.customCode) if builtin == "CUSTOM" else builtin,
                version=code.version,
                inputs=tuple(tensors[number] if number >= 0 else None for number in _list(op.inputs)),
                outputs=tuple(tensors[number] for number in _list(op.outputs)),
                options=op.builtinOptions,
                custom=_bytes(op.customOptions),
            )
        )
    return Graph(
        inputs=tuple(tensors[number] for number in _list(main.inputs)),
        outputs=tuple(tensors[number] for number in _list(main.outputs)),
        tensors=tensors,
        ops=tuple(ops),
    )


def _tensor(tensor: Any, buffer: Any, dtypes: dict[int, str]) -> Tensor:
    quantization = tensor.quantization
    content = _bytes(buffer.data)
    return Tensor(
        name=_text(tensor.name),
        shape=tuple(int(size) for size in _list(tensor.shape)),
        dtype=dtypes[tensor.type],
        scales=tuple(float(scale) for scale in _list(quantization.scale)) if quantization else (),
        zero_points=tuple(int(point) for point in _list(quantization.zeroPoint)) if quantization else (),
        dynamic=any(size < 0 for size in _list(tensor.shapeSignature)),
        data=content or None,
    )


def _list(vector: Any) -> Any:
    """A vector of the file; empty where the schema gives None."""
    return () if vector is None else vector


def _bytes(vector: Any) -> bytes:
    return np.asarray(_list(vector), np.uint8).tobytes()


def _text(name: Any) -> str:
    return (name or b"").decode(errors="replace") if not isinstance(name, str) else name
