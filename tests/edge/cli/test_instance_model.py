"""Commands by hand with an instance's settings: they use its model, and run it as the user whose it is."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.model.bundle import DEFAULT
from edge.model.registry import ModelRegistry
from tests.conftest import PORTRAIT
from tests.edge.cli.test_main import PROGRAM
from tests.edge.installed import SERVICE_USER, Device, installed
from tests.edge.model.bundles import accept, bundle_named
from tests.edge.preview.running import previewing

DOOR = ("--config", "/etc/fer-edge/door/config.toml")
WITH_IDS = "import os; from edge.cli.main import main; main(); print(list(os.getresuid() + os.getresgid()), flush=True)"


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    """The instance has a model of its own, `mine`, which is student-small under another name."""
    with installed() as made:
        ModelRegistry(made.state / "door").install(bundle_named(tmp_path, "mine"), accept)
        yield made


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Some pictures that only root may read."""
    folder = tmp_path / "pictures"
    folder.mkdir(mode=0o700)
    for number in range(8):
        (folder / f"{number}.jpg").write_bytes(PORTRAIT.read_bytes())
    return folder


def test_classify_reads_the_pictures_first(device: Device, pictures: Path) -> None:
    expected = device.fer_edge("classify", "--json", pictures, "--bundle", "student-small").stdout
    command = [*device.enter, sys.executable, "-c", WITH_IDS, "classify", "--json", pictures, *DOOR]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    *found, ids = done.stdout.splitlines()
    assert found == expected.splitlines()
    assert len(found) == 8
    assert json.loads(ids) == [SERVICE_USER] * 6
    assert device.fer_edge("classify", "--json", pictures).stdout not in (expected, ""), "the first service's model"


def test_preview_runs_it_as_its_user(device: Device) -> None:
    words = ("preview", "--source", "demo", "--port", "0", *DOOR)
    with previewing(*words, command=(*device.enter, sys.executable, "-c", WITH_IDS)) as preview:
        preview.read_to("Ctrl-C ends it earlier")
        assert preview.visitor().get("live?0")[0] == 200
        assert preview.interrupt() == 0
        preview.read_to(str([SERVICE_USER] * 6))


def test_preview_says_as_whom_it_could_not_read_its_source(device: Device, pictures: Path) -> None:
    with previewing("preview", "--source", pictures, "--port", "0", *DOOR, command=(*device.enter, PROGRAM)) as preview:
        preview.read_to("Root runs this as nobody, whose model it is.")


def test_root_does_not_bench_the_model_of_another_user(device: Device, pictures: Path) -> None:
    done = device.fer_edge("bench", "--source", pictures, *DOOR)
    assert done.returncode == 2
    assert "belongs to nobody, and root does not run its network: bench as that user (sudo -u nobody)" in done.stderr


@pytest.mark.slow
def test_bench_and_run_use_it(device: Device, pictures: Path) -> None:
    ModelRegistry(device.state / "door").use("student-small", accept)
    done = device.fer_edge("bench", "--source", pictures, "--starts", 1, "--json", *DOOR)
    assert json.loads(done.stdout)["model"] == "student-small"
    assert "model        student-small on" in device.fer_edge("run", "--source", pictures, *DOOR).stderr
    assert f"model        {DEFAULT} on" in device.fer_edge("run", "--source", pictures).stderr
