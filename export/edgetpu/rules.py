"""Rules for what the Edge TPU compiler maps, one for each kind of op, and the op versions that it can read.

The rules are those that Coral published (coral.ai, "TensorFlow models on the Edge TPU"), and those that logs of
compiler version 16 (2021, the last one) in google-coral/edgetpu's issues show.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from export.tflite_graph import Op

_SOFTMAX_LIMIT: Final = 16_000
_NOT_OVER_BATCH: Final = "works across the batch"
_UNPUBLISHED: Final = "its limits are not published: only the compiler can tell"


class OpStatus(StrEnum):
    """The status of an op, worded as in the compiler's log."""

    MAPPED = "Mapped to Edge TPU"
    UNSUPPORTED = "Operation not supported"
    VERSION = "Operation version not supported"
    DTYPE = "Operation is working on an unsupported data type"
    UNSPECIFIED = "Operation is otherwise supported, but not mapped due to some unspecified limitation"
    SUBGRAPH = "More than one subgraph is not supported"
    RANK = "Tensor has unsupported rank (up to 3 innermost dimensions mapped)"
    NOT_CONSTANT = "Filter, bias, or other param is not constant at compile-time"


@dataclass(frozen=True)
class RuleResult:
    """The predicted status of an op in the compiler's log, and the reason why it cannot be mapped."""

    status: OpStatus
    reason: str


Limit = Callable[[Op], str | None]
"""Returns why an op of a supported kind cannot be mapped, or None."""


@dataclass(frozen=True)
class Rule:
    """The rule for one kind of op.

    ``versions`` are the lowest and highest version of int8 ops (uint8 ops may have lower ones). ``parameters`` are the
    numbers of the inputs that must be constants (weights, axes, shapes); all other inputs are data. ``newer`` says what
    makes an op of a higher version, and what to do. ``caution`` is a warning to print for each such op.
    """

    versions: tuple[int, int]
    parameters: tuple[int, ...] = ()
    limits: tuple[Limit, ...] = ()
    newer: str = ""
    caution: str = ""


def shape_text(shape: tuple[int, ...]) -> str:
    """A shape as text: ``1x48x48x1``."""
    return "x".join(map(str, shape)) or "scalar"


def _one_dilation(op: Op) -> str | None:
    x, y = op.option("dilationWFactor"), op.option("dilationHFactor")
    return None if x == y else f"its dilation is {x} in x and {y} in y; it must be the same"


def _no_activation(op: Op) -> str | None:
    return "it has a fused activation" if op.option("fusedActivationFunction") else None


def _default_weights(op: Op) -> str | None:
    return "its weights are not in the default format" if op.option("weightsFormat") else None


def _one_dimensional(op: Op) -> str | None:
    shape = op.outputs[0].shape
    return f"its output {shape_text(shape)} has more than one dimension" if any(n != 1 for n in shape[:-1]) else None


def _few_classes(op: Op) -> str | None:
    size = op.outputs[0].elements
    return f"it is over {size:,} elements, the limit is {_SOFTMAX_LIMIT:,}" if size > _SOFTMAX_LIMIT else None


def _constant_of_zeros(op: Op) -> str | None:
    constants = [tensor for tensor in op.inputs if tensor and tensor.data is not None]
    if not constants:
        return None
    if len(op.inputs) != 2:
        return "it has a constant among more than two inputs"
    zero_points = constants[0].zero_points or (0,)
    stored = set(constants[0].data or b"")
    return None if stored <= {point % 256 for point in zero_points} else "its constant input is not all zeros"


def _axes(op: Op, which: int = 1) -> set[int]:
    """Axes named by a constant input, counted from the front."""
    data, axes = op.inputs[1 - which], op.inputs[which]
    if data is None or axes is None:
        return set()
    return {int(axis) % max(len(data.shape), 1) for axis in axes.integers()}


def _reduces_no_batch(op: Op) -> str | None:
    return _NOT_OVER_BATCH if 0 in _axes(op) else None


def _mean_depth(op: Op) -> str | None:
    data = op.inputs[0]
    if data is None or len(data.shape) - 1 not in _axes(op) or data.shape[-1] % 4 == 0:
        return None
    return f"it is over z, whose size {data.shape[-1]} is not a multiple of 4"


def _splits_no_batch(op: Op) -> str | None:
    return _NOT_OVER_BATCH if 0 in _axes(op, which=0) else None


def _packs_no_batch(op: Op) -> str | None:
    return _NOT_OVER_BATCH if op.option("axis") % len(op.outputs[0].shape) == 0 else None


def _pads_no_batch(op: Op) -> str | None:
    paddings = op.inputs[1]
    return _NOT_OVER_BATCH if paddings and any(paddings.integers()[:2]) else None


def _alpha_one_dimensional(op: Op) -> str | None:
    alpha = op.inputs[1]
    if alpha is None or alpha.elements == (alpha.shape or (1,))[-1]:
        return None
    return f"its alpha {shape_text(alpha.shape)} has more than one dimension"


def _leading_ones(op: Op) -> str | None:
    data, kept = op.inputs[0], op.outputs[0].shape
    if data is None:
        return None
    gone = data.shape[: len(data.shape) - len(kept)]
    leads = all(size == 1 for size in gone) and data.shape[len(gone) :] == kept
    return None if leads else "it removes dimensions other than leading ones"


def _plain_slice(op: Op) -> str | None:
    strides = op.inputs[3]
    if strides and any(strides.integers() != 1):
        return "its strides are not all 1"
    return "it has an ellipsis or new-axis mask" if op.option("ellipsisMask") or op.option("newAxisMask") else None


def _resize(what: str, instead: str) -> Rule:
    """The rule for an op that resizes: ``what`` compilers 14 and 15 left on the CPU, and the TensorFlow op to use."""
    reason = (
        f"it has {what}, as tf.image.resize and Keras make it; compilers 14 and 15 left such ops on the CPU. "
        f"Use tf.raw_ops.{instead}"
    )

    def limit(op: Op) -> str | None:
        return reason if op.option("halfPixelCenters") else None

    return Rule((2, 2), parameters=(1,), limits=(limit,), newer=reason, caution=_RESIZE_CAUTION)


_ELEMENTWISE: Final = Rule((2, 2))
_POOL: Final = Rule((2, 2), limits=(_no_activation,))
_CONVOLUTION: Final = Rule((3, 3), parameters=(1, 2), limits=(_one_dilation,))
_EXTREME: Final = Rule((2, 2), parameters=(1,), limits=(_reduces_no_batch,))
_RESIZE_CAUTION: Final = (
    "some sizes are not mapped: only the compiler can tell (in 2019 it mapped 64x64 to 128x128, not 256x256 to 512x512)"
)

RULES: Final[dict[str, Rule]] = {
    "ADD": _ELEMENTWISE,
    "AVERAGE_POOL_2D": _POOL,
    "CONCATENATION": Rule((2, 2), limits=(_no_activation, _constant_of_zeros)),
    "CONV_2D": _CONVOLUTION,
    "DEPTHWISE_CONV_2D": _CONVOLUTION,
    "EXPAND_DIMS": Rule((1, 1), parameters=(1,)),
    "FULLY_CONNECTED": Rule((4, 4), parameters=(1, 2), limits=(_default_weights, _one_dimensional)),
    "L2_NORMALIZATION": _ELEMENTWISE,
    "LOGISTIC": _ELEMENTWISE,
    "MAXIMUM": _ELEMENTWISE,
    "MAX_POOL_2D": _POOL,
    "MEAN": Rule((2, 2), parameters=(1,), limits=(_reduces_no_batch, _mean_depth)),
    "MINIMUM": _ELEMENTWISE,
    "MUL": _ELEMENTWISE,
    "PACK": Rule((2, 2), limits=(_packs_no_batch,)),
    "PAD": Rule((2, 2), parameters=(1,), limits=(_pads_no_batch,)),
    "PRELU": Rule((1, 1), parameters=(1,), limits=(_alpha_one_dimensional,)),
    "QUANTIZE": Rule((1, 2)),
    "REDUCE_MAX": _EXTREME,
    "REDUCE_MIN": _EXTREME,
    "RELU": _ELEMENTWISE,
    "RELU6": _ELEMENTWISE,
    "RELU_N1_TO_1": Rule((1, 1)),
    "RESHAPE": Rule((1, 1), parameters=(1,), caution="large ones are not mapped; the limit is not published"),
    "RESIZE_BILINEAR": _resize("half-pixel centers", "ResizeBilinear(half_pixel_centers=False)"),
    "RESIZE_NEAREST_NEIGHBOR": _resize(
        "half-pixel centers or aligned corners",
        "ResizeNearestNeighbor(half_pixel_centers=False, align_corners=False)",
    ),
    "RSQRT": Rule((2, 2), caution=_UNPUBLISHED),
    "SLICE": Rule((2, 2), parameters=(1, 2)),
    "SOFTMAX": Rule((2, 2), limits=(_one_dimensional, _few_classes)),
    "SPACE_TO_DEPTH": _ELEMENTWISE,
    "SPLIT": Rule((2, 2), parameters=(0,), limits=(_splits_no_batch,)),
    "SQUARED_DIFFERENCE": Rule((2, 2), caution=_UNPUBLISHED),
    "SQUEEZE": Rule((1, 1), limits=(_leading_ones,)),
    "STRIDED_SLICE": Rule((2, 2), parameters=(1, 2, 3), limits=(_plain_slice,)),
    "SUB": _ELEMENTWISE,
    "SUM": Rule((2, 2), parameters=(1,), caution=_UNPUBLISHED),
    "TANH": _ELEMENTWISE,
    "TRANSPOSE_CONV": Rule((2, 3), parameters=(0, 1, 3), caution=_UNPUBLISHED),
}
"""All kinds of ops that Coral lists as supported, except the LSTM, which no network here has."""

ADVICE: Final = {
    "ARG_MAX": "compute the arg max in the program that reads the scores",
    "BIDIRECTIONAL_SEQUENCE_LSTM": "only a unidirectional LSTM maps",
    "DEQUANTIZE": "fold a BatchNormalization that follows a Dense layer into it, and convert to int8 output",
    "ELU": "use ReLU or ReLU6 instead",
    "GELU": "use ReLU or ReLU6 instead",
    "HARD_SWISH": "use ReLU6 instead",
    "LEAKY_RELU": "use ReLU, ReLU6 or PReLU with one alpha a channel instead",
    "LSTM": "Coral lists unidirectional LSTMs as supported, but this check does not know their limits",
    "TRANSPOSE": "compiler 16 maps some by rules that are not published, so this check counts on none",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "Coral lists it as supported, but this check does not know its limits",
}
"""What to do about common ops that cannot be mapped."""

_VERSIONS_OF_2021: Final = {
    2: (
        "ARG_MAX ARG_MIN DEPTH_TO_SPACE DIV FLOOR_DIV GREATER GREATER_EQUAL L2_NORMALIZATION LEAKY_RELU LESS "
        "LESS_EQUAL LOG_SOFTMAX MIRROR_PAD QUANTIZE RSQRT SELECT SPACE_TO_DEPTH SPLIT_V SQUARED_DIFFERENCE "
        "SQUEEZE SUM TILE TOPK_V2"
    ),
    3: (
        "ABS ADD AVERAGE_POOL_2D BATCH_TO_SPACE_ND BIDIRECTIONAL_SEQUENCE_LSTM BROADCAST_TO CONCATENATION "
        "EQUAL FILL GATHER_ND LOGISTIC MAX_POOL_2D MEAN NOT_EQUAL PACK PAD PADV2 REDUCE_MAX REDUCE_MIN RELU "
        "RELU6 REVERSE_V2 SOFTMAX SPACE_TO_BATCH_ND SPARSE_TO_DENSE TANH TRANSPOSE_CONV "
        "UNIDIRECTIONAL_SEQUENCE_LSTM"
    ),
    4: "BATCH_MATMUL DEQUANTIZE LSTM MAXIMUM MINIMUM MUL RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR SPLIT SVDF UNPACK",
    5: "CONV_2D GATHER SLICE STRIDED_SLICE SUB TRANSPOSE",
    6: "DEPTHWISE_CONV_2D",
    9: "FULLY_CONNECTED",
}
READABLE: Final = {kind: version for version, kinds in _VERSIONS_OF_2021.items() for kind in kinds.split()}
"""The highest version of each kind of op that the compiler can read; 1 for kinds that are not listed.

A higher version makes it refuse the file. The versions are those of TensorFlow 2.5 (May 2021), from TensorFlow's table
of the runtime that each version needs (lite/tools/versioning/runtime_version.cc). Compiler 16 is known to refuse
CONV_2D 6, QUANTIZE 3, TRANSPOSE_CONV 4 and EXP 2.
"""
