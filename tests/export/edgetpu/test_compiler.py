"""``fer-export compile`` and ``add-tpu``. The compiler is a stand-in: the real one was not available."""

import contextlib
import hashlib
import io
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge.errors import BundleError
from edge.model.bundle import Bundle, find_bundle, open_bundle
from export.cli import main
from export.edgetpu.compiler import CompilationError, Compiler, CompilerMissingError, compile_model
from tests.conftest import ROOT, wait_until
from tests.export.tiny import Net, as_compiled, tiny

VERSION = "16.0.384591198"

Standin = Callable[[str], Path]


@pytest.fixture
def standin(tmp_path: Path) -> Standin:
    """Makes a program that plays one scenario of the compiler."""

    def make(scenario: str) -> Path:
        program = tmp_path / f"standin-{scenario.partition(':')[0]}"
        script = ROOT / "tests" / "export" / "standin_compiler.py"
        program.write_text(
            f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -W ignore "{script}" {scenario} "$@"\n'
        )
        program.chmod(0o755)
        return program

    return make


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(find_bundle("student-small"), tmp_path / "bundle"))


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


def command(*arguments: object) -> Done:
    """The command as typed, in this process, which has loaded everything already."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            exit_code = main([str(argument) for argument in arguments])
        except SystemExit as refused:  # argparse
            exit_code = int(str(refused.code))
    return Done(exit_code, out.getvalue(), err.getvalue())


def files(folder: Path) -> dict[str, str]:
    """What a folder holds, hidden files too."""
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


def test_a_network_that_maps_whole_is_compiled_beside_it(standin: Standin, tmp_path: Path) -> None:
    model = tmp_path / "my net.tflite"
    model.write_bytes(tiny())
    done = command("compile", model, "--out", tmp_path / "made", "--compiler", standin("all"))
    assert done.returncode == 0, done.stderr
    assert f"4 of 4 ops mapped to the Edge TPU by compiler {VERSION}, 0 on the CPU" in done.stdout
    assert "49.75KiB on the chip, 0.00B streamed" in done.stdout
    assert (tmp_path / "made" / "my net_edgetpu.tflite").read_bytes() == as_compiled(tiny())
    assert "Mapped to Edge TPU" in (tmp_path / "made" / "my net_edgetpu.log").read_text()
    assert sorted(files(tmp_path / "made")) == ["my net_edgetpu.log", "my net_edgetpu.tflite"]


def test_without_a_log_the_file_itself_is_counted(standin: Standin) -> None:
    made = compile_model(tiny(), Compiler(str(standin("no-log"))))
    assert (made.placement.mapped_ops, made.placement.cpu_ops) == (4, 0)


def test_an_internal_error_is_tried_once_more(standin: Standin) -> None:
    made = compile_model(tiny(), Compiler(str(standin("internal-error-once"))))
    assert made.placement.mapped_ops == 4
    with pytest.raises(CompilationError, match=r"Internal compiler error.*\n.*it happened twice"):
        compile_model(tiny(), Compiler(str(standin("internal-error"))))


@pytest.mark.parametrize(
    ("scenario", "words"),
    [
        ("left-2", "2 of 4 ops stay on the CPU, 0 are allowed: 1 MEAN: Operation not supported; 1 FULLY_CONNECTED"),
        ("none-mapped", "reports success, but 0 of 4 ops map"),
        ("none-mapped", "1 CONV_2D: Operation is working on an unsupported data type"),
        ("not-quantized", "Model not quantized\nquantize it to int8"),
        ("new-version", "'CONV_2D' version '6'"),
        ("new-version", "older TensorFlow"),
        ("dynamic", "convert with a batch of 1"),
        ("large-activations", "smaller input or fewer channels"),
        ("own-timeout", "--timeout"),
        ("broken-down", "std::out_of_range"),
        ("no-reason", "the compiler gives no reason"),
        ("no-file", "wrote no file"),
        ("silent", "did not report success"),
        (
            "odd-exit-code",
            "exited with code 3:\n  Edge TPU Compiler version 16.0.384591198\n  something that nobody has seen",
        ),
        ("other", "the compiler's output: it is of another model: its input's name is other, not face"),
    ],
)
def test_every_way_to_fail_ends_with_its_reason_and_writes_nothing(
    standin: Standin, tmp_path: Path, scenario: str, words: str
) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "net.tflite").write_bytes(tiny())
    done = command("compile", folder / "net.tflite", "--compiler", standin(scenario))
    assert done.returncode == 13, done.stdout + done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert list(files(folder)) == ["net.tflite"]


def test_ops_on_the_cpu_may_be_allowed(standin: Standin, tmp_path: Path) -> None:
    (tmp_path / "net.tflite").write_bytes(tiny())
    arguments = ("compile", tmp_path / "net.tflite", "--compiler", standin("left-2"), "--allow-cpu-ops")
    assert command(*arguments, 1).returncode == 13
    done = command(*arguments, 2)
    assert done.returncode == 0, done.stderr
    assert "2 of 4 ops mapped" in done.stdout
    assert "`fer-export check` predicted 4 of 4: its rules are wrong for this network" in done.stdout


def test_a_compiler_that_hangs_is_stopped_with_its_children(standin: Standin, tmp_path: Path) -> None:
    note = tmp_path / "child"
    with pytest.raises(CompilationError, match="did not finish within 3 s and was stopped"):
        compile_model(tiny(), Compiler(str(standin(f"hangs:{note}")), timeout=3, grace=0.5))
    child = int(note.read_text())
    wait_until(lambda: not alive(child), 10)


def alive(process: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has asked about yet does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_missing_compiler_is_reported_with_what_to_do(bundle: Path) -> None:
    before = files(bundle)
    done = command("compile", bundle, "--compiler", "edgetpu_compiler_that_is_not_there")
    assert done.returncode == 14
    assert "not found on this machine" in done.stderr
    assert "x86-64 Linux only" in done.stderr
    assert "fer-export add-tpu BUNDLE FILE" in done.stderr
    assert files(bundle) == before


def test_a_program_for_another_machine_is_a_missing_compiler(tmp_path: Path) -> None:
    program = tmp_path / "compiler"
    program.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(57))
    program.chmod(0o755)
    with pytest.raises(CompilerMissingError, match="cannot be run here"):
        compile_model(tiny(), Compiler(str(program)))


def test_what_is_compiled_already_is_not_compiled_again(standin: Standin, tmp_path: Path) -> None:
    (tmp_path / "net.tflite").write_bytes(as_compiled(tiny()))
    done = command("compile", tmp_path / "net.tflite", "--compiler", standin("all"))
    assert (done.returncode, "compiled for the Edge TPU already" in done.stderr) == (2, True)


def test_a_bundle_gets_the_compiled_file_and_its_card_names_it(standin: Standin, bundle: Path) -> None:
    done = command("compile", bundle, "--compiler", standin("all"))
    assert done.returncode == 0, done.stderr
    opened = open_bundle(bundle)
    assert opened.edgetpu_model == as_compiled(opened.model)
    assert opened.card.edgetpu is not None
    assert opened.card.edgetpu.sha256 == hashlib.sha256(as_compiled(opened.model)).hexdigest()
    assert (opened.card.edgetpu.compiler, opened.card.edgetpu.mapped_ops, opened.card.edgetpu.cpu_ops) == (
        VERSION,
        sum(opened.card.ops.values()),
        0,
    )
    shipped = {file.name for file in find_bundle("student-small").iterdir()}
    assert set(files(bundle)) == shipped | {"model_edgetpu.tflite"}
    assert {file.stat().st_mode & 0o777 for file in bundle.iterdir()} == {0o644}


def test_a_bundle_has_no_other_place_for_the_compiled_file(standin: Standin, bundle: Path, tmp_path: Path) -> None:
    done = command("compile", bundle, "--out", tmp_path / "out", "--compiler", standin("all"))
    assert (done.returncode, "goes into the bundle" in done.stderr) == (2, True)


def plain(bundle: Path) -> Bundle:
    return open_bundle(bundle)


def add(bundle: Path, content: bytes, *arguments: object, log: str | None = None) -> Done:
    file = bundle.parent / "brought_edgetpu.tflite"
    file.write_bytes(content)
    if log is not None:
        file.with_suffix(".log").write_text(log)
    return command("add-tpu", bundle, file, *arguments)


def log_of(bundle: Path, standin: Standin, scenario: str = "all") -> str:
    return compile_model(plain(bundle).model, Compiler(str(standin(scenario))), 99).log


def test_a_file_compiled_elsewhere_is_added_and_the_checks_are_reported(bundle: Path) -> None:
    done = add(bundle, as_compiled(plain(bundle).model))
    assert done.returncode == 0, done.stderr
    ops = sum(plain(bundle).card.ops.values())
    assert f"{ops} ops on the Edge TPU, 0 on the CPU; input and output agree" in done.stdout
    assert "compiler unknown" in done.stdout
    assert "weights in brought_edgetpu.tflite cannot be read" in done.stdout
    card = plain(bundle).card
    assert card.edgetpu is not None
    assert card.edgetpu.compiler is None
    before = json.loads((find_bundle("student-small") / "card.json").read_text())
    assert {**json.loads((bundle / "card.json").read_text()), "edgetpu": None} == {**before, "edgetpu": None}


def test_the_log_beside_it_is_read(bundle: Path, standin: Standin) -> None:
    done = add(bundle, as_compiled(plain(bundle).model), log=log_of(bundle, standin))
    assert done.returncode == 0, done.stderr
    assert f"input, output and log agree with model.tflite; compiler {VERSION}" in done.stdout
    card = plain(bundle).card
    assert card.edgetpu is not None
    assert card.edgetpu.compiler == VERSION
    again = bundle / "model_edgetpu.tflite"  # has no log beside it
    assert command("add-tpu", bundle, again).returncode == 0
    assert plain(bundle).card == card


def test_a_log_of_another_model_or_another_run_is_refused(bundle: Path, standin: Standin) -> None:
    compiled = as_compiled(plain(bundle).model)
    done = add(bundle, compiled, log=compile_model(tiny(), Compiler(str(standin("all")))).log)
    assert (done.returncode, "its log is of another model: it lists 1 CONV_2D" in done.stderr) == (4, True), done.stderr
    done = add(bundle, compiled, log=log_of(bundle, standin, "left-2"))
    assert (done.returncode, "they are of different runs" in done.stderr) == (4, True), done.stderr


def rename(which: str) -> Callable[[Net], None]:
    def edit(net: Net) -> None:
        number = (net.main.inputs if which == "input" else net.main.outputs)[0]
        net.main.tensors[number].name = "another"

    return edit


def requantize(net: Net) -> None:
    quantization = net.main.tensors[net.main.outputs[0]].quantization
    quantization.scale = quantization.scale * 1.0001


def twice(net: Net) -> None:
    net.main.operators.append(net.main.operators[0])


def emptied(net: Net) -> None:
    net.main.operators[0].customOptions = None


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda model: model, "not compiled for the Edge TPU"),
        (lambda _: as_compiled(tiny()), "of another model: its input's shape is (1, 8, 8, 1), not (1, 48, 48, 1)"),
        (lambda model: as_compiled(model, edit=rename("input")), "its input's name is another"),
        (lambda model: as_compiled(model, edit=rename("output")), "its output's name is another"),
        (lambda model: as_compiled(model, edit=requantize), "its output's scale is"),
        (lambda model: as_compiled(model, edit=twice), "has 2 parts for the Edge TPU"),
        (lambda model: as_compiled(model, edit=emptied), "holds no program"),
        (lambda model: as_compiled(model, left=2), "2 ops run on the CPU, 0 are allowed"),
        (lambda _: b"TFL3?", "not a TFLite file"),
    ],
)
def test_what_is_not_this_models_compiled_file_is_refused(
    bundle: Path, make: Callable[[bytes], bytes], words: str
) -> None:
    before = files(bundle)
    done = add(bundle, make(plain(bundle).model))
    assert (done.returncode, words in done.stderr) == (4, True), done.stderr
    assert files(bundle) == before


def test_ops_left_to_the_cpu_must_be_this_models(bundle: Path) -> None:
    model = plain(bundle).model
    done = add(bundle, as_compiled(model, left=2), "--allow-cpu-ops", 2)
    assert done.returncode == 0, done.stderr
    assert f"{sum(plain(bundle).card.ops.values()) - 2} ops on the Edge TPU, 2 on the CPU" in done.stdout

    def other_weights(net: Net) -> None:
        weights = net.main.tensors[net.main.operators[-1].inputs[1]]
        content = net.model.buffers[weights.buffer].data.copy()
        content[0] ^= 1
        net.model.buffers[weights.buffer].data = content

    done = add(bundle, as_compiled(model, left=2, edit=other_weights), "--allow-cpu-ops", 2)
    assert (done.returncode, "its FULLY_CONNECTED on the CPU is not in this one" in done.stderr) == (4, True)


def test_a_damaged_or_missing_compiled_file_stops_the_device(bundle: Path) -> None:
    add(bundle, as_compiled(plain(bundle).model))
    file = bundle / "model_edgetpu.tflite"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(BundleError, match=r"model_edgetpu\.tflite: its sha256"):
        open_bundle(bundle)
    file.unlink()
    with pytest.raises(BundleError, match=r"model_edgetpu\.tflite: cannot be read"):
        open_bundle(bundle)


def test_adding_again_replaces_and_a_file_that_no_card_names_is_left_alone(bundle: Path) -> None:
    model = plain(bundle).model
    assert add(bundle, as_compiled(model, left=1), "--allow-cpu-ops", 1).returncode == 0
    assert add(bundle, as_compiled(model)).returncode == 0
    assert plain(bundle).edgetpu_model == as_compiled(model)
    shutil.copy(find_bundle("student-small") / "card.json", bundle / "card.json")
    opened = open_bundle(bundle)
    assert (opened.card.edgetpu, opened.edgetpu_model) == (None, None)


def test_a_disk_that_cannot_be_written_leaves_the_bundle_as_it_was(bundle: Path) -> None:
    """The compiled file's place is taken by a folder, which no file can replace, for root neither."""
    (bundle / "model_edgetpu.tflite").mkdir()
    (bundle / "model_edgetpu.tflite" / "in-the-way").touch()
    card = (bundle / "card.json").read_bytes()
    done = add(bundle, as_compiled(plain(bundle).model))
    assert (done.returncode, "cannot be written" in done.stderr) == (2, True), done.stderr
    assert (bundle / "card.json").read_bytes() == card
    shipped = {file.name for file in find_bundle("student-small").iterdir()}
    assert {file.name for file in bundle.iterdir()} == shipped | {"model_edgetpu.tflite"}
    assert open_bundle(bundle).edgetpu_model is None


@pytest.mark.parametrize("value", ["-1", "many"])
def test_a_number_of_ops_is_a_number(value: str) -> None:
    done = command("compile", "net.tflite", "--allow-cpu-ops", value)
    assert (done.returncode, "--allow-cpu-ops" in done.stderr) == (2, True)
