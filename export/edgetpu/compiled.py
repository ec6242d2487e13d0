"""Check that a compiled Edge TPU file belongs to a given model, and add it to a bundle.

The format of the weights inside the compiled op is not published. So everything else that the compiler leaves readable
is compared. That distinguishes all models except those with the same graph, tensor names, and quantization of input and
output. Only the bundle's golden outputs, on a device with an Edge TPU, can show that the weights are the same.
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

_PACKAGE_IDENTIFIER: Final = b"DWN1"
"""Identifier of the program package inside a compiled op (libedgetpu, executable/executable.fbs)."""


@dataclass(frozen=True)
class OpPlacement:
    """The number of ops of the uncompiled model that run on the Edge TPU and on the CPU."""

    mapped_ops: int
    cpu_ops: int


def match_compiled(plain: Graph, compiled: Graph, name: object) -> OpPlacement:
    """Check that the compiler can have made ``compiled`` from ``plain``; ``name`` is for messages.

    Raises BundleError when it is not compiled, or differs in its inputs, outputs or the ops on the CPU.
    """
    packed = [op for op in compiled.ops if op.name == EDGE_TPU_OP]
    if not packed:
        raise BundleError(
            f"{name}: not compiled for the Edge TPU (it has no {EDGE_TPU_OP}). Run edgetpu_compiler first."
        )
    if len(packed) > 1:
        raise BundleError(f"{name}: has {len(packed)} parts for the Edge TPU, not one. Compile it without -a.")
    if _PACKAGE_IDENTIFIER not in packed[0].custom:
        raise BundleError(f"{name}: its {EDGE_TPU_OP} holds no program for the Edge TPU. Compile it again.")
    _check_same("input", plain.inputs, compiled.inputs, name)
    _check_same("output", plain.outputs, compiled.outputs, name)
    cpu_ops = [op for op in compiled.ops if op.name != EDGE_TPU_OP]
    unknown = Counter(map(_identity, cpu_ops)) - Counter(map(_identity, plain.ops))
    if unknown:
        kind = next(iter(unknown))[0]
        raise BundleError(f"{name}: it is of another model: its {kind} on the CPU is not in this one")
    if len(cpu_ops) >= len(plain.ops):
        raise BundleError(
            f"{name}: it is of another model: it has {len(cpu_ops)} ops on the CPU, this one only {len(plain.ops)}"
        )
    return OpPlacement(len(plain.ops) - len(cpu_ops), len(cpu_ops))


def _check_same(which: str, plain: Sequence[Tensor], compiled: Sequence[Tensor], name: object) -> None:
    if len(plain) != len(compiled):
        raise BundleError(f"{name}: it is of another model: it has {len(compiled)} {which}s, this has {len(plain)}")
    for ours, theirs in zip(plain, compiled, strict=True):
        for aspect in ("shape", "dtype", "scales", "zero_points", "name"):
            expected, found = getattr(ours, aspect), getattr(theirs, aspect)
            if expected != found:
                readable = aspect.rstrip("s").replace("_", " ")
                raise BundleError(
                    f"{name}: it is of another model: its {which}'s {readable} is {found}, not {expected}"
                )


def _identity(op: Op) -> tuple[Any, ...]:
    """The parts of an op on the CPU that the compiler does not change."""
    constants = tuple(tensor.data for tensor in op.inputs if tensor and tensor.data is not None)
    return op.name, tuple((tensor.name, tensor.shape, tensor.dtype) for tensor in op.outputs), constants


def add_to_bundle(folder: Path, file: bytes, placement: OpPlacement, compiler: str | None) -> Card:
    """Write a compiled file into a bundle and add it to its card; returns the new card.

    The bundle can be opened after an interruption at any point: first an older compiled file is removed from the card,
    then the file is replaced, and last it is added to the card. Raises UsageError when the bundle cannot be written.
    """
    card = open_bundle(folder).card
    sha256 = hashlib.sha256(file).hexdigest()
    if compiler is None and card.edgetpu and card.edgetpu.sha256 == sha256:
        compiler = card.edgetpu.compiler  # the same file without its log: keep the known version
    entry = EdgeTpuFile(sha256, compiler, placement.mapped_ops, placement.cpu_ops)
    named = msgspec.structs.replace(card, edgetpu=entry)
    try:
        if card.edgetpu and card.edgetpu.sha256 != entry.sha256:
            write_card(folder, msgspec.structs.replace(card, edgetpu=None))
        replace_file(folder / EDGE_TPU_FILE, file)
        write_card(folder, named)
    except OSError as error:
        raise UsageError(
            f"{folder}: cannot be written: {error.strerror}. It still opens, but perhaps without its Edge TPU file."
        ) from error
    return open_bundle(folder).card


def write_card(folder: Path, card: Card) -> None:
    """Replace a bundle's card. Raises OSError."""
    replace_file(folder / CARD_FILE, msgspec.json.format(msgspec.json.encode(card)) + b"\n")


def replace_file(file: Path, content: bytes) -> None:
    """Replace a file atomically, also if the machine loses power meanwhile. Raises OSError."""
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).chmod(0o644)  # with mkstemp's mode the service's user could not read it
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
