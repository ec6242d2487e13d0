"""Try the Edge TPU in a child process, since it may crash or hang there. edge.model.edgetpu has what the child does."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import msgspec

from edge.settings import ModelSettings

SECONDS: Final = 30
"""A trial takes no longer. The first one also carries the firmware over USB."""

_POLL_SECONDS: Final = 0.02

INSTALL: Final = "docs/edge-tpu.md tells what to install"
PAIR: Final = f"does this libedgetpu fit the TFLite runtime? {INSTALL}"

Outcome: TypeAlias = Literal["healthy", "absent", "crashed", "hung", "wrong", "unusable"]


@dataclass(frozen=True)
class TrialResult:
    """What a trial found; ``mend`` is empty when it is healthy."""

    outcome: Outcome
    sentence: str
    mend: str = ""


class EdgeTpuTrial:
    """A child process that tries the Edge TPU out. Nothing here waits for it, except :meth:`wait`.

    Raises OSError when no process can be started.
    """

    def __init__(
        self,
        settings: ModelSettings,
        python: Sequence[str] = (sys.executable,),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._deadline = clock() + SECONDS
        # Memory, and not pipes, which a chatty library fills, or files, for which a service has no place.
        self._output = os.memfd_create("trial-output")
        self._grumbling = os.memfd_create("trial-errors")
        self._process = subprocess.Popen(
            [*python, "-m", "edge.diagnostics.probes", "edgetpu", msgspec.json.encode(settings).decode()],
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._grumbling,
        )

    @property
    def doing(self) -> str:
        """What it does at the moment, as told before it was begun."""
        return next((told["doing"] for told in reversed(self._told()) if "doing" in told), "began")

    def poll(self) -> TrialResult | None:
        """The verdict, once there is one; ask no more then. A child that takes too long is killed."""
        code = self._process.poll()
        if code is None and self._clock() < self._deadline:
            return None
        if code is None:
            self._process.kill()
            with suppress(subprocess.TimeoutExpired):  # in a driver that hangs, even that may not end it
                self._process.wait(0.5)
        verdict = self._judge(code)
        os.close(self._output)
        os.close(self._grumbling)
        return verdict

    def wait(self) -> TrialResult:
        """Wait for the verdict."""
        while (verdict := self.poll()) is None:
            time.sleep(_POLL_SECONDS)
        return verdict

    def _judge(self, code: int | None) -> TrialResult:
        if code is None:
            sentence = f"the Edge TPU gave no answer within {SECONDS} s when a trial {self.doing}"
            return TrialResult("hung", sentence, f"unplug it, plug it in again, give it enough power; or {PAIR}")
        if code < 0:
            sentence = f"a trial of the Edge TPU crashed with {signal.Signals(-code).name} when it {self.doing}"
            return TrialResult("crashed", sentence, PAIR)
        told = next((told for told in self._told() if "outcome" in told), None)
        if told is None:
            grumbling = _content(self._grumbling).decode(errors="replace").strip().splitlines()
            last = (grumbling or [f"exit code {code}"])[-1].removeprefix("probe: error: ")
            return TrialResult("unusable", f"a trial of the Edge TPU failed: {last}", INSTALL)
        sentence = f"the Edge TPU: {told['sentence']}"
        return TrialResult(told["outcome"], sentence, told["mend"])

    def _told(self) -> list[dict[str, Any]]:
        """The JSON objects among the lines; libraries print there too, and the last line may be half written."""
        told = []
        for line in _content(self._output).decode(errors="replace").splitlines():
            with suppress(json.JSONDecodeError):
                if line.startswith("{"):
                    told.append(json.loads(line))
        return told


def _content(memory: int) -> bytes:
    return os.pread(memory, 1_000_000, 0)
