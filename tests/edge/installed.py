"""A device with the service and an instance `door`: settings and state at their real paths, in a mount namespace."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.edge.cli.test_main import PROGRAM

SERVICE_USER = 65534  # nobody

_ENTER = """set -e
mount -t tmpfs tmpfs /var/lib
mkdir /var/lib/fer-edge
mount --bind "$1/state" /var/lib/fer-edge
mount --bind "$1/etc" /etc
shift
exec "$@"
"""


@dataclass(frozen=True)
class Device:
    """``folder`` has its ``etc`` and its ``state``, which belongs to the user of the service."""

    folder: Path

    @property
    def state(self) -> Path:
        """What is /var/lib/fer-edge there."""
        return self.folder / "state"

    def write_settings(self, text: str, instance: str = "") -> None:
        """The settings of the service, or of an instance."""
        file = self.folder / "etc/fer-edge" / instance / "config.toml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    @property
    def enter(self) -> tuple[str, ...]:
        """What goes before a command that runs there, as root."""
        return ("unshare", "--mount", "--propagation=private", "sh", "-c", _ENTER, "sh", str(self.folder))

    def fer_edge(self, *words: object) -> subprocess.CompletedProcess[str]:
        """Type a command of fer-edge there as root."""
        command = [*self.enter, PROGRAM, *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        print(done.stderr)
        return done


@contextmanager
def installed() -> Iterator[Device]:
    """A device whose service and instance have empty settings and no model but the bundled ones."""
    if os.geteuid() != 0 or not shutil.which("unshare"):
        pytest.skip("needs root and unshare")
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o755)  # the user of the service goes through it
        device = Device(Path(name))
        shutil.copytree("/etc", device.folder / "etc", symlinks=True)
        for instance in ("", "door"):
            device.write_settings("", instance)
            state = device.state / instance
            state.mkdir(mode=0o750)
            os.chown(state, SERVICE_USER, SERVICE_USER)
        yield device
