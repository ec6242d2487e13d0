"""`fer-edge run` as a user runs it, on a network camera that misbehaves: exit code, output, and time."""

import itertools
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from edge.camera.sources import open_source
from edge.settings import CameraSettings
from tests.conftest import wait_until
from tests.edge.mjpeg import Mjpeg, noisy_pictures

pytestmark = pytest.mark.slow

STALL = 2.0
SLACK = 3.0  # giving up a camera that hangs takes a second; the rest is for a busy machine
FER_EDGE = Path(sys.executable).with_name("fer-edge")


class Ending(NamedTuple):
    """How a run ended, and how many seconds after the camera stopped showing new pictures."""

    code: int
    stdout: str
    stderr: str
    seconds: float


def start(folder: Path, url: str, *options: str) -> subprocess.Popen[str]:
    config = folder / "config.toml"
    config.write_text(f"[camera]\nstall_seconds = {STALL}\n")
    command = [FER_EDGE, "run", "--config", config, "--source", url, *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(process: subprocess.Popen[str], seconds: float) -> tuple[int, str, str]:
    """Exit code, stdout and stderr; a process that doesn't end in time is killed and the test fails."""
    try:
        stdout, stderr = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return process.returncode, stdout, stderr


def frozen_after(count: int) -> Iterator[bytes]:
    """Pictures of a camera that repeats one for ever after the first ``count``."""
    changing = list(itertools.islice(noisy_pictures(), count))
    yield from changing
    while True:
        yield changing[-1]


def run_on_stream(folder: Path, pictures: Callable[[], Iterator[bytes]], *, hang_up: bool = False) -> Ending:
    """Run on a stream that is changing for 60 pictures."""
    with Mjpeg(pictures, hang_up=hang_up) as camera:
        process = start(folder, camera.url)
        wait_until(lambda: camera.sent >= 60, 30)
        since = time.monotonic()
        code, stdout, stderr = end(process, 30)
        return Ending(code, stdout, stderr.replace(camera.url, "URL"), time.monotonic() - since)


def test_a_stream_that_falls_silent_ends_the_run_as_stalled(tmp_path: Path) -> None:
    ending = run_on_stream(tmp_path, lambda: itertools.islice(noisy_pictures(), 60))
    assert ending.code == 10
    assert ending.stderr.endswith("error: URL: the camera has stalled: no new picture in 2 s\n")
    assert '"kind":"appeared"' in ending.stdout
    assert STALL - 0.5 < ending.seconds < STALL + SLACK


def test_a_stream_that_repeats_one_picture_ends_the_run_as_stalled(tmp_path: Path) -> None:
    ending = run_on_stream(tmp_path, lambda: frozen_after(60))
    assert ending.code == 10
    assert "error: URL: the camera has stalled: no new picture in 2 s, only the last one again" in ending.stderr
    assert STALL - 0.5 < ending.seconds < STALL + SLACK


def test_a_stream_whose_server_hangs_up_ends_the_run_as_unreadable(tmp_path: Path) -> None:
    ending = run_on_stream(tmp_path, lambda: itertools.islice(noisy_pictures(), 60), hang_up=True)
    assert ending.code == 5
    assert ending.stderr.endswith("error: URL: the stream ended. Is the server running?\n")
    assert ending.seconds < SLACK


@pytest.mark.parametrize("kind", ["http", "rtsp"])
def test_a_server_that_accepts_and_says_nothing_does_not_hang_the_start(tmp_path: Path, kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"{kind}://127.0.0.1:{mute.getsockname()[1]}/live"
        started = time.monotonic()
        code, _, stderr = end(start(tmp_path, url.replace("//", "//user:secret@")), 40)
        took = time.monotonic() - started
    assert code == 5
    assert f"{url.replace('//', '//***@')}: no video stream within 10 s" in stderr
    assert "secret" not in stderr
    assert took < 10 + 10


@pytest.mark.parametrize("kind", ["http", "rtsp", "rtmp", "tcp"])
def test_a_missing_server_is_reported_at_once(tmp_path: Path, kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    started = time.monotonic()
    code, _, stderr = end(start(tmp_path, f"{kind}://127.0.0.1:{port}/live"), 40)
    assert code == 5
    assert "/live: no connection: Connection refused. Is the server running, and the address right?" in stderr
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("kind", ["http", "rtsp"])
def test_a_name_that_is_not_known_is_reported(tmp_path: Path, kind: str) -> None:
    code, _, stderr = end(start(tmp_path, f"{kind}://camera.invalid/live"), 40)
    assert code == 5
    assert re.search(r"camera\.invalid/live: no connection: .*[Nn]ame", stderr)


@pytest.mark.parametrize("silent", [False, True])
def test_ctrl_c_ends_the_run_in_time_whether_the_camera_works_or_hangs(tmp_path: Path, silent: bool) -> None:
    count = 30 if silent else sys.maxsize
    with Mjpeg(lambda: itertools.islice(noisy_pictures(), count)) as camera:
        process = start(tmp_path, camera.url)
        wait_until(lambda: camera.sent >= 30, 30)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        interrupted = time.monotonic()
        code, _, _ = end(process, 30)
    assert code == 130
    assert time.monotonic() - interrupted < SLACK


def test_frames_that_come_too_fast_are_dropped_and_counted() -> None:
    """Only the newest frame is processed; nothing queues up behind a slow detector."""
    with Mjpeg(noisy_pictures) as camera:
        source = open_source(CameraSettings(source=camera.url))
        frames = source.frames()
        first = next(frames)
        time.sleep(1.0)
        second, third = next(frames), next(frames)
        source.close()
    assert second.time - first.time > 0.8
    assert third.time - second.time < 0.5
    assert source.dropped >= 5
    assert not [thread for thread in threading.enumerate() if thread.name == "camera"]
