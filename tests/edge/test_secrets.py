"""Secrets in every setting that may hold one, and none of them anywhere: the programs run as their users run them."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

import pytest

from edge.settings import Section, Settings, load_settings
from tests.conftest import Broker, free_port, wait_until
from tests.edge.listener import listening
from tests.edge.mjpeg import Mjpeg, noisy_pictures

pytestmark = pytest.mark.slow

MARK = "SECRETMARK"
BIN = Path(sys.executable).parent


class Watched(NamedTuple):
    """What a command printed, and the command lines and environments of it and its children."""

    code: int
    output: str
    processes: str


def descendants(parent: int) -> Iterator[Path]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[1]) == parent:
                yield folder
                yield from descendants(int(folder.name))


def watch(command: Sequence[object], environ: dict[str, str], seconds: float) -> Watched:
    """Run a command, and look at its processes all the time; stop it after ``seconds``.

    The kernel shows the environment of a process that must not be dumped to root only.
    """
    if os.geteuid() != 0:
        pytest.skip("needs root")
    words = [str(word) for word in command]
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **environ}
    )
    seen: set[str] = set()

    def look() -> None:
        while process.poll() is None:
            try:
                for folder in (Path(f"/proc/{process.pid}"), *descendants(process.pid)):
                    seen.update((folder / name).read_text(errors="replace") for name in ("cmdline", "environ"))
            except (OSError, IndexError):  # it has just ended
                continue
            time.sleep(0.02)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.terminate()
        output, _ = process.communicate(timeout=20)
    watcher.join()
    return Watched(process.returncode, output, "\n".join(seen))


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """A folder with the files of all secrets, as `service install` lays them out."""
    folder = tmp_path / "etc"
    folder.mkdir(mode=0o700)
    for name in ("mqtt-password", "camera-password", "mqtt-key"):
        (folder / name).write_text(f"{MARK}-{name}\n")
    return folder


def write_settings(folder: Path, broker: int, source: str, **camera: str) -> Path:
    """Settings in which both twins have a user; the passwords lie beside them."""
    tables = {
        "camera": {"source": source, "stall_seconds": 2.0, **camera},
        "mqtt": {
            "host": "127.0.0.1",
            "port": broker,
            "device": "kiosk",
            "username": "kiosk",
            "statistics_seconds": 1.0,
        },
        "homeassistant": {"enabled": True},
        "metrics": {"enabled": True, "port": free_port()},
        "store": {"folder": str(folder.parent / "state")},
    }
    lines = (
        [f"[{table}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
        for table, values in tables.items()
    )
    (folder / "config.toml").write_text("\n".join(line for table in lines for line in table))
    return folder / "config.toml"


def test_every_setting_that_may_hold_a_secret_is_tried() -> None:
    """A new setting whose name sounds like a secret must be added here."""
    tables = {name: getattr(Settings(), name) for name in Settings.__struct_fields__}
    sounding = {
        f"{name}.{key}"
        for name, table in tables.items()
        if isinstance(table, Section)
        for key in table.__struct_fields__
        if any(word in key for word in ("password", "secret", "token", "key_file", "source", "url", "username"))
    }
    assert sounding == {
        "camera.source", "camera.username", "camera.password_file", "mqtt.username", "mqtt.password_file",
        "mqtt.key_file",
        "mqtt.url",  # in test_broker_url.py
    }  # fmt: skip


SOURCES = (
    "rtsp://admin:{mark}@127.0.0.1:{dead}/s",
    "rtsp://admin:{mark}#2026@127.0.0.1:{dead}/s",
    "rtsp://admin:p[{mark}@127.0.0.1:{dead}/s",
    "rstp://admin:{mark}@127.0.0.1/s",
    "http://127.0.0.1:{dead}/s?user=a&pwd={mark}",
    "https://admin:{mark}@127.0.0.1:{dead}/s",
)


@pytest.mark.parametrize("source", SOURCES)
def test_no_secret_leaves_a_run_or_the_doctor_whose_camera_fails(secrets: Path, broker: Broker, source: str) -> None:
    config = write_settings(secrets, broker.port, source.format(dead=free_port(), mark=MARK))
    environ = {"CREDENTIALS_DIRECTORY": str(secrets), "NOTIFY_SOCKET": str(secrets.parent / "notify")}
    with listening(broker.port) as listener, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(environ["NOTIFY_SOCKET"])
        ran = watch([BIN / "fer-edge", "run", "--config", config, "--events", "mqtt"], environ, 40)
        status = systemd.recv(100_000, socket.MSG_PEEK).decode()
        wait_until(lambda: listener.of("fault"), 5)
        messages = str(listener.messages)
        systemd.setblocking(False)
        while True:
            try:
                status += systemd.recv(100_000).decode()
            except BlockingIOError:
                break
    assert ran.code == 5
    assert "Traceback" not in ran.output
    assert "STATUS=" in status
    examined = watch([BIN / "fer-edge", "doctor", "--config", config, "--json"], {}, 120)
    assert "edge.diagnostics.probes" in examined.processes, "the children were seen"
    for said in (ran.output, ran.processes, messages, status, examined.output, examined.processes, stored(secrets)):
        assert MARK not in said


def test_no_secret_leaves_a_run_that_works(secrets: Path, broker: Broker) -> None:
    """With a user and a password for camera and broker, Home Assistant, metrics, and a recording."""
    recording, metrics = secrets.parent / "visit.jsonl", ""
    with Mjpeg(noisy_pictures) as camera, listening(broker.port) as listener:
        config = write_settings(secrets, broker.port, f"{camera.url}?token={MARK}", username=f"{MARK}-user")
        command = [BIN / "fer-edge", "run", "--config", config, "--events", "mqtt", "--record", recording]
        page = f"http://127.0.0.1:{load_settings(config).metrics.port}/metrics"
        scraper = Scraper(page)
        scraper.start()
        ran = watch(command, {"CREDENTIALS_DIRECTORY": str(secrets)}, 12)
        scraper.join()
        messages, metrics = str(listener.messages), scraper.text
    assert ran.code == 0, ran.output
    assert "appeared" in messages
    assert recording.stat().st_size > 1000
    assert "fer_edge" in metrics
    for said in (metrics, ran.output, ran.processes, messages, recording.read_text(), stored(secrets)):
        assert MARK not in said


class Scraper(threading.Thread):
    """Reads a page of metrics as soon as there is one."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text = ""
        self._page = page

    def run(self) -> None:
        for _ in range(100):
            time.sleep(0.1)
            try:
                with urlopen(self._page, timeout=2) as answer:
                    self.text = answer.read().decode()
            except OSError:
                continue
            if "fer_edge_frames_total 0.0" not in self.text and self.text:
                return


def stored(secrets: Path) -> str:
    """Everything that the program has written into its state folder."""
    files = [file for file in (secrets.parent / "state").rglob("*") if file.is_file()]
    return "".join(file.read_bytes().decode("latin-1") for file in files)
