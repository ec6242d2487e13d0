"""Checks of the Edge TPU, with a stand-in for its library."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from edge.diagnostics.edgetpu_checks import CoralPaths, check_edgetpu, find_edge_tpus
from edge.diagnostics.probe_runner import run_probe
from edge.settings import ModelSettings
from tests.conftest import StandIn, build_library
from tests.edge.diagnostics.findings import PYTHON, level_of


def usb_devices(folder: Path, ids: str) -> Path:
    """A folder like the kernel's of USB devices, with a hub and this device."""
    for name, found in (("usb1", "1d6b:0002"), ("1-1", ids)):
        (folder / name).mkdir(parents=True)
        vendor, product = found.split(":")
        (folder / name / "idVendor").write_text(f"{vendor}\n")
        (folder / name / "idProduct").write_text(f"{product}\n")
    return folder


def test_edge_tpus_are_found_on_usb_and_pcie(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "apex_0").touch()
    for ids, words in (("1a6e:089a", "not used since"), ("18d1:9302", "used before")):
        [usb, pcie] = find_edge_tpus(CoralPaths(usb_devices(tmp_path / ids, ids), tmp_path / "dev"))
        assert ids in usb
        assert words in usb
        assert pcie.startswith("PCIe ")
    assert find_edge_tpus(CoralPaths(tmp_path / "none", tmp_path / "none")) == []


def coral_paths(folder: Path, *, usb: bool) -> CoralPaths:
    return CoralPaths(
        usb_devices(folder / "usb", "18d1:9302" if usb else "0781:5581"), folder / "no-dev", ("echo", "-n")
    )


NO_LIBRARY = "libno-such-edgetpu.so.1"


@pytest.mark.parametrize(
    ("accelerator", "usb", "levels"),
    [
        ("cpu", True, ["ok"]),
        ("auto", False, ["ok"]),
        ("auto", True, ["ok", "warn", "warn"]),
        ("edgetpu", False, ["fail", "fail", "fail"]),
    ],
)
def test_a_device_without_the_library_of_find_edge_tpus(
    tmp_path: Path, accelerator: Literal["cpu", "auto", "edgetpu"], usb: bool, levels: list[str]
) -> None:
    model = ModelSettings(accelerator=accelerator, edgetpu_library=NO_LIBRARY)
    found = list(check_edgetpu(PYTHON, model, coral_paths(tmp_path, usb=usb)))
    assert [level_of(finding) for finding in found] == levels


@pytest.mark.parametrize(
    ("mode", "level", "words"), [("present", "ok", "golden outputs"), ("crashes", "warn", "crashed with SIGABRT")]
)
def test_a_trial_of_an_edge_tpu(tmp_path: Path, standin: StandIn, mode: str, level: str, words: str) -> None:
    standin.plays(mode)
    model = ModelSettings(bundle=str(standin.bundle), edgetpu_library=str(standin.library))
    [device, library, trial] = check_edgetpu(PYTHON, model, coral_paths(tmp_path, usb=True))
    assert level_of(device) == level_of(library) == "ok"
    assert "reports no version" in library.sentence
    assert level_of(trial) == level
    assert words in trial.sentence


def test_a_bundle_without_a_model_for_the_edge_tpu(tmp_path: Path, standin: StandIn) -> None:
    model = ModelSettings(edgetpu_library=str(standin.library))
    trial = list(check_edgetpu(PYTHON, model, coral_paths(tmp_path, usb=True)))[-1]
    assert level_of(trial) == "warn"
    assert "has no model_edgetpu.tflite" in trial.sentence
    assert "fer-export compile" in trial.remedy


@pytest.mark.parametrize(
    ("packages", "level"),
    [("libedgetpu1-std 16.0", "warn"), ("libedgetpu1-std 16.0tf2.19.1-1.trixie", "ok"), ("", "ok")],
)
def test_corals_own_build_is_too_old_for_current_runtimes(
    tmp_path: Path, standin: StandIn, packages: str, level: str
) -> None:
    model = ModelSettings(bundle=str(standin.bundle), edgetpu_library=str(standin.library))
    shown = replace(coral_paths(tmp_path, usb=True), packages=("echo", packages))
    assert level_of(list(check_edgetpu(PYTHON, model, shown))[1]) == level


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (
            "def list_edge_tpus(): return [{'type': 'usb', 'path': '/sys/bus/usb/devices/1-1'}]",
            "pycoral lists /sys/bus",
        ),
        ("raise ImportError('this is Allen Coral Atlas')", "used before"),
    ],
)
def test_pycoral_only_lists_devices(tmp_path: Path, standin: StandIn, code: str, words: str) -> None:
    package = tmp_path / "pycoral" / "utils"
    package.mkdir(parents=True)
    (package / "edgetpu.py").write_text(code)
    model = ModelSettings(bundle=str(standin.bundle), edgetpu_library=str(standin.library))
    python = ("env", f"PYTHONPATH={tmp_path}", sys.executable)
    device = next(check_edgetpu(python, model, coral_paths(tmp_path, usb=True)))
    assert device.level == "ok"
    assert words in device.sentence


def test_a_library_may_print_what_is_neither_utf8_nor_json(tmp_path: Path) -> None:
    source = tmp_path / "noisy.c"
    source.write_text(
        "#include <stdio.h>\n"
        '__attribute__((constructor)) static void greet(void) { puts("{Ger\\xe4t}"); fflush(stdout); }\n'
    )
    probe = run_probe(PYTHON, "coral", str(build_library(source, tmp_path)), 60)
    assert (probe.output, probe.problem) == ([{}], "")
