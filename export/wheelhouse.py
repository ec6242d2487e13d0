"""Collect the wheels for installing ``fer-edge[litert]`` on a device without internet, and measure the disk space.

``make wheelhouse`` and ``make size`` run it from a source checkout. It uses pip.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

from edge.errors import FerEdgeError, UsageError
from edge.system.shutdown import guarded

PROJECT: Final = Path(__file__).parent.parent
REQUIREMENT: Final = "fer-edge[litert]"
LIMIT_MB: Final = 300
"""Limit of the disk space that an installation on a device may take."""

_ARCHES: Final = ("aarch64", "x86_64")


@dataclass(frozen=True)
class DebianRelease:
    """A Debian release of devices; ``glibc``, the minor version of its C library, limits the usable wheels."""

    name: str
    number: int
    glibc: int
    constraints: tuple[str, ...] = ()


DEBIAN_RELEASES: Final = {
    # Bookworm's picamera2 is built for numpy 1 and cannot be imported with numpy 2 (raspberrypi/picamera2 1088, 1211);
    # OpenCV from 4.12 on requires numpy 2.
    "3.11": DebianRelease("Bookworm", 12, 36, ("numpy<2", "opencv-python-headless<4.12")),
    "3.13": DebianRelease("Trixie", 13, 41),
}


class WheelhouseError(FerEdgeError):
    """pip could not build or download the wheels; it printed the reason."""


@dataclass(frozen=True)
class WheelTarget:
    """The processor architecture and Python version that wheels are for."""

    arch: str
    python: str

    @property
    def folder(self) -> str:
        """Name of its wheelhouse below ``dist``."""
        return f"wheelhouse-{self.arch}-cp{self.python.replace('.', '')}"

    def pip_options(self) -> list[str]:
        """Options for pip to choose the same wheels as on the device; pip does not derive old tags from new ones."""
        tags = [f"manylinux_2_{minor}_{self.arch}" for minor in range(DEBIAN_RELEASES[self.python].glibc, 4, -1)]
        platforms = [f"--platform={tag}" for tag in (*tags, f"manylinux2014_{self.arch}", f"linux_{self.arch}")]
        return ["--only-binary=:all:", "--implementation=cp", f"--python-version={self.python}", *platforms]


def parse_target(arch: str, python: str) -> WheelTarget:
    """Check ``ARCH`` and ``PY``. Raises UsageError with the possible values."""
    if arch == "armv7l":
        raise UsageError(
            "ARCH=armv7l: numpy, opencv-python-headless and msgspec publish no wheels for 32-bit ARM, so there is no "
            "wheelhouse for it. Use the 64-bit Raspberry Pi OS (ARCH=aarch64)."
        )
    if arch not in _ARCHES:
        raise UsageError(f"ARCH={arch}: give one of {', '.join(_ARCHES)}")
    if python not in DEBIAN_RELEASES:
        known = ", ".join(f"{version} ({system.name})" for version, system in DEBIAN_RELEASES.items())
        raise UsageError(f"PY={python}: give one of {known}")
    return WheelTarget(arch, python)


def build_wheelhouse(wanted: WheelTarget, dist: Path, project: Path = PROJECT) -> Path:
    """Make the wheelhouse of a source checkout below ``dist``; returns its folder. Raises WheelhouseError."""
    folder = dist / wanted.folder
    partial = folder.with_suffix(".part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _pip("wheel", "--no-deps", "--wheel-dir", str(partial), str(project))
    [own_wheel] = partial.glob("fer_edge-*.whl")
    requirement = f"{REQUIREMENT} @ {own_wheel.resolve().as_uri()}"
    _pip(
        "download",
        *wanted.pip_options(),
        "--dest",
        str(partial),
        requirement,
        *DEBIAN_RELEASES[wanted.python].constraints,
    )
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return folder


def install_wheels(wanted: WheelTarget, house: Path, folder: Path, *options: str) -> None:
    """Install fer-edge from the wheelhouse alone into a folder. Raises WheelhouseError."""
    # The wheels were chosen for the target's Python; here pip would check this Python's version again.
    offline = ["--no-index", "--find-links", str(house), "--target", str(folder), "--ignore-requires-python"]
    _pip("install", *offline, *wanted.pip_options(), *options, REQUIREMENT)


def installed_sizes(wanted: WheelTarget, house: Path) -> dict[str, int]:
    """Install from the wheelhouse alone into a temporary folder; returns bytes by package, with byte code."""
    with tempfile.TemporaryDirectory(prefix="fer-edge-size-") as scratch:
        install_wheels(wanted, house, Path(scratch))
        found = metadata.distributions(path=[scratch])
        return {dist.name: _bytes(dist) for dist in found}


def _bytes(dist: metadata.Distribution) -> int:
    files = [Path(str(dist.locate_file(file))) for file in dist.files or ()]
    return sum(file.stat().st_size for file in files if file.is_file())


def format_sizes(sizes: dict[str, int]) -> str:
    """The sizes as a Markdown table, largest first, with their sum."""
    ordered = sorted(sizes.items(), key=lambda item: item[1], reverse=True)
    rows = [f"| {name} | {size / 1e6:.1f} |" for name, size in ordered]
    total = f"| **all** | **{sum(sizes.values()) / 1e6:.1f}** |"
    return "\n".join(("| package | MB installed |", "|---|---:|", *rows, total))


def _listing(house: Path) -> str:
    wheels = sorted(house.glob("*.whl"))
    lines = [f"{wheel.stat().st_size / 1e6:8.1f} MB  {wheel.name}" for wheel in wheels]
    total = sum(wheel.stat().st_size for wheel in wheels)
    return "\n".join((*lines, f"{total / 1e6:8.1f} MB  in {len(wheels)} wheels: {house}"))


def _pip(command: str, *arguments: str) -> None:
    quiet = ("--quiet", "--disable-pip-version-check", "--no-input")
    # A find-links folder in the user's pip settings would add wheels that are not in the wheelhouse.
    environment = os.environ | ({"PIP_CONFIG_FILE": os.devnull} if "--no-index" in arguments else {})
    done = subprocess.run([sys.executable, "-m", "pip", command, *quiet, *arguments], check=False, env=environment)
    if done.returncode:
        raise WheelhouseError(f"pip {command} failed with exit code {done.returncode}; see its output above")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m export.wheelhouse``."""
    parser = argparse.ArgumentParser("python -m export.wheelhouse", description=__doc__)
    parser.add_argument("what", choices=("wheelhouse", "size"))
    parser.add_argument("--arch", default="aarch64")
    parser.add_argument("--python", default="3.11")
    parser.add_argument("--dist", type=Path, default=PROJECT / "dist")
    arguments = parser.parse_args(argv)
    wanted = parse_target(arguments.arch, arguments.python)
    house = build_wheelhouse(wanted, arguments.dist)
    print(_listing(house))
    if arguments.what == "size":
        print(f"\n{format_sizes(installed_sizes(wanted, house))}")
    return 0


if __name__ == "__main__":
    sys.exit(guarded("wheelhouse", main))
