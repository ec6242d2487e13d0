"""Real processes with files and streams that would take much memory, never end, or have no name in UTF-8."""

import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.edge.hostile_files import make_bundle, make_pictures, make_tables, make_tree, make_videos
from tests.edge.mjpeg import Mjpeg, noisy_pictures

pytestmark = pytest.mark.slow

FER_EDGE = Path(sys.executable).parent / "fer-edge"
RUN_MB, COMMAND_MB, SECONDS = 160, 500, 60
NESTED = b'{"x":' + b"[" * 100_000


class Ended(NamedTuple):
    """How a command ended: exit code, what it said, and the most memory that it had, in MB (2^20 bytes)."""

    code: int
    output: str
    errors: str
    megabytes: float


def fer_edge(folder: Path, *words: object) -> Ended:
    """Run a command with a strict UTF-8 stdout; it has a minute."""
    said, errors = folder / "stdout", folder / "stderr"
    environ = {**os.environ, "PYTHONIOENCODING": "utf-8:strict", "XDG_STATE_HOME": str(folder / "state")}
    environ.pop("PYTHONUTF8", None)
    with said.open("wb") as out, errors.open("wb") as err:
        process = subprocess.Popen([FER_EDGE, *map(str, words)], stdout=out, stderr=err, env=environ)
        deadline, peak = time.monotonic() + SECONDS, 0.0
        while process.poll() is None:
            peak = max(peak, peak_megabytes(process.pid))
            if time.monotonic() > deadline:
                process.kill()
                pytest.fail(f"{words} did not end in {SECONDS} s: {errors.read_text(errors='replace')}")
            time.sleep(0.005)
    result = Ended(process.returncode, said.read_text(), errors.read_text(errors="replace"), peak)
    assert "Traceback" not in result.errors, result.errors
    assert 20 < result.megabytes < (RUN_MB if words[0] == "run" else COMMAND_MB), words
    return result


def peak_megabytes(process: int) -> float:
    """The most memory that a process has had. (What ``wait4`` says may be that of the process which started it.)"""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0.0)


def test_pictures(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    pictures = make_pictures(folder)
    classified = fer_edge(tmp_path, "classify", "--json", *pictures)
    assert classified.code == 1
    faces = [json.loads(line) for line in classified.output.splitlines()]
    assert [len(one["faces"]) for one in faces] == [1], "the portrait at the end of the list"
    assert faces[-1]["source"].endswith("portr\udcff\udce4it.jpg")
    assert "wide.png: has 100000x1 pixels" in classified.errors
    assert "pipe.png: cannot be read: this is a named pipe" in classified.errors
    assert "large.png: not a picture that OpenCV can decode with 250 MB" in classified.errors
    assert fer_edge(tmp_path, "classify", pictures[-1]).output.count("happy") == 1, (
        "its name cannot be printed as it is"
    )
    ran = fer_edge(tmp_path, "run", "--source", folder, "--sheet", tmp_path / "sheet.png")
    assert ran.code == 0
    assert ran.errors.count("skipped") == len(pictures) - 1


def test_videos(tmp_path: Path) -> None:
    large, grows, slow = (fer_edge(tmp_path, "run", "--source", video) for video in make_videos(tmp_path))
    assert (large.code, grows.code, slow.code) == (5, 0, 0)
    assert "its frames are 12000x12000; the largest" in large.errors
    assert "more than an hour forward" in slow.errors


@pytest.mark.parametrize("before", [0, 20])
def test_an_mjpeg_stream_with_a_picture_without_end(tmp_path: Path, before: int) -> None:
    with Mjpeg(lambda: itertools.islice(noisy_pictures(), before), endless=True) as camera:
        ended = fer_edge(tmp_path, "run", "--source", camera.url)
    assert ended.code == 5
    assert f"{camera.url}: 20 MB came, and no picture that ends" in ended.errors


def test_labelled_faces(tmp_path: Path) -> None:
    for table in make_tables(tmp_path):
        ended = fer_edge(tmp_path, "verify", "--data", table)
        assert (ended.code, "longer than" in ended.errors) == (7, True), ended
        assert ended.megabytes < 120
    assert fer_edge(tmp_path, "verify", "--json", "--data", make_tree(tmp_path / "tree")).output.count('"n": 1,') == 1


def test_bundles_recordings_and_settings(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for words, code in {
        ("model", "install", "--no-restart", "/dev/zero"): 4,
        ("model", "install", "--no-restart", make_bundle(tmp_path / "bundle", NESTED)): 4,
        ("replay", pipe): 5,
        ("run", "--config", pipe): 3,
        ("run", "--source", "a" * 5000): 5,
    }.items():
        assert fer_edge(tmp_path, *words).code == code, words
