"""Runs the probes of edge.diagnostics.probes in child processes with a time limit."""

import json
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ProbeResult:
    """The JSON objects that a probe printed, and what went wrong with it; ``problem`` is empty if nothing did."""

    output: list[dict[str, Any]]
    problem: str

    def values(self, key: str) -> list[Any]:
        """All values that were printed under one key; those that are lists are joined."""
        found = [line[key] for line in self.output if key in line]
        return [item for value in found for item in (value if isinstance(value, list) else [value])]


def run_probe(python: Sequence[str], name: str, argument: str, seconds: float) -> ProbeResult:
    """Run one probe. ``python`` is the command that starts the interpreter, ``seconds`` is the time limit.

    The argument goes by standard input: it may hold an address with a password, and everybody can read a command line.
    """
    command = [*python, "-m", "edge.diagnostics.probes", name]
    try:
        done = subprocess.run(command, input=argument, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as late:
        output = late.stdout.decode() if isinstance(late.stdout, bytes) else late.stdout or ""
        return ProbeResult(_json_objects(output), f"no answer within {seconds:g} s")
    problem = ""
    if done.returncode < 0:
        problem = f"crashed with {signal.Signals(-done.returncode).name}"
    elif done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        problem = last.removeprefix("probe: error: ")
    return ProbeResult(_json_objects(done.stdout), problem)


def _json_objects(output: str) -> list[dict[str, Any]]:
    """The lines that are JSON objects. Libraries may print other lines."""
    return [json.loads(line) for line in output.splitlines() if line.startswith("{") and line.endswith("}")]
