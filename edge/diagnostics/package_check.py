"""Check of the Python packages, and the commands that install them."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from edge.diagnostics.finding import Finding, Level
from edge.diagnostics.probe_runner import ProbeResult, run_probe
from edge.settings import CameraSettings, MetricsSettings

_DEBIAN_FILES: Final = Path("/var/lib/dpkg/info/fer-edge.list")
_PIP: Final = f"{'sudo ' if Path(sys.prefix).stat().st_uid == 0 else ''}{shlex.quote(sys.executable)} -m pip install"
_INSTALL_NUMPY_1: Final = f"{_PIP} 'numpy<2' 'opencv-python-headless<4.12'"
_INSTALL_PICAMERA2: Final = (
    "sudo apt install --no-install-recommends python3-picamera2 (and a venv --system-site-packages)"
)


def check_packages(
    python: Sequence[str], camera: CameraSettings, metrics: MetricsSettings, seconds: float = 60
) -> Finding:
    """Whether one process can import numpy, OpenCV, the TFLite runtime and, where they are installed, the others."""
    probe = run_probe(python, "imports", "", seconds)
    versions = {line["imported"]: line["version"] for line in probe.output if "imported" in line}
    installed = ", ".join(f"{name} {version}" for name, version in versions.items())
    needs_picamera2 = camera.source.startswith("picamera2")
    if probe.problem:
        unused = {"picamera2": not needs_picamera2, "prometheus-client": not metrics.enabled}
        return _import_failure(probe, versions, installed, {name for name, is_unused in unused.items() if is_unused})
    if not versions.keys() & {"ai-edge-litert", "tflite-runtime"}:
        sentence = f"no TFLite runtime is installed (found: {installed})"
        return Finding("packages", "fail", sentence, install_command("ai-edge-litert"))
    if needs_picamera2 and "picamera2" not in versions:
        sentence = f"the camera needs picamera2, which is not installed (found: {installed})"
        return Finding("packages", "fail", sentence, _INSTALL_PICAMERA2)
    if metrics.enabled and "prometheus-client" not in versions:
        sentence = f"metrics.enabled needs prometheus-client, which is not installed (found: {installed})"
        return Finding("packages", "fail", sentence, install_command("prometheus-client"))
    return Finding("packages", "ok", installed)


def _import_failure(probe: ProbeResult, versions: dict[str, str], installed: str, unused: set[str]) -> Finding:
    """The package whose import failed or hung, and those that were imported before it. An ``unused`` one may."""
    failed = next((line["importing"] for line in reversed(probe.output) if "importing" in line), "fer-edge")
    has_numpy_2 = not versions.get("numpy", "1").startswith("1.")
    built_for_numpy_1 = failed in ("picamera2", "tflite-runtime")
    remedy = _INSTALL_NUMPY_1 if has_numpy_2 and built_for_numpy_1 else install_command(failed)
    level: Level = "warn" if failed in unused else "fail"
    beside = f" beside {installed}" if installed else ""
    return Finding("packages", level, f"{failed} cannot be imported{beside}: {probe.problem}", remedy)


def install_command(package: str, debian_files: Path = _DEBIAN_FILES) -> str:
    """The command that installs a package of fer-edge's, or a TFLite runtime.

    ``debian_files`` exists where fer-edge is installed by its Debian package, which has no pip.
    """
    debian = debian_files.exists()
    if package == "picamera2":
        return _INSTALL_PICAMERA2
    if package == "prometheus-client":
        apt = "sudo apt install --no-install-recommends python3-prometheus-client"
        return apt if debian else f"{_PIP} 'fer-edge[metrics]'"
    if debian:
        return "sudo apt install --reinstall ./fer-edge_*.deb (the file that you installed)"
    return f"{_PIP} 'fer-edge[{package if package == 'tflite-runtime' else 'litert'}]'"
