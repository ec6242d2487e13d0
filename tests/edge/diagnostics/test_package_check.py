"""The check of packages, with real child processes."""

import sys
import sysconfig
from pathlib import Path

import pytest

from edge.diagnostics.package_check import check_packages, install_command
from edge.settings import CameraSettings, MetricsSettings
from tests.conftest import ROOT
from tests.edge.diagnostics.findings import PYTHON, level_of


def test_the_packages_here_are_compatible() -> None:
    found = check_packages(PYTHON, CameraSettings(source="demo"), MetricsSettings())
    assert level_of(found) == "ok", found
    assert "numpy" in found.sentence


def test_a_needed_picamera2_that_is_not_installed() -> None:
    found = check_packages(PYTHON, CameraSettings(source="picamera2"), MetricsSettings())
    assert level_of(found) == "fail"
    assert "apt install" in found.remedy


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise ValueError('numpy.dtype size changed, may indicate binary incompatibility')", "numpy.dtype size"),
        ("import os; os.abort()", "crashed with SIGABRT"),
    ],
)
def test_an_incompatible_picamera2(tmp_path: Path, code: str, words: str) -> None:
    (tmp_path / "picamera2.py").write_text(code)
    python = ("env", f"PYTHONPATH={tmp_path}", sys.executable)
    found = check_packages(python, CameraSettings(source="picamera2"), MetricsSettings())
    assert level_of(found) == "fail"
    assert found.sentence.startswith("picamera2 cannot be imported beside numpy")
    assert words in found.sentence
    assert level_of(check_packages(python, CameraSettings(source="demo"), MetricsSettings())) == "warn", (
        "not needed for this source"
    )


def test_an_import_that_hangs(tmp_path: Path) -> None:
    (tmp_path / "picamera2.py").write_text("import time; time.sleep(60)")
    python = ("env", f"PYTHONPATH={tmp_path}", sys.executable)
    found = check_packages(python, CameraSettings(source="picamera2"), MetricsSettings(), 5)
    assert "picamera2 cannot be imported" in found.sentence
    assert "no answer within 5 s" in found.sentence


def test_metrics_need_a_package_that_few_install(tmp_path: Path) -> None:
    (tmp_path / "prometheus_client.py").write_text("raise ImportError('built for another Python')")
    python, camera = ("env", f"PYTHONPATH={tmp_path}", sys.executable), CameraSettings(source="demo")
    for metrics, level in ((MetricsSettings(enabled=True), "fail"), (MetricsSettings(), "warn")):
        found = check_packages(python, camera, metrics)
        assert level_of(found) == level
        assert found.sentence.startswith("prometheus-client cannot be imported beside numpy")
        assert found.remedy == install_command("prometheus-client")


@pytest.fixture
def without_litert(tmp_path: Path) -> tuple[str, ...]:
    """A Python that sees all packages of this one but LiteRT and Prometheus's, and numpy as version 2.1."""
    packages = tmp_path / "packages"
    packages.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith(("ai_edge_litert", "numpy-", "prometheus_client")):
            (packages / entry.name).symlink_to(entry)
    (packages / "edge").unlink(missing_ok=True)
    (packages / "edge").symlink_to(ROOT / "edge")
    (packages / "numpy-2.1.0.dist-info").mkdir()
    (packages / "numpy-2.1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 2.1.0\n")
    return ("env", f"PYTHONPATH={packages}", sys.executable, "-S")


def test_no_runtime(without_litert: tuple[str, ...]) -> None:
    found = check_packages(without_litert, CameraSettings(source="demo"), MetricsSettings())
    assert level_of(found) == "fail"
    assert "no TFLite runtime" in found.sentence
    assert "fer-edge[litert]" in found.remedy


def test_metrics_without_their_package(without_litert: tuple[str, ...], tmp_path: Path) -> None:
    package = tmp_path / "packages" / "ai_edge_litert"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "interpreter.py").touch()
    camera = CameraSettings(source="demo")
    assert level_of(check_packages(without_litert, camera, MetricsSettings())) == "ok"
    found = check_packages(without_litert, camera, MetricsSettings(enabled=True))
    assert level_of(found) == "fail"
    assert found.sentence.startswith("metrics.enabled needs prometheus-client, which is not installed (found: numpy")


def test_tflite_runtime_beside_numpy_2(without_litert: tuple[str, ...], tmp_path: Path) -> None:
    package = tmp_path / "packages" / "tflite_runtime"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "interpreter.py").write_text(
        "raise SystemError('initialization of _pywrap raised unreported exception')"
    )
    found = check_packages(without_litert, CameraSettings(source="demo"), MetricsSettings())
    assert level_of(found) == "fail"
    assert "tflite-runtime cannot be imported beside numpy 2.1.0" in found.sentence
    assert "'numpy<2'" in found.remedy


def test_what_a_debian_package_has_brought_is_not_repaired_with_pip(tmp_path: Path) -> None:
    listed = tmp_path / "fer-edge.list"
    assert "pip install 'fer-edge[litert]'" in install_command("ai-edge-litert", listed)
    assert "pip install 'fer-edge[metrics]'" in install_command("prometheus-client", listed)
    listed.touch()
    assert install_command("ai-edge-litert", listed).startswith("sudo apt install --reinstall ./fer-edge_")
    assert "python3-picamera2" in install_command("picamera2", listed)
    assert install_command("prometheus-client", listed).endswith(" python3-prometheus-client")
