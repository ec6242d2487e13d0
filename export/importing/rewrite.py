"""Turn an int8 network of any usual form into one that takes a device's faces and gives logits, by editing its file.

A device gives 48x48 grey pixels, int8 with scale 1/128 and zero point 0. Two ops in front make of them what the network
takes: RESIZE_BILINEAR, and a 1x1 convolution that scales the pixels and repeats them in three channels. Behind, the
conversions to other types and the softmax are left out: a bundle has logits, whose softmax the device computes.
"""

from typing import Any, Final

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import Builder
from numpy.typing import NDArray

from edge.model.preprocessing import INPUT_SIZE
from export.importing.face_input import FaceInput
from export.importing.scaling import PixelScaling
from export.quantization.errors import ConversionError
from export.tflite_graph import IDENTIFIER

_LARGEST_WEIGHT: Final = 127
_CONVERSIONS: Final = ("QUANTIZE", "DEQUANTIZE")
_ACTIVATIONS: Final = ("SOFTMAX", "LOG_SOFTMAX", "LOGISTIC")
_FACE_SCALE: Final = 1 / 128  # of edge.model.preprocessing.normalize
_VERSIONS: Final = {"CONV_2D": 3, "RESIZE_BILINEAR": 2}  # of int8 ops; half-pixel centers would need 3


def for_devices(file: bytes, face: FaceInput, scaling: PixelScaling, name: object) -> tuple[bytes, str]:
    """An int8 file that takes ``(1, 48, 48, 1)`` as a device gives it, and the activation that it lost at its end.

    ``face`` and ``scaling`` say what the network takes. The activation is an op's name such as ``SOFTMAX``, or empty.
    Raises ConversionError, with ``name``, when the input or the scores are not int8 below their conversions.
    """
    network = _Network(file)
    entry = network.strip_front()
    activation = network.strip_end()
    for which, tensor in (("input", entry), ("output", network.output)):
        scales = () if tensor.quantization is None else tensor.quantization.scale
        if tensor.type != schema.TensorType.INT8 or scales is None or len(scales) != 1:
            raise ConversionError(f"{name}: its {which} is not int8 with one scale. Bring the float32 network.")
    network.fix_shapes()
    network.put_in_front(face, scaling)
    return network.pack(), activation


class _Network:
    """The objects of a file that is being edited."""

    def __init__(self, file: bytes) -> None:
        self._model = schema.ModelT.InitFromPackedBuf(file, 0)
        self._model.signatureDefs = []  # they would name tensors that are no inputs or outputs any more
        self._main = self._model.subgraphs[0]
        self._main.operators = list(self._main.operators)
        self._kinds = {number: kind for kind, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)}

    @property
    def output(self) -> Any:
        return self._main.tensors[self._main.outputs[0]]

    def strip_front(self) -> Any:
        """Leave out a conversion of the input to int8; returns the tensor that the network then begins with."""
        while True:
            [entry] = self._main.inputs
            takers = [op for op in self._main.operators if entry in op.inputs]
            if len(takers) != 1 or self._kind(takers[0]) != "QUANTIZE":
                return self._main.tensors[entry]
            self._main.operators.remove(takers[0])
            self._main.inputs = list(takers[0].outputs)

    def strip_end(self) -> str:
        """Leave out what follows the int8 logits; returns the activation among it."""
        activation = ""
        while True:
            [leaving] = self._main.outputs
            [maker] = [op for op in self._main.operators if leaving in op.outputs] or [None]
            kind = self._kind(maker) if maker else ""
            if maker is None or (kind not in _CONVERSIONS and (kind not in _ACTIVATIONS or activation)):
                return activation
            if self._main.tensors[maker.inputs[0]].type not in {schema.TensorType.INT8, schema.TensorType.FLOAT32}:
                return activation
            activation = kind if kind in _ACTIVATIONS else activation
            self._main.operators.remove(maker)
            self._main.outputs = [int(maker.inputs[0])]

    def fix_shapes(self) -> None:
        """Make constants of shapes that are computed for any batch: with a batch of 1 they are known.

        Keras's Flatten leaves such ops in a file, and the Edge TPU compiler refuses them.
        """
        for tensor in self._main.tensors:
            tensor.shapeSignature = None
        for op in self._main.operators:
            if self._kind(op) == "RESHAPE" and len(op.inputs) > 1 and self._is_computed(int(op.inputs[1])):
                sizes = np.asarray(self._main.tensors[op.outputs[0]].shape, "<i4")
                op.inputs = [op.inputs[0], self._tensor("shape", sizes.shape, "INT32", sizes)]
        while unused := [op for op in self._main.operators if not self._is_used(op)]:
            self._main.operators = [op for op in self._main.operators if op not in unused]

    def _is_computed(self, tensor: int) -> bool:
        return any(tensor in op.outputs for op in self._main.operators)

    def _is_used(self, op: Any) -> bool:
        """Whether an output of an op is the network's, or another op takes it."""
        taken = {int(tensor) for other in self._main.operators for tensor in other.inputs} | set(self._main.outputs)
        return any(int(tensor) in taken for tensor in op.outputs)

    def put_in_front(self, face: FaceInput, scaling: PixelScaling) -> None:
        """Begin with a device's face, resized and scaled as the network's input, which is int8."""
        [entry] = self._main.inputs
        pixels = self._face_tensor("face", INPUT_SIZE)
        self._main.inputs = [pixels]
        front = []
        if face.side != INPUT_SIZE:
            resized = self._face_tensor("resized", face.side)
            size = self._tensor("size", (2,), "INT32", np.full(2, face.side, "<i4"))
            front.append(self._op("RESIZE_BILINEAR", [pixels, size], [resized], "ResizeBilinear", alignCorners=True))
            pixels = resized
        means, deviations = scaling.factors(face.channels)
        # The real value of a pixel is x in -1..1, so (128 x + 128 - mean) / deviation is w x + b.
        weights, biases = 128 / deviations, (128 - means) / deviations
        steps = weights / _LARGEST_WEIGHT
        largest = np.full((face.channels, 1, 1, 1), _LARGEST_WEIGHT, np.int8)
        kernel = self._tensor("scaling", largest.shape, "INT8", largest, steps)
        in_steps = np.rint(biases / (_FACE_SCALE * steps)).astype("<i4")
        bias = self._tensor("offset", (face.channels,), "INT32", in_steps, _FACE_SCALE * steps)
        options = {"strideW": 1, "strideH": 1, "dilationWFactor": 1, "dilationHFactor": 1}
        front.append(self._op("CONV_2D", [pixels, kernel, bias], [entry], "Conv2D", **options))
        self._main.operators[:0] = front

    def pack(self) -> bytes:
        builder = Builder(1 << 20)
        builder.Finish(self._model.Pack(builder), file_identifier=IDENTIFIER)
        return bytes(builder.Output())

    def _kind(self, op: Any) -> str:
        code = self._model.operatorCodes[op.opcodeIndex]
        return str(self._kinds[max(code.builtinCode, code.deprecatedBuiltinCode)])

    def _face_tensor(self, name: str, side: int) -> int:
        return self._tensor(name, (1, side, side, 1), "INT8", None, np.array([_FACE_SCALE]))

    def _tensor(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: str,
        data: NDArray[Any] | None,
        scales: NDArray[np.float64] | None = None,
    ) -> int:
        """Add a tensor, a constant if it has ``data``; returns its number."""
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type = name, list(shape), getattr(schema.TensorType, dtype)
        if scales is not None:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = scales.tolist()
            tensor.quantization.zeroPoint = [0] * len(scales)
        tensor.buffer = 0  # the empty one
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(data.tobytes(), np.uint8)
            self._model.buffers.append(buffer)
            tensor.buffer = len(self._model.buffers) - 1
        self._main.tensors.append(tensor)
        return len(self._main.tensors) - 1

    def _op(self, kind: str, inputs: list[int], outputs: list[int], table: str, **options: Any) -> Any:
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, kind)
        code.version = _VERSIONS[kind]
        self._model.operatorCodes.append(code)
        op = schema.OperatorT()
        op.opcodeIndex = len(self._model.operatorCodes) - 1
        op.inputs, op.outputs = inputs, outputs
        op.builtinOptionsType = getattr(schema.BuiltinOptions, f"{table}Options")
        op.builtinOptions = getattr(schema, f"{table}OptionsT")()
        for option, value in options.items():
            setattr(op.builtinOptions, option, value)
        return op
