"""The picamera2 source with the real picamera2 and libcamera's virtual camera, in a Debian 13 root file system.

Not covered: a real sensor, and rows with padding, which the virtual camera does not have
(tests/edge/camera/test_devices.py covers them).
"""

import os
import shutil
import subprocess
import sys
import time
from base64 import b64decode
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.conftest import PORTRAIT, ROOT, wait_until
from tests.edge.preview.running import previewing
from tests.platform.roots import cached, debian_root, require_root

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent / "virtual_camera"
DEBIAN = ("base-files", "libc-bin", "python3", "python3-libcamera", "libcamera-ipa", "python3-prctl")
WHEELS = (
    "picamera2==0.3.38",
    *("numpy", "pillow", "piexif", "simplejpeg", "videodev2"),  # what it imports
    *("opencv-python-headless<5", "msgspec", "paho-mqtt>=2.2,<3", "ai-edge-litert>=2.1,<3", "flatbuffers"),
)
# Without these, libcamera 0.4's virtual camera often hangs on its first frame.
TUNABLES = "glibc.malloc.tcache_count=0:glibc.malloc.perturb=255"
STALL = 2.0
SLACK = 4.0

# In a mount namespace of its own, every mount ends with the last process, and the root stays unchanged.
ENTER = """
set -e
mount -t tmpfs tmpfs "$ROOT/tmp"; mkdir "$ROOT/tmp/wheels" "$ROOT/tmp/fer-edge" "$ROOT/tmp/work"
mount --bind "$WHEELS" "$ROOT/tmp/wheels"; mount --bind "$REPOSITORY" "$ROOT/tmp/fer-edge"
mount --bind "$WORK" "$ROOT/tmp/work"; mount --bind "$WORK/share" "$ROOT/usr/share/libcamera"
mount -t proc proc "$ROOT/proc"
exec env -i PATH=/usr/sbin:/usr/bin PYTHONPATH=/tmp/wheels:/tmp/work:/tmp/fer-edge PYTHONDONTWRITEBYTECODE=1 \
  GLIBC_TUNABLES="$TUNABLES" LIBCAMERA_LOG_LEVELS='*:FATAL' timeout --kill-after=1 60 chroot "$ROOT" python3 "$@"
"""
INSIDE = ("unshare", "--mount", "--propagation=private", "sh", "-c", ENTER, "sh")


@pytest.fixture(scope="module")
def root() -> Path:
    require_root("mmdebstrap", "unshare")
    return debian_root("trixie", DEBIAN, variant="extract")


@pytest.fixture(scope="module")
def wheels() -> Path:
    """picamera2 and fer-edge's own requirements for Debian 13's Python 3.13, downloaded once by this Python's pip."""

    def make(folder: Path) -> list[str | Path]:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:"]
        target = ["--implementation=cp", "--python-version=3.13", "--ignore-requires-python", f"--target={folder}"]
        platforms = [f"--platform=manylinux{glibc}_x86_64" for glibc in ("2014", "_2_17", "_2_27", "_2_28")]
        return [*pip, *target, *platforms, *WHEELS]

    return cached("trixie-wheels", WHEELS, make)


class Guest:
    """Runs programs in the root file system, with a folder that is shared with the test."""

    def __init__(self, root: Path, wheels: Path, work: Path) -> None:
        self.work = work
        self.environment = {
            **os.environ,
            **{"ROOT": str(root), "WHEELS": str(wheels), "REPOSITORY": str(ROOT), "WORK": str(work)},
            "TUNABLES": TUNABLES,
        }
        shutil.copytree(HERE, work, dirs_exist_ok=True)
        (work / "share/pipeline/virtual").mkdir(parents=True)
        shutil.copy(HERE / "virtual.yaml", work / "share/pipeline/virtual")
        (work / "frames").mkdir()
        (work / "config.toml").write_text(f"[camera]\nstall_seconds = {STALL}\n")

    def write_frames(self, count: int) -> list[np.ndarray]:
        """Write so many pictures for the camera, which repeats them; returns them."""
        portrait = cv2.resize(cv2.imread(str(PORTRAIT), cv2.IMREAD_GRAYSCALE), (640, 480), interpolation=cv2.INTER_AREA)
        portrait[:40, :40], portrait[:40, -80:] = 0, 255  # a black and a white corner show range and sides
        noise = np.random.default_rng(1)
        for number in range(count):
            grain = noise.integers(0, 12, portrait.shape, np.uint8)
            cv2.imwrite(str(self.work / f"frames/{number}.jpg"), cv2.add(portrait, grain * (portrait > 0)))
        files = [str(self.work / f"frames/{number}.jpg") for number in range(count)]
        return [cv2.imread(file, cv2.IMREAD_GRAYSCALE) for file in files]

    def start(self, *command: str) -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen([*INSIDE, *command], env=self.environment, **pipes)

    def fer_edge(self, source: str) -> subprocess.Popen[str]:
        return self.start("/tmp/work/fer_edge.py", "run", "--config", "/tmp/work/config.toml", "--source", source)


@pytest.fixture
def guest(root: Path, wheels: Path, tmp_path: Path) -> Guest:
    return Guest(root, wheels, tmp_path)


@pytest.mark.parametrize(("rotation", "mirror"), [(0, False), (90, True)])
def test_pictures_are_the_cameras_luma_in_full_range(guest: Guest, rotation: int, mirror: bool) -> None:
    shown = guest.write_frames(4)
    process = guest.start("/tmp/work/look.py", "picamera2:1", str(rotation), "mirror" if mirror else "as it is")
    _, stderr = process.communicate(timeout=70)
    assert process.returncode == 0, stderr
    seen = np.load(guest.work / "out.npz")
    pictures = seen["pictures"]
    expected = [np.rot90(picture, -rotation // 90) for picture in shown]
    expected = [picture[:, ::-1] if mirror else picture for picture in expected]
    assert pictures.dtype == np.uint8
    assert pictures.shape == (12, *expected[0].shape)
    for picture in pictures.astype(int):
        # libcamera decodes the JPEG with libyuv's fast transform. A shift by one pixel would differ by 7 on average,
        # limited range by 15, and another of the four pictures by 4.
        difference = min((np.abs(picture - other) for other in expected), key=np.mean)
        assert difference.mean() <= 1.5
        assert difference.max() <= 20
    assert pictures.min() <= 2
    assert pictures.max() >= 253
    assert len({picture.tobytes() for picture in pictures}) > 1
    assert (np.diff(seen["times"]) >= 0).all()
    assert seen["times"][-1] - seen["times"][-2] > 0.45
    assert seen["dropped"] >= 5
    assert seen["closing"] < 2
    assert not seen["video_default_is_full_range"]


def test_a_camera_that_hangs_ends_the_run_as_stalled_though_it_can_never_be_stopped(guest: Guest) -> None:
    guest.write_frames(4)
    process = guest.fer_edge("picamera2:1")
    assert '"kind":"appeared"' in process.stdout.readline()
    (guest.work / "hang").touch()
    hung = time.monotonic()
    _, stderr = process.communicate(timeout=70)
    assert process.returncode == 10, stderr
    assert "fer-edge: error: picamera2:1: the camera has stalled: no new picture in 2 s" in stderr
    assert STALL - 0.5 < time.monotonic() - hung < STALL + SLACK


def test_a_camera_that_repeats_one_picture_ends_the_run_as_stalled(guest: Guest) -> None:
    guest.write_frames(1)
    process = guest.fer_edge("picamera2:1")
    _, stderr = process.communicate(timeout=70)
    assert process.returncode == 10, stderr
    assert "picamera2:1: the camera has stalled: no new picture in 2 s, only the last one again" in stderr


def test_the_error_of_a_missing_camera_names_the_existing_ones(guest: Guest) -> None:
    guest.write_frames(1)
    process = guest.fer_edge("picamera2:7")
    _, stderr = process.communicate(timeout=70)
    assert process.returncode == 5, stderr
    assert "picamera2:7: no such camera (cameras here: " in stderr
    assert "Pictures" in stderr


def test_the_preview_shows_the_camera(guest: Guest) -> None:
    shown = guest.write_frames(4)
    enter = ("env", *(f"{name}={value}" for name, value in guest.environment.items()), *INSIDE)
    arguments = ("preview", "--config", "/tmp/work/config.toml", "--source", "picamera2:1", "--port", "0")
    with previewing(*arguments, command=(*enter, "/tmp/work/fer_edge.py")) as preview:
        preview.read_to("Ctrl-C ends it earlier", 60)
        visitor = preview.visitor()
        seen: list[dict[str, Any]] = []

        def shows_a_face() -> bool:
            if frame := visitor.frame(seen[-1]["number"] if seen else 0):
                seen.append(frame)
            return bool(seen and seen[-1]["faces"])

        wait_until(shows_a_face, 30)
        picture = cv2.imdecode(np.frombuffer(b64decode(seen[-1]["picture"]), np.uint8), cv2.IMREAD_GRAYSCALE)
        assert min(np.abs(picture.astype(int) - other).mean() for other in shown) < 3
        assert seen[-1]["size"] == [640, 480]
