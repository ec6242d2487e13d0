"""What a device sets limits to: the size of a network's file, and the numbers it computes with."""

from collections.abc import Iterator
from typing import Final

from edge.model.bundle import MAX_BYTES, MODEL_FILE
from export.edgetpu.rules import ADVICE
from export.quantization.errors import ConversionError
from export.tflite_graph import Graph, read_graph

_LIMIT: Final = MAX_BYTES[MODEL_FILE]
_BETWEEN: Final = {"QUANTIZE", "DEQUANTIZE"}


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
