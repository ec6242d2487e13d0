"""The real program as a child process, and what systemd does for it: restarts, watchdog, runtime folder."""

import contextlib
import http.client
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.conftest import ROOT

WATCHDOG_SECONDS: Final = 10.0
_RESTART_SECONDS: Final = 0.3
_ABORT_SECONDS: Final = 3.0
_METRICS_SECONDS: Final = 0.2
_UNIT: Final = ROOT / "systemd" / "fer-edge.service"


def unit_environ() -> dict[str, str]:
    """The environment variables that the unit sets."""
    return dict(re.findall(r"^Environment=(\w+)=(\S+)$", _UNIT.read_text(), re.MULTILINE))


@dataclass(frozen=True)
class End:
    """How a process ended: its exit code, negative for a signal, and whether it was ``asked`` to stop."""

    pid: int
    code: int
    asked: bool


class Device:
    """Keeps ``command`` running until it is closed; each ``End`` goes to ``ended``, before the next start."""

    def __init__(
        self, folder: Path, command: list[str], environ: dict[str, str], metrics_port: int, ended: Callable[[End], None]
    ) -> None:
        self.starts = 0
        self.pid = 0
        self.ready_since: float | None = None
        self.log = folder / "device.log"
        self.runtime = folder / "run"
        self.runtime.mkdir()
        self._command = command
        self.page = f"http://127.0.0.1:{metrics_port}/metrics"
        self._ended = ended
        self._closing = threading.Event()
        self._asked = self._boot = False
        self._between: Callable[[], None] | None = None
        self._last_page: tuple[float, dict[str, float]] = (0.0, {})
        self._fed = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(str(folder / "notify"))
        self._notify.settimeout(0.05)
        self._environ = {
            **environ,
            "NOTIFY_SOCKET": str(folder / "notify"),
            "WATCHDOG_USEC": str(int(WATCHDOG_SECONDS * 1e6)),
            "RUNTIME_DIRECTORY": str(self.runtime),
            **unit_environ(),
        }
        self._thread = threading.Thread(target=self._supervise)
        self._thread.start()

    def kill(self, *, boot: bool = False, then: Callable[[], None] | None = None) -> None:
        """Send SIGKILL; with ``boot`` the runtime folder is emptied before the next start, and ``then`` is called."""
        self._boot, self._between = boot, then
        if self._process:
            self._process.kill()

    def stop(self, *, boot: bool = False, then: Callable[[], None] | None = None) -> None:
        """Stop it in order; it is started again."""
        self._asked, self._boot, self._between = True, boot, then
        if self._process:
            self._process.terminate()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        if self._process:
            self._process.send_signal(number)

    def forget_failures(self) -> None:
        """Forget earlier failed starts: in a kiosk's life there are hours between two faults."""
        with contextlib.suppress(FileNotFoundError):
            (self.runtime / "failures.json").unlink()

    def close(self) -> None:
        """Stop it for good."""
        self._closing.set()
        self.stop()
        self._thread.join()
        self._notify.close()

    def metrics(self, *, of_now: bool = False) -> dict[str, float]:
        """Its metrics, values by name with labels; empty while the page does not answer.

        They may be a moment old, because several threads ask again and again, unless they must be ``of_now``.
        """
        at, values = self._last_page
        if of_now or time.monotonic() - at > _METRICS_SECONDS:
            values = self._read_page()
            self._last_page = (time.monotonic(), values)
        return values

    def _read_page(self) -> dict[str, float]:
        try:
            with urllib.request.urlopen(self.page, timeout=3) as page:
                lines = page.read().decode().splitlines()
        except (OSError, http.client.HTTPException):
            return {}
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}

    def _supervise(self) -> None:
        while not self._closing.is_set():
            self._run()
            self._closing.wait(_RESTART_SECONDS)

    def _run(self) -> None:
        if self._boot:
            shutil.rmtree(self.runtime, ignore_errors=True)
            self.runtime.mkdir()
        if between := self._between:
            between()
        self._asked, self._boot, self._between = False, False, None
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self._command, env=self._environ, stdout=log, stderr=log)
        self.pid = self._process.pid
        self.starts += 1
        aborted = None
        while (code := self._process.poll()) is None:
            self._listen()
            if self._closing.is_set() and not self._asked:
                self.stop()
            now = time.monotonic()
            if aborted is None and self.ready_since is not None and now - self._fed > WATCHDOG_SECONDS:
                aborted = now
                self._process.send_signal(signal.SIGABRT)
            elif aborted is not None and now - aborted > _ABORT_SECONDS:
                self._process.kill()
        self.ready_since = None
        self._ended(End(self.pid, code, self._asked))

    def _listen(self) -> None:
        with contextlib.suppress(TimeoutError):
            message = self._notify.recv(4096).decode()
            if "READY=1" in message:
                self.ready_since = self._fed = time.monotonic()
            if "WATCHDOG=1" in message:
                self._fed = time.monotonic()
