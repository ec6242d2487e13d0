"""Predict from a ``.tflite`` file which of its ops the Edge TPU compiler maps.

The rules were not tested with the compiler, so all output calls the result a prediction.
"""

from collections.abc import Iterator
from typing import Final, Literal

import msgspec

from export.edgetpu.rules import ADVICE, READABLE, RULES, OpStatus, Rule, RuleResult, shape_text
from export.tflite_graph import EDGE_TPU_OP, Graph, Op, Tensor

ON_CHIP_BYTES: Final = 8 * 2**20
"""The Edge TPU's memory for parameters and the compiled program; parameters beyond that are streamed."""

_INNER_DIMENSIONS: Final = 3
_NAME_LENGTH: Final = 40


class OpOutput(msgspec.Struct, frozen=True):
    """Shape and type of an op's first output."""

    shape: tuple[int, ...]
    dtype: str


class PredictedOp(msgspec.Struct, frozen=True):
    """One op: ``mapping`` is ``tpu``, ``cpu``, or ``none`` if the compiler refuses the file.

    ``status`` has the wording of the compiler's log; ``reason`` is empty if the op maps.
    """

    index: int
    op: str
    version: int
    output: OpOutput
    mapping: Literal["tpu", "cpu", "none"]
    status: OpStatus
    reason: str


class Prediction(msgspec.Struct, frozen=True):
    """The predicted result of compiling a file.

    ``refused`` is the reason if the compiler would refuse the file, else None. ``partition`` is the half-open range of
    ops that map. ``parameter_bytes`` is the size of their weights and biases as stored; the compiler pads them.
    """

    refused: str | None
    partition: tuple[int, int] | None
    mapped_ops: int
    cpu_ops: int
    parameter_bytes: int
    warnings: tuple[str, ...]
    ops: tuple[PredictedOp, ...]

    @property
    def all_mapped(self) -> bool:
        """Whether every op is predicted to map."""
        return self.refused is None and self.cpu_ops == 0


def predict_mapping(graph: Graph) -> Prediction:
    """Predict what the Edge TPU compiler does with each op and with the file.

    Only one partition maps. It begins at the first op that can be mapped and ends before the next one that cannot.
    """
    refused = _refusal(graph)
    violations = [_violation(op) for op in graph.ops]
    start, end = _partition([violation is None for violation in violations]) if refused is None else (0, 0)
    outside = (
        RuleResult(OpStatus.SUBGRAPH, f"it comes after op {end}, which runs on the CPU")
        if refused is None
        else RuleResult(OpStatus.UNSPECIFIED, "the compiler refuses the whole file")
    )
    unmapped: Literal["cpu", "none"] = "cpu" if refused is None else "none"
    ops = [
        _predicted(op, "tpu", RuleResult(OpStatus.MAPPED, ""))
        if start <= op.index < end
        else _predicted(op, unmapped, violation or outside)
        for op, violation in zip(graph.ops, violations, strict=True)
    ]
    parameters = _parameter_bytes(graph.ops[start:end])
    return Prediction(
        refused=refused,
        partition=(start, end) if end > start else None,
        mapped_ops=end - start,
        cpu_ops=sum(op.mapping == "cpu" for op in ops),
        parameter_bytes=parameters,
        warnings=tuple(_warnings(graph, parameters)),
        ops=tuple(ops),
    )


def _predicted(op: Op, mapping: Literal["tpu", "cpu", "none"], result: RuleResult) -> PredictedOp:
    output = OpOutput(op.outputs[0].shape, op.outputs[0].dtype) if op.outputs else OpOutput((), "")
    return PredictedOp(op.index, op.name, op.version, output, mapping, result.status, result.reason)


def _refusal(graph: Graph) -> str | None:
    """Why the compiler would refuse the file, or have nothing to do; None if neither."""
    for op in graph.ops:
        if op.name == EDGE_TPU_OP:
            return f"op {op.index} is {EDGE_TPU_OP}: this file is compiled already. Give the uncompiled file."
        readable = READABLE.get(op.name, 1)
        if op.version > readable:
            return (
                f"op {op.index} is {op.name} version {op.version}; the compiler of 2021 reads up to {readable} "
                f'("Didn\'t find op for builtin opcode"). Convert with other settings or an older TensorFlow.'
            )
    dynamic = _dynamic(graph)
    if dynamic:
        return f"{dynamic}: sizes must be fixed. Convert with a batch of 1, not None."
    if not any(tensor.scales for tensor in graph.tensors):
        return 'no tensor is quantized ("Model not quantized"). Quantize to int8, input and output too.'
    return None


def _dynamic(graph: Graph) -> str | None:
    for op in graph.ops:
        if op.name == "SHAPE":
            return f"op {op.index} is SHAPE, which computes a size at run time"
        shape = op.inputs[1] if op.name == "RESHAPE" and len(op.inputs) > 1 else None
        if shape is not None and not shape.constant:
            return f"op {op.index} is a RESHAPE to a shape that is computed at run time"
    return None


def _violation(op: Op) -> RuleResult | None:
    """The first rule that an op violates: types, rank, constants, kind and version, then the limits of its kind."""
    if op.name == EDGE_TPU_OP:
        return RuleResult(OpStatus.UNSUPPORTED, "compiled already")
    rule = RULES.get(op.name)
    parameters = set(rule.parameters) if rule else set()
    data = [tensor for number, tensor in enumerate(op.inputs) if tensor and number not in parameters]
    weights = [tensor for number, tensor in enumerate(op.inputs) if tensor and number in parameters]
    return (
        _dtype(data + list(op.outputs), weights, op)
        or (_rank(data + list(op.outputs)) if rule else None)
        or _constants(weights)
        or _kind(op, rule)
        or _limits(op, rule)
    )


def _dtype(data: list[Tensor], weights: list[Tensor], op: Op) -> RuleResult | None:
    # An unsupported op may have shapes as input; then its kind is the better reason.
    allowed = {"INT8", "UINT8"} if op.name in RULES else {"INT8", "UINT8", "INT32", "INT64", "BOOL"}
    for tensor in data:
        if tensor.dtype not in allowed:
            return RuleResult(
                OpStatus.DTYPE, _with_advice(op, f"{_short(tensor.name)} is {tensor.dtype}, not INT8 or UINT8")
            )
        if op.name in RULES and len(tensor.scales) != 1:
            scales = "has one scale per channel" if tensor.scales else "has no scale"
            return RuleResult(
                OpStatus.DTYPE, f"{_short(tensor.name)} is {tensor.dtype} but {scales}: it needs exactly one"
            )
    for tensor in weights:
        if tensor.dtype not in {"INT8", "UINT8", "INT32"}:
            return RuleResult(OpStatus.DTYPE, f"{_short(tensor.name)} is {tensor.dtype}, not INT8, UINT8 or INT32")
    return None


def _rank(data: list[Tensor]) -> RuleResult | None:
    for tensor in data:
        if any(size != 1 for size in tensor.shape[:-_INNER_DIMENSIONS]):
            return RuleResult(OpStatus.RANK, f"{shape_text(tensor.shape)}: only the three innermost sizes may exceed 1")
    return None


def _constants(weights: list[Tensor]) -> RuleResult | None:
    for tensor in weights:
        if not tensor.constant:
            return RuleResult(OpStatus.NOT_CONSTANT, f"{_short(tensor.name)} is computed at run time")
    return None


def _kind(op: Op, rule: Rule | None) -> RuleResult | None:
    if rule is None:
        return RuleResult(OpStatus.UNSUPPORTED, _with_advice(op, "not on Coral's list of supported ops"))
    lowest, highest = rule.versions
    if op.version > highest:
        why = rule.newer or f"int8 ones that map are of version {highest}"
        return RuleResult(OpStatus.VERSION, f"version {op.version}; {why}")
    if op.version < lowest and op.outputs[0].dtype == "INT8":
        return RuleResult(
            OpStatus.VERSION,
            f"int8, but marked version {op.version} instead of {lowest}, as ai-edge-quantizer leaves it: "
            "convert with TensorFlow's converter",
        )
    return None


def _limits(op: Op, rule: Rule | None) -> RuleResult | None:
    reasons = (limit(op) for limit in (rule.limits if rule else ()))
    return next((RuleResult(OpStatus.UNSPECIFIED, reason) for reason in reasons if reason), None)


def _with_advice(op: Op, reason: str) -> str:
    return f"{reason}; {ADVICE[op.name]}" if op.name in ADVICE else reason


def _short(name: str) -> str:
    """A tensor's readable name; the converter joins the names of all layers that it merged."""
    last = name.rpartition(";")[2]
    return last if len(last) <= _NAME_LENGTH else f"...{last[-_NAME_LENGTH:]}"


def _partition(can_map: list[bool]) -> tuple[int, int]:
    """The half-open range of ops that map.

    Ops before it that cannot be mapped do not matter: logs show a QUANTIZE on the CPU first, and all later ops mapped.
    """
    if True not in can_map:
        return 0, 0
    start = can_map.index(True)
    end = can_map.index(False, start) if False in can_map[start:] else len(can_map)
    return start, end


def _parameter_bytes(ops: tuple[Op, ...]) -> int:
    """Bytes of weights and biases; a shared tensor counts once."""
    tensors = {
        id(tensor): len(tensor.data)
        for op in ops
        for number, tensor in enumerate(op.inputs)
        if tensor and tensor.data is not None and tensor.scales and number in RULES[op.name].parameters
    }
    return sum(tensors.values())


def _warnings(graph: Graph, parameter_bytes: int) -> Iterator[str]:
    for op in graph.ops:
        weights = op.inputs[1] if op.name == "FULLY_CONNECTED" and len(op.inputs) > 1 else None
        if weights is not None and len(weights.scales) > 1:
            yield (
                f"op {op.index} is a FULLY_CONNECTED with a scale for each of {len(weights.scales)} outputs: the "
                "compiler of 2021 supports only one scale. Turn per-channel quantization of dense layers off."
            )
        rule = RULES.get(op.name)
        if rule and rule.caution:
            yield f"op {op.index}, {op.name}: {rule.caution}"
    if any(tensor.dynamic for tensor in graph.inputs):
        yield "the batch size is dynamic; the prediction is for the file's size. Convert with a batch of 1, not None."
    if parameter_bytes > ON_CHIP_BYTES:
        yield (
            f"{parameter_bytes / 2**20:.2f} MiB of parameters do not fit the Edge TPU's {ON_CHIP_BYTES // 2**20} MiB: "
            "the rest is streamed for every face, which is slow"
        )


def format_prediction(prediction: Prediction, name: object) -> str:
    """The prediction as text: one line per op, then a summary that is marked as a prediction."""
    width = max((len(op.op) for op in prediction.ops), default=2)
    lines = [str(name), f"{'':>3} {'op':{width}} {'version':>7}  {'output':20} predicted"]
    mapping = {"tpu": "Edge TPU", "cpu": "CPU", "none": "nothing"}
    for op in prediction.ops:
        output = f"{shape_text(op.output.shape)} {op.output.dtype}"
        why = f"  {op.reason}" if op.reason else ""
        lines.append(f"{op.index:3} {op.op:{width}} {op.version:7}  {output:20} {mapping[op.mapping]}{why}")
    lines.append("")
    lines += [f"warning: {warning}" for warning in prediction.warnings]
    total = len(prediction.ops)
    summary = (
        f"nothing maps: {prediction.refused}"
        if prediction.refused
        else (
            f"{prediction.mapped_ops} of {total} ops map to the Edge TPU, {prediction.cpu_ops} stay on the CPU; "
            f"{prediction.parameter_bytes / 2**20:.2f} of {ON_CHIP_BYTES // 2**20} MiB of parameters"
        )
    )
    lines.append(f"PREDICTED (no compiler was run): {summary}")
    return "\n".join(lines)
