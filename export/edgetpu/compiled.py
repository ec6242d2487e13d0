"""A file that the Edge TPU compiler made: whether it is of a given model, and how it comes into a bundle.

The weights are packed inside the compiled op in a form that nobody published. So what is compared is everything
that the compiler leaves readable, which tells apart any two models but those with the same graph, tensor names and
quantization of input and output. Whether the weights are the same, only the bundle's golden outputs can show, on a
device with an Edge TPU.
"""

import hashlib
import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from edge.errors import BundleError, UsageError
from edge.model.bundle import CARD_FILE, EDGE_TPU_FILE, Card, EdgeTpuFile, open_bundle
from export.tflite_graph import EDGE_TPU_OP, Graph, Op, Tensor

_PACKAGE: Final = b"DWN1"
"""Identifier of the program package inside a compiled op (libedgetpu, executable/executable.fbs)."""


@dataclass(frozen=True)
class OpPlacement:
    """How many ops of the plain model run on the Edge TPU and how many stay on the CPU."""

    mapped_ops: int
    cpu_ops: int


def match_compiled(plain: Graph, compiled: Graph, name: object) -> OpPlacement:
    """Check that ``compiled`` can be what the compiler made of ``plain``; ``name`` is for messages.

    Raises BundleError when it is not compiled, or differs in its inputs, outputs or the ops left to the CPU.
    """
    packed = [op for op in compiled.ops if op.name == EDGE_TPU_OP]
    if not packed:
        raise BundleError(
            f"{name}: not compiled for the Edge TPU (it has no {EDGE_TPU_OP}). Run edgetpu_compiler first."
        )
    if len(packed) > 1:
        raise BundleError(f"{name}: has {len(packed)} parts for the Edge TPU, not one. Compile it without -a.")
    if _PACKAGE not in packed[0].custom:
        raise BundleError(f"{name}: its {EDGE_TPU_OP} holds no program for the Edge TPU. Compile it again.")
    _same("input", plain.inputs, compiled.inputs, name)
    _same("output", plain.outputs, compiled.outputs, name)
    left = [op for op in compiled.ops if op.name != EDGE_TPU_OP]
    strange = Counter(map(_identity, left)) - Counter(map(_identity, plain.ops))
    if strange:
        kind = next(iter(strange))[0]
        raise BundleError(f"{name}: it is of another model: the {kind} it leaves to the CPU is not in this one")
    if len(left) >= len(plain.ops):
        raise BundleError(f"{name}: it is of another model: it leaves {len(left)} ops to the CPU, this has no more")
    return OpPlacement(len(plain.ops) - len(left), len(left))


def _same(which: str, plain: Sequence[Tensor], compiled: Sequence[Tensor], name: object) -> None:
    if len(plain) != len(compiled):
        raise BundleError(f"{name}: it is of another model: it has {len(compiled)} {which}s, this has {len(plain)}")
    for ours, theirs in zip(plain, compiled, strict=True):
        for aspect in ("shape", "dtype", "scales", "zero_points", "name"):
            expected, found = getattr(ours, aspect), getattr(theirs, aspect)
            if expected != found:
                told = aspect.rstrip("s").replace("_", " ")
                raise BundleError(f"{name}: it is of another model: its {which}'s {told} is {found}, not {expected}")


def _identity(op: Op) -> tuple[Any, ...]:
    """What the compiler leaves as it was in an op for the CPU."""
    constants = tuple(tensor.data for tensor in op.inputs if tensor and tensor.data is not None)
    return op.name, tuple((tensor.name, tensor.shape, tensor.dtype) for tensor in op.outputs), constants


def add_to_bundle(folder: Path, file: bytes, split: OpPlacement, compiler: str | None) -> Card:
    """Write a compiled file into a bundle and name it on its card; returns the new card.

    At whatever point this is interrupted, the bundle opens: first the card lets go of an older compiled file, then the
    new one takes its place, and last the card names it. Raises UsageError when the bundle cannot be written.
    """
    card = open_bundle(folder).card
    sha256 = hashlib.sha256(file).hexdigest()
    if compiler is None and card.edgetpu and card.edgetpu.sha256 == sha256:
        compiler = card.edgetpu.compiler  # the same file again, without its log: what is known stays known
    entry = EdgeTpuFile(sha256, compiler, split.mapped_ops, split.cpu_ops)
    named = msgspec.structs.replace(card, edgetpu=entry)
    try:
        if card.edgetpu and card.edgetpu.sha256 != entry.sha256:
            write_card(folder, msgspec.structs.replace(card, edgetpu=None))
        replace_file(folder / EDGE_TPU_FILE, file)
        write_card(folder, named)
    except OSError as error:
        raise UsageError(
            f"{folder}: cannot be written: {error.strerror}. It still opens, but maybe without its Edge TPU file."
        ) from error
    return open_bundle(folder).card


def write_card(folder: Path, card: Card) -> None:
    """Replace a bundle's card. Raises OSError."""
    replace_file(folder / CARD_FILE, msgspec.json.format(msgspec.json.encode(card)) + b"\n")


def replace_file(file: Path, content: bytes) -> None:
    """Write a file so that a reader, or a machine that goes down, sees the old content or the new. Raises OSError."""
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).chmod(0o644)  # mkstemp's own mode keeps the service's user out
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
