"""Checks of the Edge TPU: the device, its library, and a trial of both."""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge.diagnostics.finding import Finding, Level
from edge.diagnostics.probe_runner import ProbeResult, run_probe
from edge.model.edgetpu_trial import HOW_TO_INSTALL, EdgeTpuTrial
from edge.settings import ModelSettings
from edge.system.hardware import text_of

_USB_IDS: Final = {"1a6e:089a": "not used since it was plugged in", "18d1:9302": "in use or used before"}


@dataclass(frozen=True)
class CoralPaths:
    """Where the kernel shows Edge TPUs, and the command that lists the installed packages of their library."""

    usb: Path = Path("/sys/bus/usb/devices")
    devices: Path = Path("/dev")
    packages: Sequence[str] = (
        "dpkg-query",
        "-W",
        "-f",
        "${Package} ${Version}\\n",
        "libedgetpu1-std",
        "libedgetpu1-max",
    )


def check_edgetpu(python: Sequence[str], model: ModelSettings, paths: CoralPaths) -> Iterator[Finding]:
    """Whether there are an Edge TPU and its library, and whether the bundle's network runs on them."""
    if model.accelerator == "cpu":
        yield Finding("edgetpu", "ok", 'not used: model.accelerator = "cpu"')
        return
    needed = model.accelerator == "edgetpu"
    probe = run_probe(python, "coral", model.edgetpu_library, 20)
    devices = find_edge_tpus(paths)
    if not (needed or devices or probe.output):
        yield Finding("edgetpu", "ok", f"none on USB or PCIe, and no {model.edgetpu_library}: the CPU is used")
        return
    yield judge_devices(devices, probe.values("devices"), needed=needed)
    yield judge_library(model.edgetpu_library, probe, _output_of(paths.packages), needed=needed)
    verdict = EdgeTpuTrial(model.bundle, model.edgetpu_library, python).wait()
    level: Level = "ok" if verdict.outcome == "healthy" else "fail" if needed else "warn"
    yield Finding("tpu trial", level, verdict.sentence, verdict.remedy)


def find_edge_tpus(paths: CoralPaths) -> list[str]:
    """The Edge TPUs that the kernel shows on USB and PCIe."""
    found = []
    for device in sorted(paths.usb.glob("*")):
        ids = f"{text_of(device / 'idVendor')}:{text_of(device / 'idProduct')}"
        if ids in _USB_IDS:
            found.append(f"USB {ids}, {_USB_IDS[ids]}")
    return found + [f"PCIe {file}" for file in sorted(paths.devices.glob("apex_*"))]


def judge_devices(devices: list[str], listed: list[str], *, needed: bool) -> Finding:
    """Whether there is a device; ``listed`` is what pycoral lists, if it is installed."""
    if devices:
        pycoral = f"; pycoral lists {', '.join(listed)}" if listed else ""
        return Finding("edgetpu", "ok", f"{', '.join(devices)}{pycoral}")
    sentence = "no Edge TPU on USB or PCIe"
    if needed:
        remedy = "plug it into a USB 3 port that gives enough power; lsusb must show 18d1:9302 or 1a6e:089a"
        return Finding("edgetpu", "fail", f'{sentence}, and model.accelerator = "edgetpu"', remedy)
    return Finding("edgetpu", "ok", sentence)


def judge_library(name: str, probe: ProbeResult, packages: str, *, needed: bool) -> Finding:
    """Whether the library can be loaded, and whether its Debian package (``packages``) fits the TFLite runtimes."""
    if probe.problem and not probe.output:
        sentence = probe.problem if name in probe.problem else f"{name}: {probe.problem}"
        return Finding("libedgetpu", "fail" if needed else "warn", sentence, HOW_TO_INSTALL)
    installed = ", ".join(packages.split("\n"))
    version = next(iter(probe.values("version")), "it reports no version")
    sentence = f"{name}: {version}{f' ({installed})' if installed else ''}"
    if any("tf" not in package.partition(" ")[2] for package in packages.split("\n") if package):
        sentence += ": Coral's own build works with TFLite up to 2.11, and crashes with newer versions"
        return Finding("libedgetpu", "warn", sentence, f"{HOW_TO_INSTALL}: a build for a newer TFLite")
    return Finding("libedgetpu", "ok", sentence)


def _output_of(command: Sequence[str]) -> str:
    """What a command prints, even if it fails; empty if it is not installed."""
    if not shutil.which(command[0]):
        return ""
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout.strip()
