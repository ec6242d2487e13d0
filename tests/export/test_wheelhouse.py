"""What `make wheelhouse` says and asks of pip; that its wheels install and work is shown by tests/platform."""

import subprocess
import sys
from pathlib import Path

import pytest

from edge.errors import UsageError
from export.wheelhouse import DEBIAN_RELEASES, WheelhouseError, build_wheelhouse, format_sizes, parse_target

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("arch", "python", "words"),
    [
        ("armv7l", "3.11", "64-bit Raspberry Pi OS"),
        ("riscv64", "3.11", "ARCH=riscv64: give one of aarch64, x86_64"),
        ("aarch64", "3.12", "PY=3.12: give one of 3.11 (Bookworm), 3.13 (Trixie)"),
    ],
)
def test_what_cannot_be_made_is_said(arch: str, python: str, words: str) -> None:
    with pytest.raises(UsageError, match="=") as raised:
        parse_target(arch, python)
    assert words in str(raised.value)


def test_the_program_ends_with_the_usage_code() -> None:
    command = [sys.executable, "-m", "export.wheelhouse", "wheelhouse", "--arch", "armv7l"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == UsageError.exit_code
    assert done.stderr.startswith("wheelhouse: error: ARCH=armv7l")


@pytest.mark.parametrize("python", DEBIAN_RELEASES)
def test_pip_is_given_every_tag_that_the_devices_c_library_takes(python: str) -> None:
    """numpy, LiteRT and OpenCV are tagged 2_17, 2_27 and 2_28; no newer pip derives the older tags by itself."""
    options = parse_target("aarch64", python).pip_options()
    for glibc in (17, 27, 28, 34, DEBIAN_RELEASES[python].glibc):
        assert f"--platform=manylinux_2_{glibc}_aarch64" in options
    assert f"--platform=manylinux_2_{DEBIAN_RELEASES[python].glibc + 1}_aarch64" not in options
    assert f"--python-version={python}" in options


def test_a_failed_build_leaves_the_old_wheelhouse_alone(tmp_path: Path) -> None:
    wanted = parse_target("aarch64", "3.11")
    old = tmp_path / "dist" / wanted.folder
    old.mkdir(parents=True)
    (old / "kept.whl").touch()
    with pytest.raises(WheelhouseError, match="pip wheel failed"):
        build_wheelhouse(wanted, tmp_path / "dist", project=tmp_path)
    assert (old / "kept.whl").exists()


def test_the_table_is_ordered_and_summed() -> None:
    assert format_sizes({"small": 1_000_000, "large": 20_500_000}).splitlines()[2:] == [
        "| large | 20.5 |",
        "| small | 1.0 |",
        "| **all** | **21.5** |",
    ]
