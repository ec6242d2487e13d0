"""``fer-export golden``, which writes into a bundle that is in use."""

import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ai_edge_litert", reason="the litert extra is not installed")

from edge.errors import UsageError
from edge.model.bundle import GOLDEN_FILE, open_bundle
from export.cli import _main
from tests.conftest import ROOT


@pytest.mark.parametrize(
    "command",
    [
        ["golden", "student-small"],
        ["margin", "student-small", "--data", "none.csv", "--write"],
        ["episodes", "student-small", "--data", "none.csv", "--tune"],
    ],
)
def test_the_programs_own_models_are_changed_by_their_folder_only(command: list[str]) -> None:
    pytest.importorskip("scipy", reason="the train extra is not installed")
    with pytest.raises(UsageError, match="student-small is the program's own model, which is not changed"):
        _main(command)


@pytest.mark.parametrize(
    "command", [["golden"], ["margin", "--data", "none.csv", "--write"], ["episodes", "--data", "none.csv", "--tune"]]
)
def test_a_bundle_that_cannot_be_changed_is_told_before_the_work(command: list[str], small_disk: Path) -> None:
    pytest.importorskip("scipy", reason="the train extra is not installed")
    (small_disk / "card.json").write_text("{}")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)  # root may write wherever a disk lets it
    with pytest.raises(UsageError, match="the folder is read-only for this user"):
        _main([command[0], str(small_disk), *command[1:]])


def test_a_golden_file_that_cannot_be_written_leaves_the_bundle_as_it_was(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(ROOT / "edge" / "bundles" / "student-small", bundle)
    before = {file.name: file.read_bytes() for file in bundle.iterdir()}
    most = len(before[GOLDEN_FILE]) // 2
    done = subprocess.run(
        [Path(sys.executable).with_name("fer-export"), "golden", bundle],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)),  # as a disk that becomes full
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert f"{GOLDEN_FILE}: cannot be written: File too large" in done.stderr
    assert {file.name: file.read_bytes() for file in bundle.iterdir()} == before
    open_bundle(bundle)
