"""A running ``fer-edge preview`` at a terminal of its own, as a person starts it, and a browser's requests to it."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import wait_until

PROGRAM = (str(Path(sys.executable).with_name("fer-edge")), "preview")


@dataclass
class Visitor:
    """Somebody with the page's ``address``, ``http://…/``; a browser that keeps one cookie."""

    address: str
    cookie: str = ""

    def get(self, path: str = "", body: str | None = None, **headers: str) -> tuple[int, bytes]:
        data = None if body is None else body.encode()
        wanted = urllib.request.Request(self.address + path, data, {"Cookie": self.cookie, **headers})
        try:
            with urllib.request.urlopen(wanted, timeout=10) as answer:
                self.cookie = (answer.headers["Set-Cookie"] or self.cookie).partition(";")[0]
                return answer.status, answer.read()
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, refused.read()

    def frame(self, after: int = 0) -> dict[str, Any] | None:
        status, body = self.get(f"live?{after}")
        assert status == 200, body
        frame: dict[str, Any] | None = json.loads(body)["frame"]
        return frame


@dataclass
class Preview:
    """The process, what it has printed so far on its terminal, and where its page is."""

    process: subprocess.Popen[bytes]
    terminal: int
    printed: str = ""

    def has_printed(self, words: str) -> bool:
        with suppress(OSError):  # nothing new; or the process has closed its side
            self.printed += os.read(self.terminal, 65_536).decode()
        return words in self.printed

    def read_to(self, words: str, seconds: float = 30) -> None:
        wait_until(lambda: self.has_printed(words) or self.process.poll() is not None, seconds)
        assert self.has_printed(words), self.printed

    @property
    def invitation(self) -> str:
        """The page's address with the code behind ``#``."""
        found = re.search(r"http://\S+#\S+", self.printed)
        assert found, self.printed
        return found[0]

    def visitor(self) -> Visitor:
        """Somebody who has given the code."""
        address, _, code = self.invitation.partition("#")
        made = Visitor(address)
        assert made.get("session", code)[0] == 200
        return made

    def interrupt(self) -> int:
        """Press Ctrl-C; returns the exit code."""
        self.process.send_signal(signal.SIGINT)
        self.has_printed("")
        return self.process.wait(20)


@contextmanager
def previewing(*arguments: object, command: Sequence[object] = PROGRAM) -> Iterator[Preview]:
    """Start the preview at a terminal. It need not succeed."""
    ours, its = os.openpty()
    os.set_blocking(ours, False)
    words = [*map(str, command), *map(str, arguments)]
    process = subprocess.Popen(words, stdin=its, stdout=its, stderr=its, start_new_session=True)
    os.close(its)
    try:
        yield Preview(process, ours)
    finally:
        with suppress(ProcessLookupError):  # all have ended
            os.killpg(process.pid, signal.SIGKILL)  # a command such as `timeout` has a child, which would live on
        process.wait(20)
        os.close(ours)
