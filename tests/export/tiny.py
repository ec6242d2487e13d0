"""A network of four ops, small enough to write by hand in the schema's own terms; a test can break one rule of it.

8x8 picture -> CONV_2D -> MAX_POOL_2D -> MEAN -> FULLY_CONNECTED -> seven logits, int8 throughout, as TensorFlow's
converter writes them. ``as_compiled`` gives what the Edge TPU compiler would make of a file: **a stand-in**, with the
plain file's inputs and outputs around one custom op whose content is no program.
"""

from collections.abc import Callable, Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

CONV, POOL, MEAN, DENSE = range(4)


class Net:
    """A TFLite model that grows op by op."""

    def __init__(self) -> None:
        self.model = schema.ModelT()
        self.model.version = 3
        empty = schema.BufferT()
        self.model.buffers = [empty]
        self.model.operatorCodes = []
        self.main = schema.SubGraphT()
        self.main.tensors, self.main.operators = [], []
        self.main.inputs, self.main.outputs = [], []
        self.model.subgraphs = [self.main]

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: str = "INT8",
        scales: Sequence[float] = (0.5,),
        data: Any = None,
    ) -> int:
        """Add a tensor; ``data`` makes it a constant. Returns its number."""
        made = schema.TensorT()
        made.name, made.shape, made.type = name, list(shape), getattr(schema.TensorType, dtype)
        if scales:
            made.quantization = schema.QuantizationParametersT()
            made.quantization.scale = list(scales)
            made.quantization.zeroPoint = [0] * len(scales)
        made.buffer = 0
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            self.model.buffers.append(buffer)
            made.buffer = len(self.model.buffers) - 1
        self.main.tensors.append(made)
        return len(self.main.tensors) - 1

    def op(self, kind: str, version: int, inputs: Sequence[int], outputs: Sequence[int], **options: Any) -> Any:
        """Add an op. Options are the schema's; ``table`` names their table where it is not the op's own."""
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, kind)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.version = version
        self.model.operatorCodes.append(code)
        made = schema.OperatorT()
        made.opcodeIndex = len(self.model.operatorCodes) - 1
        made.inputs, made.outputs = list(inputs), list(outputs)
        table = options.pop("table", None)
        if table:
            made.builtinOptionsType = getattr(schema.BuiltinOptions, table)
            made.builtinOptions = getattr(schema, f"{table}T")()
            for name, value in options.items():
                setattr(made.builtinOptions, name, value)
        self.main.operators.append(made)
        return made

    def pack(self) -> bytes:
        """The bytes of the file."""
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())


def indices(*values: int) -> Any:
    """Content of an INT32 constant: axes, shapes, paddings."""
    return np.array(values, "<i4")


def tiny(edit: Callable[[Net], object] = lambda _net: None, seed: int = 0) -> bytes:
    """The network with one thing changed by ``edit``, which may use the numbers CONV to DENSE of its ops."""
    rng = np.random.default_rng(seed)
    net = Net()
    picture = net.tensor("face", (1, 8, 8, 1))
    kernel = net.tensor("kernel", (4, 3, 3, 1), scales=[0.01] * 4, data=rng.integers(-99, 99, 36, np.int8))
    bias = net.tensor("bias", (4,), "INT32", [0.005] * 4, np.zeros(4, "<i4"))
    features = net.tensor("features", (1, 8, 8, 4))
    pooled = net.tensor("pooled", (1, 4, 4, 4))
    axes = net.tensor("axes", (2,), "INT32", (), indices(1, 2))
    mean = net.tensor("mean", (1, 4))
    weights = net.tensor("weights", (7, 4), scales=[0.01], data=rng.integers(-99, 99, 28, np.int8))
    offset = net.tensor("offset", (7,), "INT32", [0.005], np.zeros(7, "<i4"))
    logits = net.tensor("logits", (1, 7), scales=[0.125])
    stride = {"strideW": 1, "strideH": 1, "dilationWFactor": 1, "dilationHFactor": 1}
    net.op("CONV_2D", 3, [picture, kernel, bias], [features], table="Conv2DOptions", **stride)
    pool = {"strideW": 2, "strideH": 2, "filterWidth": 2, "filterHeight": 2}
    net.op("MAX_POOL_2D", 2, [features], [pooled], table="Pool2DOptions", **pool)
    net.op("MEAN", 2, [pooled, axes], [mean], table="ReducerOptions", keepDims=False)
    net.op("FULLY_CONNECTED", 4, [mean, weights, offset], [logits], table="FullyConnectedOptions")
    net.main.inputs, net.main.outputs = [picture], [logits]
    edit(net)
    return net.pack()


def single(kind: str, version: int, shapes: tuple[Sequence[int], Sequence[int]], **options: Any) -> bytes:
    """A file with one op that takes one int8 tensor; ``constants`` are further int32 inputs."""
    constants = options.pop("constants", ())
    net = Net()
    inputs = [net.tensor("in", shapes[0])]
    for number, values in enumerate(constants):
        inputs.append(net.tensor(f"constant{number}", (len(values),), "INT32", (), indices(*values)))
    first = options.pop("constants_first", False)
    out = net.tensor("out", shapes[1])
    net.op(kind, version, inputs[1:] + inputs[:1] if first else inputs, [out], **options)
    net.main.inputs, net.main.outputs = [0], [out]
    return net.pack()


def as_compiled(plain: bytes, left: int = 0, edit: Callable[[Net], object] = lambda _net: None) -> bytes:
    """A stand-in for what the compiler makes of ``plain``: all but the last ``left`` ops in one custom op."""
    net = Net()
    net.model = schema.ModelT.InitFromPackedBuf(plain, 0)
    net.main = net.model.subgraphs[0]
    kept = net.main.operators[len(net.main.operators) - left :]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode, code.version = "edgetpu-custom-op", 1
    net.model.operatorCodes.append(code)
    packed = schema.OperatorT()
    packed.opcodeIndex = len(net.model.operatorCodes) - 1
    packed.inputs = net.main.inputs
    packed.outputs = [kept[0].inputs[0]] if kept else net.main.outputs
    packed.customOptions = np.frombuffer(b"\x00\x00\x00\x00DWN1 not a program", np.uint8)
    net.main.operators = [packed, *kept]
    edit(net)
    return net.pack()
