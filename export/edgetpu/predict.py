"""What the Edge TPU compiler would do with a ``.tflite`` file, predicted from the file alone.

No compiler was at hand when this was written: whatever comes out of here is a prediction, and is called one.
"""

from collections.abc import Iterator
from typing import Final, Literal

import msgspec

from export.edgetpu.rules import ADVICE, READABLE, RULES, OpStatus, Rule, RuleResult, shape_text
from export.tflite_graph import EDGE_TPU_OP, Graph, Op, Tensor

ON_CHIP_BYTES: Final = 8 * 2**20
"""The Edge TPU's memory for parameters, of which the compiled program takes a part; what does not fit is streamed."""

_INNER_DIMENSIONS: Final = 3
_NAME_LENGTH: Final = 40


class OpOutput(msgspec.Struct, frozen=True):
    """Shape and type of an op's first output."""

    shape: tuple[int, ...]
    dtype: str


class PredictedOp(msgspec.Struct, frozen=True):
    """One op: ``mapping`` is ``tpu``, ``cpu``, or ``none`` where nothing of the whole file maps.

    ``status`` is in the words of the compiler's log; ``reason`` is empty for what maps.
    """

    index: int
    op: str
    version: int
    output: OpOutput
    mapping: Literal["tpu", "cpu", "none"]
    status: OpStatus
    reason: str


class Prediction(msgspec.Struct, frozen=True):
    """What the compiler is predicted to do with a file.

    ``refused`` says why it would refuse the whole file, of which then nothing is made; ``partition`` is the
    half-open range of ops that map; ``parameter_bytes`` are their weights and biases as stored (the compiler pads).
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
    """Predict what the Edge TPU compiler does with each op, and with the file as a whole.

    One partition maps: it begins at the first op that can, and the first one after it that cannot ends it for good.
    """
    refused = _refused(graph)
    against = [_against(op) for op in graph.ops]
    start, end = _partition([verdict is None for verdict in against]) if refused is None else (0, 0)
    outside = (
        RuleResult(OpStatus.SUBGRAPH, f"it comes after op {end}, which stays on the CPU")
        if refused is None
        else RuleResult(OpStatus.UNSPECIFIED, "the file is refused as a whole")
    )
    elsewhere: Literal["cpu", "none"] = "cpu" if refused is None else "none"
    ops = [
        _predicted(op, "tpu", RuleResult(OpStatus.MAPPED, ""))
        if start <= op.index < end
        else _predicted(op, elsewhere, verdict or outside)
        for op, verdict in zip(graph.ops, against, strict=True)
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


def _predicted(op: Op, mapping: Literal["tpu", "cpu", "none"], verdict: RuleResult) -> PredictedOp:
    output = OpOutput(op.outputs[0].shape, op.outputs[0].dtype) if op.outputs else OpOutput((), "")
    return PredictedOp(op.index, op.name, op.version, output, mapping, verdict.status, verdict.reason)


def _refused(graph: Graph) -> str | None:
    """Why the compiler would refuse the file, or has no work with it."""
    for op in graph.ops:
        if op.name == EDGE_TPU_OP:
            return f"op {op.index} is {EDGE_TPU_OP}: this file is compiled already. Give the file it was made from."
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
            return f"op {op.index} is SHAPE, which asks for a size at run time"
        shape = op.inputs[1] if op.name == "RESHAPE" and len(op.inputs) > 1 else None
        if shape is not None and not shape.constant:
            return f"op {op.index} is a RESHAPE to a shape that is computed at run time"
    return None


def _against(op: Op) -> RuleResult | None:
    """The first thing that speaks against an op: types, rank, constants, kind and version, then its own limits."""
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
    # An op that is not supported may well work on shapes; then its kind is the better reason.
    wanted = {"INT8", "UINT8"} if op.name in RULES else {"INT8", "UINT8", "INT32", "INT64", "BOOL"}
    for tensor in data:
        if tensor.dtype not in wanted:
            return RuleResult(
                OpStatus.DTYPE, _advised(op, f"{_short(tensor.name)} is {tensor.dtype}, not INT8 or UINT8")
            )
        if op.name in RULES and len(tensor.scales) != 1:
            held = "has one scale a channel" if tensor.scales else "has no scale"
            return RuleResult(
                OpStatus.DTYPE, f"{_short(tensor.name)} is {tensor.dtype} but {held}: not quantized as a whole"
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
        return RuleResult(OpStatus.UNSUPPORTED, _advised(op, "not on Coral's list of supported ops"))
    lowest, highest = rule.versions
    if op.version > highest:
        return RuleResult(OpStatus.VERSION, f"version {op.version}; int8 ones that map are of version {highest}")
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


def _advised(op: Op, reason: str) -> str:
    return f"{reason}; {ADVICE[op.name]}" if op.name in ADVICE else reason


def _short(name: str) -> str:
    """A tensor's name for a person: the converter joins those of all layers that it made one of."""
    last = name.rpartition(";")[2]
    return last if len(last) <= _NAME_LENGTH else f"...{last[-_NAME_LENGTH:]}"


def _partition(can_map: list[bool]) -> tuple[int, int]:
    """The half-open range that maps.

    Ops in front that cannot map do not end it: logs show a leading QUANTIZE on the CPU and all that follows mapped.
    """
    if True not in can_map:
        return 0, 0
    start = can_map.index(True)
    end = can_map.index(False, start) if False in can_map[start:] else len(can_map)
    return start, end


def _parameter_bytes(ops: tuple[Op, ...]) -> int:
    """Bytes of weights and biases; a tensor that several ops share counts once."""
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
                "compiler of 2021 knows one scale for all. Turn per-channel Dense quantization off."
            )
        rule = RULES.get(op.name)
        if rule and rule.caution:
            yield f"op {op.index}, {op.name}: {rule.caution}"
    if any(tensor.dynamic for tensor in graph.inputs):
        yield "the batch is left open; the file is taken at its stated size. Convert with a batch of 1, not None."
    if parameter_bytes > ON_CHIP_BYTES:
        yield (
            f"{parameter_bytes / 2**20:.2f} MiB of parameters do not fit the Edge TPU's {ON_CHIP_BYTES // 2**20} MiB: "
            "the rest is sent again for every picture, which is slow"
        )


def format_prediction(prediction: Prediction, name: object) -> str:
    """The prediction for a person: one line an op, then a summary that says it is a prediction."""
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
    verdict = (
        f"nothing maps: {prediction.refused}"
        if prediction.refused
        else (
            f"{prediction.mapped_ops} of {total} ops map to the Edge TPU, {prediction.cpu_ops} stay on the CPU; "
            f"{prediction.parameter_bytes / 2**20:.2f} of {ON_CHIP_BYTES // 2**20} MiB of parameters"
        )
    )
    lines.append(f"PREDICTED (no compiler was run): {verdict}")
    return "\n".join(lines)
