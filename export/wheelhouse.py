"""A folder of wheels with which a device without internet installs ``fer-edge[litert]``, and the disk space it takes.

Run by ``make wheelhouse`` and ``make size`` from a source checkout; pip does the work.
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
"""What the device side may take on the disk."""

_ARCHES: Final = ("aarch64", "x86_64")


@dataclass(frozen=True)
class DebianRelease:
    """A Debian that devices run, by its Python: its C library bounds the wheels that it takes."""

    name: str
    glibc: int
    constraints: tuple[str, ...] = ()


DEBIAN_RELEASES: Final = {
    # Bookworm's picamera2 is built for numpy 1 and does not import beside numpy 2 (raspberrypi/picamera2 1088, 1211);
    # OpenCV from 4.12 on wants numpy 2.
    "3.11": DebianRelease("Bookworm", 36, ("numpy<2", "opencv-python-headless<4.12")),
    "3.13": DebianRelease("Trixie", 41),
}


class WheelhouseError(FerEdgeError):
    """pip could not build or collect the wheels; what it said stands above."""


@dataclass(frozen=True)
class WheelTarget:
    """What the wheels are for."""

    arch: str
    python: str

    @property
    def folder(self) -> str:
        """Name of its wheelhouse below ``dist``."""
        return f"wheelhouse-{self.arch}-cp{self.python.replace('.', '')}"

    def pip_options(self) -> list[str]:
        """Make pip choose as the device's own pip would; it does not derive older tags from a newer one by itself."""
        tags = [f"manylinux_2_{minor}_{self.arch}" for minor in range(DEBIAN_RELEASES[self.python].glibc, 4, -1)]
        platforms = [f"--platform={tag}" for tag in (*tags, f"manylinux2014_{self.arch}", f"linux_{self.arch}")]
        return ["--only-binary=:all:", "--implementation=cp", f"--python-version={self.python}", *platforms]


def parse_target(arch: str, python: str) -> WheelTarget:
    """Check what was asked for. Raises UsageError saying what there is."""
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
    """Make the wheelhouse of a source checkout anew below ``dist``; returns its folder. Raises WheelhouseError."""
    folder = dist / wanted.folder
    making = folder.with_suffix(".part")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    _pip("wheel", "--no-deps", "--wheel-dir", str(making), str(project))
    [ours] = making.glob("fer_edge-*.whl")
    requirement = f"{REQUIREMENT} @ {ours.resolve().as_uri()}"
    _pip(
        "download",
        *wanted.pip_options(),
        "--dest",
        str(making),
        requirement,
        *DEBIAN_RELEASES[wanted.python].constraints,
    )
    shutil.rmtree(folder, ignore_errors=True)
    making.rename(folder)
    return folder


def installed_sizes(wanted: WheelTarget, house: Path) -> dict[str, int]:
    """Install from the wheelhouse alone into a scratch folder; returns bytes by package, byte code included."""
    with tempfile.TemporaryDirectory(prefix="fer-edge-size-") as scratch:
        # The other Python's wheels were chosen by its own version; here pip would ask this one's again.
        offline = ["--no-index", "--find-links", str(house), "--target", scratch, "--ignore-requires-python"]
        _pip("install", *offline, *wanted.pip_options(), REQUIREMENT)
        found = metadata.distributions(path=[scratch])
        return {dist.name: _bytes(dist) for dist in found}


def _bytes(dist: metadata.Distribution) -> int:
    files = [Path(str(dist.locate_file(file))) for file in dist.files or ()]
    return sum(file.stat().st_size for file in files if file.is_file())


def format_sizes(sizes: dict[str, int]) -> str:
    """The sizes as Markdown, largest first, with their sum."""
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
    # A download folder in the user's own pip settings would let wheels in that are not in the wheelhouse.
    environment = os.environ | ({"PIP_CONFIG_FILE": os.devnull} if "--no-index" in arguments else {})
    done = subprocess.run([sys.executable, "-m", "pip", command, *quiet, *arguments], check=False, env=environment)
    if done.returncode:
        raise WheelhouseError(f"pip {command} failed with exit code {done.returncode}; what it said stands above")


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
