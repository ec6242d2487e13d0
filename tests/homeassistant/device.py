"""A fer-edge in a process of its own that Home Assistant sees, and a camera whose visitor comes and goes."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from tests.conftest import PORTRAIT
from tests.edge.mjpeg import Mjpeg, jpeg

FER_EDGE = [sys.executable, "-c", "import sys; from edge.cli.main import main; sys.exit(main())"]

PRESET = '[[preset]]\nname = "smile"\nexpression = "happy"\nfor_seconds = 0.5\n'


class Door(Mjpeg):
    """A camera at a door: while ``somebody`` is set, a visitor looks into it with the ``face`` that is named."""

    def __init__(self) -> None:
        super().__init__(self._pictures_at_the_door)
        self.somebody = True
        self.face: Literal["smiling", "mouth upside down", "blurred"] = "smiling"

    def _pictures_at_the_door(self) -> Iterator[bytes]:
        portrait = cv2.imread(str(PORTRAIT))
        assert portrait is not None
        height, width = portrait.shape[:2]
        near = portrait[int(0.05 * height) : int(0.55 * height), int(0.12 * width) : int(0.62 * width)]
        near = cv2.resize(near, (320, 240), interpolation=cv2.INTER_AREA)
        upside_down = near.copy()
        upside_down[140:195, 110:210] = near[140:195, 110:210][::-1]  # no smile any more
        faces = {"smiling": near, "mouth upside down": upside_down, "blurred": cv2.GaussianBlur(near, (0, 0), 6)}
        noise = np.random.default_rng(1)
        while True:
            shown = faces[self.face] if self.somebody else np.full_like(near, 120)
            yield jpeg(cv2.add(shown, noise.integers(0, 12, near.shape, np.uint8)))


class Device:
    """A ``fer-edge`` with a name and settings, started and ended as systemd does it; ``port`` is the broker's."""

    def __init__(self, folder: Path, port: int, name: str, source: str) -> None:
        self.folder, self.port, self.name, self.source = folder, port, name, source
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir()
        # Only under systemd does it tell the broker why it ended.
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(str(folder / "notify"))

    def start(self, more: str = "", *, mqtt: str = "", homeassistant: str = "enabled = true") -> None:
        (self.folder / "config.toml").write_text(
            f'[camera]\nsource = "{self.source}"\n[detect]\nmin_face = 0.2\n[mqtt]\nhost = "127.0.0.1"\n'
            f'port = {self.port}\ndevice = "{self.name}"\n{mqtt or "statistics_seconds = 2"}\n'
            f"[homeassistant]\n{homeassistant}\n{more}"
        )
        systemd = {"STATE_DIRECTORY": str(self.folder / "state"), "NOTIFY_SOCKET": str(self.folder / "notify")}
        environ = {**os.environ, **systemd}
        command = [*FER_EDGE, "run", "--config", str(self.folder / "config.toml"), "--events", "mqtt"]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, env=environ, stderr=log, stdout=log)

    def end(self, *, kill: bool = False) -> None:
        if process := self._process:
            process.kill() if kill else process.terminate()
            process.wait(20)
            self._process = None

    def close(self) -> None:
        self.end(kill=True)
        self._notify.close()

    @property
    def ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def wait(self) -> int:
        """Wait until it ends by itself; its exit code."""
        assert self._process
        return self._process.wait(60)
