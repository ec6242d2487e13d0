"""Runs the probes of edge.diagnostics.probes in child processes with a time limit."""

import json
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from edge.model.edgetpu_trial import json_objects


@dataclass(frozen=True)
class ProbeResult:
    """The JSON objects that a probe printed, and what went wrong with it; ``problem`` is empty if nothing did."""

    output: list[dict[str, Any]]
    problem: str

    def values(self, key: str) -> list[Any]:
        """All values that were printed under one key; those that are lists are joined."""
        found = [line[key] for line in self.output if key in line]
        return [item for value in found for item in (value if isinstance(value, list) else [value])]


def run_probe(python: Sequence[str], name: str, argument: msgspec.Struct | str, seconds: float) -> ProbeResult:
    """Run one probe. ``python`` is the command that starts the interpreter, ``seconds`` is the time limit.

    The argument goes by standard input: it may hold an address with a password, and everybody can read a command line.
    """
    command = [*python, "-m", "edge.diagnostics.probes", name]
    given = json.dumps(msgspec.to_builtins(argument)).encode()  # it has ways to write names that are not UTF-8
    try:
        done = subprocess.run(command, input=given, capture_output=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as late:
        return ProbeResult(json_objects(late.stdout or b""), f"no answer within {seconds:g} s")
    problem = ""
    if done.returncode < 0:
        problem = f"crashed with {signal.Signals(-done.returncode).name}"
    elif done.returncode:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        problem = last.removeprefix("probe: error: ")
    return ProbeResult(json_objects(done.stdout), problem)
