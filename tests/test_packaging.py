"""What the distribution holds: all that a device needs, and no training data."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (file,) = folder.glob("*.whl")
    return zipfile.ZipFile(file)


def test_the_wheel_has_what_a_device_needs(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    for needed in (
        "edge/py.typed",
        "edge/bundles/student/model.tflite",
        "edge/bundles/student/golden.npz",
        "edge/demo/portrait.jpg",
        "edge/systemd/fer-edge.service",
        "edge/systemd/config.toml",
    ):
        assert needed in names


def test_the_wheel_has_no_training_data(wheel: zipfile.ZipFile) -> None:
    assert [name for name in wheel.namelist() if "banks" in Path(name).parts] == []
    assert sum(part.compress_size for part in wheel.infolist()) < 7e6


def test_who_trains_is_told_to_install_the_checkout_itself(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    """The guide installed a package, so its command to train ended: no view bank is installed."""
    wheel.extractall(tmp_path)
    find = "from train.data.view_bank import find_bank; find_bank('student')"
    path = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", find], cwd=tmp_path, env=path, capture_output=True, text=True)  # noqa: PLW1510
    install = "pip install --editable '.[export]'"
    assert install in done.stderr
    assert install in (ROOT / "docs/model-guide.md").read_text()


def test_the_package_declares_its_types(wheel: zipfile.ZipFile) -> None:
    assert {"edge/py.typed", "train/py.typed", "export/py.typed"} <= set(wheel.namelist())
