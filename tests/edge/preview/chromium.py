"""A headless Chromium, driven by the DevTools protocol over a socket: no library is needed for that."""

import base64
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
_OPTIONS += ("--disable-component-update", "--disable-sync", "--remote-debugging-pipe")


class Page:
    """A tab. ``errors`` are the exceptions of its scripts and what its security policy has blocked."""

    def __init__(self, browser: socket.socket) -> None:
        self.errors: list[str] = []
        self._browser = browser
        self._unread = b""
        self._number = 0
        self._session: dict[str, str] = {}
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = {"sessionId": self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")

    def open(self, address: str, width: int = 1280, height: int = 900, *, mobile: bool = False) -> None:
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if mobile else 1,
            mobile=mobile,
        )
        self._call("Page.navigate", url=address)

    def value(self, expression: str) -> Any:
        """What a JavaScript expression gives."""
        return self._call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def text(self) -> str:
        return str(self.value("document.body.innerText"))

    def wait_for(self, words: str, seconds: float = 20) -> str:
        """Wait until the page shows the words; returns all its text."""
        deadline = time.monotonic() + seconds
        while words not in (text := self.text()):
            assert time.monotonic() < deadline, f"no {words!r} in {text!r}; {self.errors}"
            time.sleep(0.05)
        return text

    def picture(self, file: Path) -> None:
        file.write_bytes(base64.b64decode(self._call("Page.captureScreenshot")["data"]))

    def _call(self, method: str, **parameters: object) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters, **self._session}
        self._browser.sendall(json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            if answer.get("method") == "Runtime.exceptionThrown":
                self.errors.append(str(answer["params"]["exceptionDetails"]))
            if answer.get("method") == "Log.entryAdded" and answer["params"]["entry"]["source"] == "security":
                self.errors.append(answer["params"]["entry"]["text"])
        assert "result" in answer, answer
        return dict(answer["result"])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._unread:
            more = self._browser.recv(1 << 20)
            assert more, "Chromium has ended"
            self._unread += more
        message, _, self._unread = self._unread.partition(b"\0")
        return dict(json.loads(message))


@contextmanager
def chromium(folder: Path) -> Iterator[Page]:
    """A new Chromium with one tab; the test is skipped where there is none."""
    program = shutil.which("chromium")
    if not program:
        pytest.skip("no Chromium")
    ours, its = socket.socketpair()
    # Chromium reads from its descriptor 3 and writes to 4.
    shell = 'exec "$0" "$@" 3<&0 4>&0 </dev/null >/dev/null 2>&1'
    command = ["sh", "-c", shell, program, *_OPTIONS, f"--user-data-dir={folder}"]
    with ours, subprocess.Popen(command, stdin=its) as process:
        its.close()
        try:
            yield Page(ours)
        finally:
            process.terminate()
