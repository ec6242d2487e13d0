"""Run Coral's ``edgetpu_compiler`` and believe it only as far as its exit code, its words, its log and its file agree.

It reports success with nothing mapped, and is believed to exit with 0 when much of a network stays on the CPU. What it
prints is taken from version 16 in google-coral/edgetpu's issues; this was not run against the program itself.
"""

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge.errors import BundleError, FerEdgeError, UsageError
from export.edgetpu.compiled import OpPlacement, match_compiled
from export.edgetpu.rules import OpStatus
from export.tflite_graph import EDGE_TPU_OP, Graph, read_graph

_INTERNAL: Final = "Internal compiler error"
_SUCCESS: Final = re.compile(r"^Models? compiled successfully in", re.MULTILINE)
_VERSION: Final = re.compile(r"^Edge TPU Compiler version (\S+)", re.MULTILINE)
_ROW: Final = re.compile(r"^([A-Z][A-Z0-9_]*)\s+(\d+)\s+(\S.*?)\s*$", re.MULTILINE)
_MAPPED: Final = re.compile(r"^Number of operations that will run on Edge TPU: (\d+)", re.MULTILINE)
_ON_CPU: Final = re.compile(r"^Number of operations that will run on CPU: (\d+)", re.MULTILINE)
_CACHED: Final = re.compile(r"^On-chip memory used for caching model parameters: (\S+)", re.MULTILINE)
_STREAMED: Final = re.compile(r"^Off-chip memory used for streaming uncached model parameters: (\S+)", re.MULTILINE)
_EXCERPT_LINES: Final = 6

FAILURES: Final = {
    "Model not quantized": "quantize it to int8, input and output too; `fer-export check` names the float tensors",
    "Didn't find op for builtin opcode": "the compiler of 2021 does not know so new a version of that op: convert with "
    "other settings or an older TensorFlow; `fer-export check` names the op",
    "only supports static-sized tensors": "fix every size: convert with a batch of 1, not None",
    "large activation tensors": "what passes between layers does not fit the chip: smaller input or fewer channels",
    "Compilation timeout": "give it longer with --timeout; large activations are the usual cause",
    "Model failed in Tflite interpreter": "the file does not run in TFLite either: convert it again",
    "Model could not be parsed": "the file is damaged, or newer than the compiler of 2021 can read",
    "Invalid model": "the compiler cannot read the file: convert it again, and look at `fer-export check`",
    "Error opening file for writing": "the compiler could not write where temporary files go: look for space in TMPDIR",
    "terminating with uncaught exception": "the compiler broke down over this network: simplify the op that "
    "`fer-export check` warns of, or convert with other settings",
    _INTERNAL: "it came twice, so it is no passing one: simplify the network, or convert with other settings",
    "Compilation failed": "the compiler gives no reason: look at `fer-export check`",
}
"""Every text by which the compiler is known to fail, with what to do; the first that is found is told."""


class CompilationError(FerEdgeError):
    """The Edge TPU compiler failed, or mapped less of the network than was asked for."""

    exit_code = 13


class CompilerMissingError(FerEdgeError):
    """There is no Edge TPU compiler that runs on this machine."""

    exit_code = 14


@dataclass(frozen=True)
class CompilerLogRow:
    """A line of the compiler's table of ops: so many ops of one kind have one status."""

    op: str
    count: int
    status: str


@dataclass(frozen=True)
class CompilerLog:
    """The compiler's log: its version, and what became of which ops."""

    version: str | None
    rows: tuple[CompilerLogRow, ...]

    @property
    def kinds(self) -> Counter[str]:
        """Number of ops by kind."""
        counts: Counter[str] = Counter()
        for row in self.rows:
            counts[row.op] += row.count
        return counts

    @property
    def cpu_ops(self) -> int:
        """Number of ops that did not map."""
        return sum(row.count for row in self.rows if row.status != OpStatus.MAPPED)

    def unmapped(self) -> str:
        """The ops that did not map, in words."""
        told = [f"{row.count} {row.op}: {row.status}" for row in self.rows if row.status != OpStatus.MAPPED]
        return "; ".join(told) or "the log does not say which"


@dataclass(frozen=True)
class Compilation:
    """A compiled file, the log as the compiler wrote it, and what it said.

    ``on_chip`` and ``streamed`` are sizes of parameters in the compiler's own writing, such as ``1.05MiB``.
    """

    file: bytes
    log: str
    version: str | None
    split: OpPlacement
    on_chip: str | None
    streamed: str | None


@dataclass(frozen=True)
class Compiler:
    """How to run it: its name or path, the seconds it gets, the seconds after those until it is ended by force."""

    path: str = "edgetpu_compiler"
    timeout: int = 180
    grace: float = 15.0


def read_log(text: str) -> CompilerLog:
    """Read a log, or what the compiler prints with ``-s``, which has the same table."""
    version = _VERSION.search(text)
    rows = (CompilerLogRow(op, int(count), status) for op, count, status in _ROW.findall(text))
    return CompilerLog(version.group(1) if version else None, tuple(rows))


def compile_model(model: bytes, compiler: Compiler, allow_cpu_ops: int = 0) -> Compilation:
    """Compile an int8 network for the Edge TPU.

    The lowest runtime version, ``-m``, is never given: below 12 it maps nothing of an int8 network. An internal error,
    which sometimes passes, is tried once more. Raises CompilerMissingError when there is no compiler, CompilationError
    saying what failed and what to do, UsageError when the model is compiled already, BundleError when it is damaged.
    """
    graph = read_graph(model, "the model")
    if any(op.name == EDGE_TPU_OP for op in graph.ops):
        raise UsageError("the model is compiled for the Edge TPU already. Give the file it was made from.")
    program = shutil.which(compiler.path)
    if program is None:
        raise CompilerMissingError(
            f"{compiler.path}: no such program here. Coral's compiler runs on x86-64 Linux only (coral.ai/docs/edgetpu/"
            "compiler tells how to install it). Compile the bundle's model.tflite on such a machine, and bring the "
            "file back: fer-export add-tpu BUNDLE FILE. The bundle works without it, on the CPU."
        )
    with tempfile.TemporaryDirectory(prefix="fer-edge-compile-") as scratch:
        source = Path(scratch) / "model.tflite"  # a plain name, whatever the user's file is called
        source.write_bytes(model)
        exit_code, said = _run(program, source, compiler)
        if _INTERNAL in said:
            exit_code, said = _run(program, source, compiler)
        return _judge(exit_code, said, source, graph, allow_cpu_ops)


def _run(program: str, source: Path, compiler: Compiler) -> tuple[int, str]:
    """Exit code and output. The compiler works in a child process, so its whole process group is ended with it."""
    for made in _products(source):
        made.unlink(missing_ok=True)  # what an earlier try left must not pass for this one's
    command = [program, "-s", "-t", str(compiler.timeout), "-o", str(source.parent), str(source)]
    try:
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as process:
            try:
                said, _ = process.communicate(timeout=compiler.timeout + compiler.grace)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
    except subprocess.TimeoutExpired:
        raise CompilationError(
            f"{program} did not end within {compiler.timeout} s and was stopped: {FAILURES['Compilation timeout']}"
        ) from None
    except OSError as error:
        raise CompilerMissingError(
            f"{program} cannot be run here: {error.strerror}. Coral's compiler runs on x86-64 Linux only."
        ) from error
    return process.returncode, said


def _products(source: Path) -> tuple[Path, Path]:
    return source.with_name(f"{source.stem}_edgetpu.tflite"), source.with_name(f"{source.stem}_edgetpu.log")


def _judge(exit_code: int, said: str, source: Path, graph: Graph, allow_cpu_ops: int) -> Compilation:
    """Take the result only when nothing speaks against it. Raises CompilationError."""
    for text, hint in FAILURES.items():
        if text in said:
            raise CompilationError(f"the compiler says: {_line(said, text)}\n{hint}")
    if exit_code:
        raise CompilationError(f"the compiler ended with exit code {exit_code}:\n{_excerpt(said)}")
    if not _SUCCESS.search(said):
        raise CompilationError(f"the compiler does not say that it compiled the model:\n{_excerpt(said)}")
    made, log_file = _products(source)
    if not made.is_file():
        raise CompilationError(f"the compiler says that it succeeded, but wrote no file:\n{_excerpt(said)}")
    file = made.read_bytes()
    log_text = log_file.read_text(errors="replace") if log_file.is_file() else said
    log = read_log(log_text)
    compiled = read_graph(file, "the compiler's output")
    if not any(op.name == EDGE_TPU_OP for op in compiled.ops) or _count(_MAPPED, said) == 0:
        raise CompilationError(
            f"the compiler reports success, but 0 of {len(graph.ops)} ops map to the Edge TPU: {log.unmapped()}. "
            "`fer-export check` says more."
        )
    try:
        split = match_compiled(graph, compiled, "the compiler's output")
    except BundleError as error:
        raise CompilationError(str(error)) from error
    # The compiler's own numbers do not always add up; the worst of the three counts.
    cpu_ops = max(split.cpu_ops, _count(_ON_CPU, said) or 0, log.cpu_ops)
    if cpu_ops > allow_cpu_ops:
        raise CompilationError(
            f"{cpu_ops} of {len(graph.ops)} ops stay on the CPU, {allow_cpu_ops} are allowed: {log.unmapped()}. "
            f"Change the network (`fer-export check` says what), or give --allow-cpu-ops {cpu_ops}."
        )
    version = _VERSION.search(said)
    return Compilation(
        file=file,
        log=log_text,
        version=version.group(1) if version else log.version,
        split=OpPlacement(len(graph.ops) - cpu_ops, cpu_ops),
        on_chip=_size(_CACHED, said),
        streamed=_size(_STREAMED, said),
    )


def _count(pattern: re.Pattern[str], said: str) -> int | None:
    found = pattern.search(said)
    return int(found.group(1)) if found else None


def _size(pattern: re.Pattern[str], said: str) -> str | None:
    found = pattern.search(said)
    return found.group(1) if found else None


def _line(said: str, text: str) -> str:
    return next(line.strip() for line in said.splitlines() if text in line)


def _excerpt(said: str) -> str:
    lines = [line for line in said.splitlines() if line.strip()]
    return "\n".join(f"  {line}" for line in lines[-_EXCERPT_LINES:]) or "  (it printed nothing)"
