"""The Edge TPU commands: ``fer-export check``, ``compile`` and ``add-tpu``."""

import hashlib
import json
from argparse import Namespace
from collections import Counter
from pathlib import Path
from typing import Final

import msgspec

from edge.errors import BundleError, UsageError
from edge.model.bundle import CARD_FILE, EDGE_TPU_FILE, MODEL_FILE, Bundle, bundled, find_bundle, open_bundle
from export.edgetpu.compiled import OpPlacement, add_to_bundle, match_compiled, replace_file
from export.edgetpu.compiler import Compilation, Compiler, CompilerLog, compile_model, read_log
from export.edgetpu.predict import ON_CHIP_BYTES, Prediction, format_prediction, predict_mapping
from export.tflite_graph import Graph, read_file, read_graph

NOT_MAPPED: Final = 12
"""Exit code of ``fer-export check`` when not every op is predicted to map."""


def check_command(arguments: Namespace) -> int:
    """``fer-export check``: predict which ops map to the Edge TPU; returns the exit code."""
    path = _model_file(arguments.model)
    file = read_file(path)
    prediction = predict_mapping(read_graph(file, path))
    print(
        json.dumps(prediction_json(prediction, path, file)) if arguments.json else format_prediction(prediction, path)
    )
    return 0 if prediction.all_mapped else NOT_MAPPED


def prediction_json(prediction: Prediction, path: Path, file: bytes) -> dict[str, object]:
    """The prediction as ``fer-export check --json`` prints it; docs/edge-tpu.md describes every key."""
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
    """``fer-export compile``: compile a model file, or compile a bundle's model and add the file to the bundle."""
    compiler = Compiler(arguments.compiler, arguments.timeout)
    if not _is_bundle(arguments.model):
        return _compile_file(arguments, compiler)
    if arguments.out:
        raise UsageError("--out is for a MODEL.tflite; the compiled file of a bundle goes into the bundle")
    bundle = open_bundle(arguments.model)
    compilation = compile_model(bundle.model, compiler, arguments.allow_cpu_ops)
    add_to_bundle(bundle.folder, compilation.file, compilation.placement, compilation.version)
    print(
        _format_compilation(
            compilation, bundle.folder / EDGE_TPU_FILE, predict_mapping(read_graph(bundle.model, bundle.folder))
        )
    )
    return 0


def _compile_file(arguments: Namespace, compiler: Compiler) -> int:
    file = read_file(arguments.model)
    graph = read_graph(file, arguments.model)
    out = arguments.out or arguments.model.parent
    compilation = compile_model(file, compiler, arguments.allow_cpu_ops)
    written = out / f"{arguments.model.stem}_edgetpu.tflite"
    try:
        out.mkdir(parents=True, exist_ok=True)
        replace_file(written, compilation.file)
        replace_file(written.with_suffix(".log"), compilation.log.encode())
    except OSError as error:
        raise UsageError(f"{out}: cannot be written: {error.strerror}") from error
    print(_format_compilation(compilation, written, predict_mapping(graph)))
    return 0


def _format_compilation(compilation: Compilation, written: Path, prediction: Prediction) -> str:
    placement = compilation.placement
    total = placement.mapped_ops + placement.cpu_ops
    lines = [
        f"{written}: {placement.mapped_ops} of {total} ops mapped to the Edge TPU by compiler "
        f"{compilation.version or '?'}, {placement.cpu_ops} on the CPU; parameters: {compilation.on_chip or '?'} on "
        f"the chip, {compilation.streamed or '?'} streamed"
    ]
    if prediction.mapped_ops != placement.mapped_ops:
        lines.append(
            f"`fer-export check` predicted {prediction.mapped_ops} of {total}: its rules are wrong for this network"
        )
    return "\n".join(lines)


def add_tpu_command(arguments: Namespace) -> int:
    """``fer-export add-tpu``: add a file that was compiled on another machine to its bundle."""
    bundle = open_bundle(arguments.bundle)
    file = read_file(arguments.file)
    plain = read_graph(bundle.model, bundle.folder / MODEL_FILE)
    placement = match_compiled(plain, read_graph(file, arguments.file), arguments.file)
    if placement.cpu_ops > arguments.allow_cpu_ops:
        raise BundleError(
            f"{arguments.file}: {placement.cpu_ops} ops run on the CPU, {arguments.allow_cpu_ops} are allowed. Give "
            f"--allow-cpu-ops {placement.cpu_ops}, or change the network: `fer-export check` says which ops."
        )
    log = _find_log(arguments.log, arguments.file)
    if log:
        _check_log(log, plain, placement, arguments.file)
    add_to_bundle(bundle.folder, file, placement, log.version if log else None)
    print(_format_added(bundle, arguments.file, placement, log))
    return 0


def _find_log(given: Path | None, file: Path) -> CompilerLog | None:
    """The compiler's log: the given file, or the one that the compiler wrote beside its output; None without."""
    beside = file.with_suffix(".log")
    path = given or (beside if beside.is_file() else None)
    return read_log(read_file(path).decode(errors="replace")) if path else None


def _check_log(log: CompilerLog, plain: Graph, placement: OpPlacement, file: Path) -> None:
    """Raise BundleError unless the log is of this model and of this file."""
    expected = Counter(op.name for op in plain.ops)
    if log.kinds != expected:
        found = [f"{count} {kind}" for kind, count in sorted(log.kinds.items())]
        raise BundleError(
            f"{file}: its log is of another model: it lists {', '.join(found) or 'no ops'}. "
            "Give the right one with --log, or remove the wrong one."
        )
    if log.cpu_ops != placement.cpu_ops:
        raise BundleError(
            f"{file}: its log has {log.cpu_ops} ops on the CPU, the file {placement.cpu_ops}: they are of "
            "different runs. Give the right log with --log."
        )


def _format_added(bundle: Bundle, file: Path, placement: OpPlacement, log: CompilerLog | None) -> str:
    agreed = "input, output and log" if log else "input and output"
    version = log.version if log and log.version else "unknown"
    return (
        f"{bundle.folder / EDGE_TPU_FILE}: {placement.mapped_ops} ops on the Edge TPU, {placement.cpu_ops} on the CPU; "
        f"{agreed} agree with {MODEL_FILE}; compiler {version}.\n"
        f"The weights in {file.name} cannot be read. To check them, run `fer-edge verify` on a device with an Edge "
        "TPU: it compares the golden outputs."
    )


def _model_file(given: Path) -> Path:
    """The given .tflite file, or that of a bundle, given by its folder or by the name of a bundled model."""
    if str(given) in bundled():
        return find_bundle(str(given)) / MODEL_FILE
    if _is_bundle(given):
        return given / MODEL_FILE
    return given if given.exists() or given.suffix else find_bundle(str(given)) / MODEL_FILE


def _is_bundle(path: Path) -> bool:
    if path.is_dir() and not (path / CARD_FILE).is_file():
        raise UsageError(f"{path}: a folder without a {CARD_FILE}; give a bundle's folder or a .tflite file")
    return path.is_dir()
