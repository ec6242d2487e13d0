"""The device side on a Raspberry Pi's architecture: real arm64 Debian, Python, pip and wheels, emulated by qemu.

It shows that the wheels resolve and that the results agree. It does not measure speed.
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import pytest

from edge.camera.sources import DemoSource
from export.debian.build import build_package
from export.wheelhouse import LIMIT_MB, format_sizes, installed_sizes, parse_target
from tests.platform.roots import debian_root, require_root

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PROBE = Path(__file__).with_name("probe.py")
PACKAGES = ("libc-bin", "libstdc++6", "python3", "python3-pip")
EVERY = 5  # of the demo's 25 frames a second: emulated detection takes half a second a frame
# Allowed difference of times: a face is lost one frame later there, probably because Bookworm's OpenCV is older (4.11,
# for its numpy). The network's golden outputs are the same.
ONE_FRAME = EVERY / 25

# LiteRT reads /proc/cpuinfo to choose its kernels. That of the x86-64 machine below crashes its arm64 build (2.2 and
# later), and with qemu's `-cpu max`, which has vector extensions that no Pi has, the outputs differ by many steps (from
# 2.1.6 on). So each run imitates a certain board as far as possible.
CORE = """processor\t: {core}
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: {part}
CPU revision\t: 3
"""


@dataclass(frozen=True)
class Board:
    """A Raspberry Pi and its system: the processor's names in qemu and in the kernel, Debian, and Python."""

    cpu: str
    part: str
    suite: str
    python: str


PI_4 = Board("cortex-a72", "0xd08", "bookworm", "3.11")
PI_5 = Board("cortex-a76", "0xd0b", "trixie", "3.13")


@dataclass(frozen=True)
class Device:
    """An emulated board with a folder of its own."""

    board: Board
    folder: Path

    def prepare(self, pristine: Path) -> None:
        """Lay out what qemu shows in place of this machine's files: arm64 programs, and a processor's description.

        It must not be in /tmp, which a program would see under two names.
        """
        root = self.folder / "root"
        root.mkdir()
        (root / "usr").symlink_to(pristine / "usr")
        for name in ("bin", "lib"):
            own = pristine / name  # an unpacked Trixie has these only below /usr
            (root / name).symlink_to(own if own.exists() else pristine / "usr" / name)
        (root / "proc").mkdir()
        cores = [CORE.format(core=core, part=self.board.part) for core in range(4)]
        (root / "proc" / "cpuinfo").write_text("\n".join(cores))

    def run(self, *arguments: str | Path) -> str:
        """Run the board's Python."""
        root = self.folder / "root"
        emulator = ["qemu-aarch64-static", "-cpu", self.board.cpu, "-L", root]
        done = subprocess.run(
            [*emulator, root / "usr" / "bin" / f"python{self.board.python}", *arguments],
            env={
                "PATH": os.defpath,
                "HOME": str(self.folder),
                "PIP_CONFIG_FILE": os.devnull,
                "PYTHONPATH": str(self.folder / "site"),
                "PYTHONPYCACHEPREFIX": str(self.folder / "bytecode"),
            },
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    def install(self, wheelhouse: Path) -> None:
        """Install from the wheelhouse only, with the board's own pip and the command of docs/install.md."""
        offline = ("--no-index", "--find-links", wheelhouse, "--target", self.folder / "site")
        self.run("-m", "pip", "install", *offline, "--no-compile", "--quiet", "fer-edge[litert]")


@pytest.fixture(scope="module")
def wheelhouses() -> dict[Board, Path]:
    """What `make wheelhouse` builds, if possible from the environment that runs this test."""
    here = [f"DEVICE={sys.prefix}"] if (Path(sys.prefix) / ".ready").exists() else []
    made = {}
    for board in (PI_4, PI_5):
        command = ["make", "wheelhouse", "ARCH=aarch64", f"PY={board.python}", *here]
        subprocess.run(command, cwd=ROOT, check=True, timeout=300)
        made[board] = ROOT / "dist" / f"wheelhouse-aarch64-cp{board.python.replace('.', '')}"
    return made


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every fifth frame of the part of the demo in which the face comes and goes, as pictures."""
    folder = tmp_path_factory.mktemp("clip")
    for number, frame in enumerate(DemoSource().frames()):
        if number % EVERY == 0 and 2 <= frame.time < 10:
            cv2.imwrite(str(folder / f"{number:03}.png"), frame.gray)
    return folder


@pytest.fixture(scope="module")
def reports(
    tmp_path_factory: pytest.TempPathFactory, wheelhouses: dict[Board, Path], clip: Path
) -> dict[Board, dict[str, Any]]:
    """What probe.py prints on each board; both are emulated at the same time. Only the Pi 4 gets the clip."""
    require_root("qemu-aarch64-static", "mmdebstrap")

    def run_probe(board: Board) -> dict[str, Any]:
        device = Device(board, tmp_path_factory.mktemp(board.cpu))
        device.prepare(debian_root(board.suite, PACKAGES, variant="extract", arch="arm64"))
        device.install(wheelhouses[board])
        return json.loads(device.run(PROBE, *((clip, str(25 / EVERY)) if board == PI_4 else ())))

    with ThreadPoolExecutor() as pool:
        return dict(zip((PI_4, PI_5), pool.map(run_probe, (PI_4, PI_5)), strict=True))


@pytest.mark.parametrize("board", [PI_4, PI_5], ids=["bookworm", "trixie"])
def test_the_device_side_takes_at_most_300_mb(wheelhouses: dict[Board, Path], board: Board) -> None:
    sizes = installed_sizes(parse_target("aarch64", board.python), wheelhouses[board])
    print(format_sizes(sizes))
    assert {"fer-edge", "numpy", "opencv-python-headless", "ai-edge-litert"} <= sizes.keys()
    assert all(size > 0 for size in sizes.values())
    assert sum(sizes.values()) <= LIMIT_MB * 1e6


@pytest.mark.parametrize("board", [PI_4, PI_5], ids=["pi4-bookworm", "pi5-trixie"])
def test_the_boards_own_pip_resolves_and_golden_outputs_are_identical(
    reports: dict[Board, dict[str, Any]], board: Board
) -> None:
    assert reports[board]["machine"] == "aarch64"
    shipped = {folder.name for folder in (ROOT / "edge" / "bundles").iterdir() if folder.is_dir()}
    assert set(reports[board]["goldens"]) == shipped
    for name, agreement in reports[board]["goldens"].items():
        assert agreement["n"] > 0
        assert (agreement["lsb"], agreement["top1"]) == (0, 1.0), name


@pytest.mark.parametrize("board", [PI_4, PI_5], ids=["pi4-bookworm", "pi5-trixie"])
def test_the_debian_packages_environment_verifies_its_model(
    tmp_path_factory: pytest.TempPathFactory, wheelhouses: dict[Board, Path], board: Board
) -> None:
    require_root("qemu-aarch64-static", "mmdebstrap", "dpkg-deb")
    folder = tmp_path_factory.mktemp(f"deb-{board.suite}")
    package = build_package(parse_target("aarch64", board.python), wheelhouses[board], folder)
    subprocess.run(["dpkg-deb", "--extract", package, folder], check=True)
    device = Device(board, folder)
    device.prepare(debian_root(board.suite, PACKAGES, variant="extract", arch="arm64"))
    (folder / "site").symlink_to(folder / f"opt/fer-edge/lib/python{board.python}/site-packages")
    golden = json.loads(device.run(folder / "opt/fer-edge/bin/fer-edge", "verify", "--json"))["golden"]
    assert golden["ok"]
    assert golden["n"] > 0


def test_bookworm_gets_the_numpy_that_its_picamera2_needs(reports: dict[Board, dict[str, Any]]) -> None:
    assert reports[PI_4]["versions"]["numpy"].startswith("1.")


def test_a_clip_gives_the_same_events_as_on_x86_64(reports: dict[Board, dict[str, Any]], clip: Path) -> None:
    command = [sys.executable, PROBE, clip, str(25 / EVERY)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    here = json.loads(done.stdout)
    assert here["machine"] == "x86_64"
    assert here["changes"], "a clip without events would test nothing"
    there = reports[PI_4]["changes"]
    print(here["changes"], there)
    assert [change[1:4] for change in there] == [change[1:4] for change in here["changes"]]
    for theirs, ours in zip(there, here["changes"], strict=True):
        assert abs(theirs[0] - ours[0]) <= 1.01 * ONE_FRAME
        assert abs(theirs[4] - ours[4]) <= 0.02, (
            "the smoothed confidence is of some ten int8 outputs, each rounded differently there"
        )
