"""A long storm in rounds: each in a process and a world of its own, some at the same time; what is done is kept."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.conftest import ROOT
from tests.soak.plan import Fault, storm
from tests.soak.run import soak

ROUND_FAULTS: Final = 500
"""So many that the first process of a round lives through 200 of them."""


@dataclass(frozen=True)
class Round:
    """A part of a storm: what it follows from."""

    seed: int
    number: int
    faults: int
    kinds: tuple[str, ...]

    def plan(self) -> Sequence[Fault]:
        return storm(f"{self.seed}.{self.number}", self.faults, self.kinds)

    def identity(self) -> list[Any]:
        """What tells it from others in the file with what is done: a plan that has changed is another round."""
        plan = hashlib.sha256(repr(self.plan()).encode()).hexdigest()
        return [self.seed, self.number, self.faults, plan[:16]]


def rounds(seed: int, faults: int, kinds: Sequence[str]) -> Iterator[Round]:
    """The rounds of a storm."""
    for number, first in enumerate(range(0, faults, ROUND_FAULTS)):
        yield Round(seed, number, min(ROUND_FAULTS, faults - first), tuple(kinds))


def run_round(one: Round, folder: Path | None, log: Callable[[str], None]) -> dict[str, Any]:
    """Run a round in this process; ``folder`` is a new one that keeps its files."""
    with tempfile.TemporaryDirectory() as temporary:
        if folder:
            folder.mkdir(parents=True)
        report = soak(one.plan(), folder or Path(temporary), log)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    return {"round": one.identity(), "commit": commit[:12], "cores": os.cpu_count(), **report.as_line()}


class Journal:
    """The file with the results of the rounds that are done, one in a line."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()

    def all(self) -> list[dict[str, Any]]:
        """The results of all rounds that are done."""
        return list(map(json.loads, self._file.read_text().splitlines())) if self._file.exists() else []

    def of(self, wanted: Sequence[Round]) -> list[dict[str, Any]]:
        """The results of those rounds that are done, with the same faults."""
        names = [one.identity() for one in wanted]
        return [line for line in self.all() if line["round"] in names]

    def add(self, result: dict[str, Any]) -> None:
        with self._lock, self._file.open("a") as file:
            file.write(json.dumps(result) + "\n")


class RoundRunner:
    """Runs rounds in processes of their own, ``worlds`` at a time; those that fail are told to ``log``."""

    def __init__(self, journal: Journal, words: Sequence[str], log: Callable[[str], None]) -> None:
        self._journal, self._words, self._log = journal, words, log
        self._processes: list[subprocess.Popen[str]] = []
        self._ended = threading.Event()

    def run(self, wanted: Sequence[Round], worlds: int) -> None:
        """Run those that are not done. Ends all of them when it is interrupted."""
        done = [line["round"] for line in self._journal.of(wanted)]
        with ThreadPoolExecutor(worlds) as pool:
            try:
                list(pool.map(self._one, [one for one in wanted if one.identity() not in done]))
            finally:
                self._ended.set()
                for process in self._processes:
                    process.terminate()

    def _one(self, one: Round) -> None:
        if self._ended.is_set():
            return
        command = [sys.executable, "-m", "tests.soak", *self._words, "--round", str(one.number)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._processes.append(process)
        output, _ = process.communicate()
        self._processes.remove(process)
        if process.returncode not in (0, 1):
            self._log(f"round {one.number} ended with {process.returncode}, and is not done")
            return
        result = json.loads(output)
        self._journal.add(result)
        self._log(f"round {one.number} is done: {result['violations'] or 'all promises were kept'}")
