"""The device side on a Raspberry Pi's architecture: real arm64 Debian, Python, pip and wheels, under qemu's emulation.

It shows that the wheels resolve and that the numbers agree; it says nothing about speed.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import pytest

from edge.camera import Demo
from export.wheelhouse import LIMIT_MB, installed_sizes, table, target
from tests.platform.roots import debian_root, require_root

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PROBE = Path(__file__).with_name("probe.py")
EVERY = 5  # of the demo's 25 frames a second: emulated detection takes half a second a frame
TWO_FRAMES = 2 / 25

# LiteRT reads /proc/cpuinfo to choose its kernels. That of the x86-64 machine below crashes its arm64 build, and with
# qemu's `-cpu max`, which has vector extensions that no Pi has, its outputs differ by many steps and the label changes
# (seen with 2.1.6 and 2.3.0). So each run is told to be a certain board, as far as that goes.
BOARDS = {"cortex-a72": "0xd08", "cortex-a76": "0xd0b"}  # Pi 4, Pi 5; and what cpuinfo calls the part
_CORE = """processor\t: {core}
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: {part}
CPU revision\t: 3
"""


@dataclass(frozen=True)
class Device:
    """An emulated Pi with a folder of installed packages."""

    folder: Path

    @property
    def site(self) -> Path:
        return self.folder / "site"

    def run(self, cpu: str, *arguments: str | Path, seconds: int = 300) -> str:
        root = self.folder / cpu
        emulator = ["qemu-aarch64-static", "-cpu", cpu, "-L", root, root / "usr" / "bin" / "python3.11"]
        done = subprocess.run(
            [*emulator, *arguments],
            env={
                "PATH": os.defpath,
                "HOME": str(self.folder),
                "PIP_CONFIG_FILE": os.devnull,
                "PYTHONPATH": str(self.site),
                "PYTHONPYCACHEPREFIX": str(self.folder / "bytecode"),
            },
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout


def board(folder: Path, pristine: Path, part: str) -> None:
    """What qemu shows in place of this machine's files: arm64 programs and libraries, and a board's processor.

    Not /tmp: a program would be shown it under two names.
    """
    folder.mkdir()
    for name in ("bin", "lib", "usr"):
        (folder / name).symlink_to(pristine / name)
    (folder / "proc").mkdir()
    (folder / "proc" / "cpuinfo").write_text("\n".join(_CORE.format(core=core, part=part) for core in range(4)))


@pytest.fixture(scope="module")
def wheelhouse() -> Path:
    """What `make wheelhouse` builds; it is asked to use the environment that runs this test where it can."""
    here = [f"DEVICE={sys.prefix}"] if (Path(sys.prefix) / ".ready").exists() else []
    subprocess.run(["make", "wheelhouse", "ARCH=aarch64", "PY=3.11", *here], cwd=ROOT, check=True, timeout=300)
    return ROOT / "dist" / "wheelhouse-aarch64-cp311"


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory, wheelhouse: Path) -> Device:
    """A Bookworm whose own pip has installed fer-edge from the wheelhouse alone, with the README's words."""
    require_root("qemu-aarch64-static", "mmdebstrap")
    pristine = debian_root(
        "bookworm", ("libc-bin", "libstdc++6", "python3", "python3-pip"), variant="extract", arch="arm64"
    )
    made = Device(tmp_path_factory.mktemp("pi"))
    for cpu, part in BOARDS.items():
        board(made.folder / cpu, pristine, part)
    offline = ("--no-index", "--find-links", wheelhouse, "--target", made.site, "--no-compile", "--quiet")
    made.run("cortex-a72", "-m", "pip", "install", *offline, "fer-edge[litert]")
    return made


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The part of the demo in which the face comes and goes, as pictures, thinned out."""
    folder = tmp_path_factory.mktemp("clip")
    for number, frame in enumerate(Demo().frames()):
        if number % EVERY == 0 and 2 <= frame.time < 10:
            cv2.imwrite(str(folder / f"{number:03}.png"), frame.gray)
    return folder


@pytest.fixture(scope="module")
def pi4(device: Device, clip: Path) -> dict[str, Any]:
    return json.loads(device.run("cortex-a72", PROBE, clip, str(25 / EVERY)))


def test_the_wheels_of_the_wheelhouse_are_those_of_the_device(pi4: dict[str, Any]) -> None:
    assert pi4["machine"] == "aarch64"
    assert pi4["versions"]["numpy"].startswith("1."), "Bookworm's picamera2 needs numpy 1"


def test_the_device_side_takes_at_most_300_mb(wheelhouse: Path) -> None:
    sizes = installed_sizes(target("aarch64", "3.11"), wheelhouse)
    print(table(sizes))
    assert {"fer-edge", "numpy", "opencv-python-headless", "ai-edge-litert"} <= sizes.keys()
    assert all(size > 0 for size in sizes.values())
    assert sum(sizes.values()) <= LIMIT_MB * 1e6


def test_golden_outputs_are_identical_on_a_pi_4(pi4: dict[str, Any]) -> None:
    shipped = {folder.name for folder in (ROOT / "edge" / "bundles").iterdir() if folder.is_dir()}
    assert set(pi4["goldens"]) == shipped
    for name, agreed in pi4["goldens"].items():
        assert agreed["n"] > 0
        assert (agreed["lsb"], agreed["top1"]) == (0, 1.0), name


def test_golden_outputs_are_identical_on_a_pi_5(device: Device) -> None:
    for name, agreed in json.loads(device.run("cortex-a76", PROBE))["goldens"].items():
        assert (agreed["lsb"], agreed["top1"]) == (0, 1.0), name


def test_a_clip_gives_the_same_events_as_on_x86_64(pi4: dict[str, Any], clip: Path) -> None:
    done = subprocess.run(
        [sys.executable, PROBE, clip, str(25 / EVERY)], cwd=ROOT, check=True, capture_output=True, timeout=120
    )
    here = json.loads(done.stdout)
    assert here["machine"] == "x86_64"
    assert here["changes"], "a clip without events shows nothing"
    assert [change[1:4] for change in pi4["changes"]] == [change[1:4] for change in here["changes"]]
    for there, ours in zip(pi4["changes"], here["changes"], strict=True):
        assert abs(there[0] - ours[0]) <= TWO_FRAMES
        assert abs(there[4] - ours[4]) <= 0.01, "the smoothed confidence"
