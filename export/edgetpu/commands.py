"""The commands around the Edge TPU: ``fer-export check``, ``compile`` and ``add-tpu``."""

import hashlib
import json
from argparse import Namespace
from collections import Counter
from pathlib import Path
from typing import Final

import msgspec

from edge.errors import BundleError, UsageError
from edge.model.bundle import CARD_FILE, EDGE_TPU_FILE, MODEL_FILE, Bundle, find_bundle, open_bundle
from export.edgetpu.compiled import OpPlacement, add_to_bundle, match_compiled, replace_file
from export.edgetpu.compiler import Compilation, Compiler, CompilerLog, compile_model, read_log
from export.edgetpu.predict import ON_CHIP_BYTES, Prediction, format_prediction, predict_mapping
from export.tflite_graph import Graph, read_file, read_graph

NOT_MAPPED: Final = 12
"""Exit code of ``check`` when not every op is predicted to map."""


def check_command(arguments: Namespace) -> int:
    """Carry out ``fer-export check``: predict op by op what maps to the Edge TPU."""
    path = _model_file(arguments.model)
    file = read_file(path)
    prediction = predict_mapping(read_graph(file, path))
    print(
        json.dumps(prediction_json(prediction, path, file)) if arguments.json else format_prediction(prediction, path)
    )
    return 0 if prediction.all_mapped else NOT_MAPPED


def prediction_json(prediction: Prediction, path: Path, file: bytes) -> dict[str, object]:
    """What ``fer-export check --json`` prints; docs/edge-tpu.md explains every key."""
    return {
        "schema_version": 1,
        "predicted": True,
        "model": str(path),
        "sha256": hashlib.sha256(file).hexdigest(),
        "all_mapped": prediction.all_mapped,
        "parameter_limit_bytes": ON_CHIP_BYTES,
        **msgspec.to_builtins(prediction),
    }


def compile_command(arguments: Namespace) -> int:
    """Carry out ``fer-export compile`` for a model file, or for a bundle, which then gets the compiled file."""
    compiler = Compiler(arguments.compiler, arguments.timeout)
    if not _is_bundle(arguments.model):
        return _compile_file(arguments, compiler)
    if arguments.out:
        raise UsageError("--out is for a MODEL.tflite; the compiled file of a bundle goes into the bundle")
    bundle = open_bundle(arguments.model)
    made = compile_model(bundle.model, compiler, arguments.allow_cpu_ops)
    add_to_bundle(bundle.folder, made.file, made.split, made.version)
    print(_told(made, bundle.folder / EDGE_TPU_FILE, predict_mapping(read_graph(bundle.model, bundle.folder))))
    return 0


def _compile_file(arguments: Namespace, compiler: Compiler) -> int:
    file = read_file(arguments.model)
    graph = read_graph(file, arguments.model)
    out = arguments.out or arguments.model.parent
    made = compile_model(file, compiler, arguments.allow_cpu_ops)
    written = out / f"{arguments.model.stem}_edgetpu.tflite"
    try:
        out.mkdir(parents=True, exist_ok=True)
        replace_file(written, made.file)
        replace_file(written.with_suffix(".log"), made.log.encode())
    except OSError as error:
        raise UsageError(f"{out}: cannot be written: {error.strerror}") from error
    print(_told(made, written, predict_mapping(graph)))
    return 0


def _told(made: Compilation, written: Path, prediction: Prediction) -> str:
    split = made.split
    total = split.mapped_ops + split.cpu_ops
    lines = [
        f"{written}: {split.mapped_ops} of {total} ops mapped to the Edge TPU by compiler {made.version or '?'}, "
        f"{split.cpu_ops} on the CPU; parameters: {made.on_chip or '?'} on the chip, {made.streamed or '?'} streamed"
    ]
    if prediction.mapped_ops != split.mapped_ops:
        lines.append(f"`fer-export check` had predicted {prediction.mapped_ops} of {total}: its rules are wrong here")
    return "\n".join(lines)


def add_tpu_command(arguments: Namespace) -> int:
    """Carry out ``fer-export add-tpu``: put a file that was compiled elsewhere into its bundle."""
    bundle = open_bundle(arguments.bundle)
    file = read_file(arguments.file)
    plain = read_graph(bundle.model, bundle.folder / MODEL_FILE)
    split = match_compiled(plain, read_graph(file, arguments.file), arguments.file)
    if split.cpu_ops > arguments.allow_cpu_ops:
        raise BundleError(
            f"{arguments.file}: leaves {split.cpu_ops} ops to the CPU, {arguments.allow_cpu_ops} are allowed. Give "
            f"--allow-cpu-ops {split.cpu_ops}, or change the network: `fer-export check` says what."
        )
    log = _log(arguments.log, arguments.file)
    if log:
        _agree(log, plain, split, arguments.file)
    add_to_bundle(bundle.folder, file, split, log.version if log else None)
    print(_added(bundle, arguments.file, split, log))
    return 0


def _log(given: Path | None, file: Path) -> CompilerLog | None:
    """The compiler's log: the one that was given, or the one that it wrote beside its output."""
    beside = file.with_suffix(".log")
    path = given or (beside if beside.is_file() else None)
    return read_log(read_file(path).decode(errors="replace")) if path else None


def _agree(log: CompilerLog, plain: Graph, split: OpPlacement, file: Path) -> None:
    """The log must be of this model and of this file. Raises BundleError."""
    expected = Counter(op.name for op in plain.ops)
    if log.kinds != expected:
        told = [f"{count} {kind}" for kind, count in sorted(log.kinds.items())]
        raise BundleError(
            f"{file}: its log is of another model: it has {', '.join(told) or 'no format_prediction of ops'}. "
            "Give the right one with --log, or take the wrong one away."
        )
    if log.cpu_ops != split.cpu_ops:
        raise BundleError(
            f"{file}: its log leaves {log.cpu_ops} ops to the CPU, the file {split.cpu_ops}: they are not of one run"
        )


def _added(bundle: Bundle, file: Path, split: OpPlacement, log: CompilerLog | None) -> str:
    agreed = "input, output and log" if log else "input and output"
    version = log.version if log and log.version else "not known"
    return (
        f"{bundle.folder / EDGE_TPU_FILE}: {split.mapped_ops} ops on the Edge TPU, {split.cpu_ops} on the CPU; "
        f"{agreed} agree with {MODEL_FILE}; compiler {version}.\n"
        f"The weights inside {file.name} cannot be read: whether they are this model's, the golden outputs show on a "
        "device with an Edge TPU."
    )


def _model_file(given: Path) -> Path:
    """The .tflite file that is given, or that of a bundle, which a bundled name is enough for."""
    if _is_bundle(given):
        return given / MODEL_FILE
    return given if given.exists() or given.suffix else find_bundle(str(given)) / MODEL_FILE


def _is_bundle(path: Path) -> bool:
    if path.is_dir() and not (path / CARD_FILE).is_file():
        raise UsageError(f"{path}: a folder without a {CARD_FILE}; give a bundle's folder or a .tflite file")
    return path.is_dir()
