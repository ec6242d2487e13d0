"""A Debian container with a booted systemd, and a subscriber to the broker inside."""

import json
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.conftest import wait_until

# Without a unified hierarchy, these capabilities and bpf, systemd silently leaves the unit's DevicePolicy out.
NSPAWN = (
    "--boot",
    "--register=no",
    "--keep-unit",
    "--private-network",
    "--console=pipe",
    "--capability=all",
    "--system-call-filter=bpf",
)

BOX = "opt/test"
"""Folder of the container for what only the tests need: wheels, the camera, a probe."""

CONFIG = """
[camera]
source = "http://127.0.0.1:8080/"
[detect]
min_face = 0.2
[mqtt]
device = "kiosk"
statistics_seconds = 2
"""
"""The service's settings."""


class Container:
    """A booted Debian in systemd-nspawn, with no network but its own loopback."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "root"
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._init = 0

    def boot(self) -> None:
        """Boot, and wait until systemd reports that it is up."""
        with (self.folder / "boot.log").open("ab") as log:
            self._nspawn = subprocess.Popen(
                ["systemd-nspawn", "-q", "-D", self.root, "-M", f"fer-{os.getpid()}-{self.folder.name[:9]}", *NSPAWN],
                env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children")

        def found() -> bool:
            pids = children.read_text().split()
            self._init = int(pids[0]) if pids else 0
            return self._init > 0 and self.run("systemctl", "is-system-running", check=False).strip() in (
                "running",
                "degraded",
            )

        wait_until(found, 60)

    def reboot(self) -> None:
        """Restart the whole container. With --keep-unit, nspawn exits with 133 and its parent has to start it again."""
        assert self._nspawn
        self.run("systemctl", "reboot", check=False)
        assert self._nspawn.wait(30) == 133
        self.boot()

    def power_off(self) -> None:
        """Shut down; kill the container if it does not."""
        assert self._nspawn
        self.run("systemctl", "poweroff", check=False)
        try:
            self._nspawn.wait(20)
        except subprocess.TimeoutExpired:
            self._nspawn.kill()
            self._nspawn.wait()

    def popen(self, *words: str, options: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        """Start a command inside, as root."""
        command = ["nsenter", "-t", str(self._init), "-a", "-r", "-w", *options, *words]
        clean = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
        return subprocess.Popen(command, env=clean, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def run(self, *words: str, check: bool = True) -> str:
        """Run a command inside and return what it prints."""
        with self.popen(*words) as process:
            output, _ = process.communicate(timeout=600)  # pip takes minutes on a busy machine
        assert not check or process.returncode == 0, f"{words} gave {process.returncode}: {output}"
        return output

    def write(self, file: str, text: str) -> None:
        path = self.root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def show(self, name: str) -> str:
        """A property of the unit."""
        return self.run("systemctl", "show", "fer-edge", f"--property={name}", "--value").strip()

    def ready(self, *, after: int = 0, seconds: float = 60) -> int:
        """Wait until the service is up with another process than ``after``; returns its process id."""
        found = 0

        def is_up() -> bool:
            nonlocal found
            # One call for both: between two calls, systemd may notice a killed process, and its id becomes 0.
            properties = dict(line.split("=") for line in self._properties("ActiveState", "MainPID").split())
            found = int(properties["MainPID"])
            return properties["ActiveState"] == "active" and found not in (0, after)

        wait_until(is_up, seconds)
        return found

    def _properties(self, *names: str) -> str:
        return self.run("systemctl", "show", "fer-edge", f"--property={','.join(names)}")

    def restart(self, changes: str = "") -> int:
        """Restart the service with a drop-in, as `systemctl edit` makes it; returns the process id."""
        self.write("etc/systemd/system/fer-edge.service.d/test.conf", f"[Service]\n{changes}")
        self.run("systemctl", "daemon-reload")
        self.run("systemctl", "restart", "fer-edge")
        return self.ready()

    def fer_edge(self, *words: str, check: bool = True) -> str:
        """Run the installed program."""
        return self.run("/opt/fer-edge/bin/fer-edge", *words, check=check)

    def send_command(self, name: str, payload: str) -> None:
        """Publish one of the device's MQTT commands."""
        self.run("mosquitto_pub", "-q", "1", "-t", f"fer-edge/kiosk/command/{name}", "-m", payload)

    def journal(self, since: float) -> str:
        """The service's journal since a time in seconds of the epoch."""
        return self.run("journalctl", "--unit=fer-edge", f"--since=@{since:.0f}", "--output=cat")

    def status(self) -> dict[str, Any]:
        """What ``fer-edge service status --json`` prints."""
        return dict(json.loads(self.fer_edge("service", "status", "--json", check=False)))


class Subscriber:
    """A real mosquitto_sub inside the container, read in the background; messages come as (topic, payload)."""

    def __init__(self, container: Container, topic: str, *more: str) -> None:
        self.messages: list[tuple[str, str]] = []
        # Without a fork it is this process, which can be terminated.
        self._process = container.popen("mosquitto_sub", "-t", topic, "-q", "1", "-v", *more, options=("--no-fork",))
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            topic, _, payload = line.rstrip("\n").partition(" ")
            self.messages.append((topic, "" if payload == "(null)" else payload))

    def event_ids(self) -> list[str]:
        """The ids of all events so far."""
        return [json.loads(payload)["id"] for topic, payload in list(self.messages) if topic.endswith("/event")]

    def wait(self, matches: Callable[[str, str], bool], seconds: float) -> str:
        """Wait for a message; returns its payload."""
        found: list[str] = []

        def has_come() -> bool:
            found.extend(payload for topic, payload in self.messages if matches(topic, payload))
            return bool(found)

        wait_until(has_come, seconds)
        return found[0]

    def close(self) -> None:
        self._process.terminate()
        self._reader.join()
        with self._process:
            pass
