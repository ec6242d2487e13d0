"""Try the Edge TPU in a child process, since it may crash or hang there. edge.model.edgetpu has what the child runs."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import msgspec

from edge.settings import ModelSettings

TRIAL_SECONDS: Final = 30
"""The time limit of a trial. The first one also uploads the firmware over USB."""

_POLL_SECONDS: Final = 0.02
_MAX_OUTPUT_BYTES: Final = 1_000_000

HOW_TO_INSTALL: Final = "docs/edge-tpu.md says what to install"
CHECK_VERSIONS: Final = f"does this libedgetpu fit the TFLite runtime? {HOW_TO_INSTALL}"

Outcome: TypeAlias = Literal["healthy", "absent", "crashed", "hung", "wrong", "unusable"]


@dataclass(frozen=True)
class TrialResult:
    """The result of a trial as a sentence; ``remedy`` says what to do about it, and is empty when it is healthy."""

    outcome: Outcome
    sentence: str
    remedy: str = ""


class EdgeTpuTrial:
    """A child process that tries the Edge TPU with a bundle. Only :meth:`wait` waits for it.

    ``bundle`` is the name of a bundled model, or the folder of a bundle. ``library`` is the name or path of the Edge
    TPU's library, ``clock`` counts seconds. Raises OSError when no process can be started.
    """

    def __init__(
        self,
        bundle: str,
        library: str,
        python: Sequence[str] = (sys.executable,),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        settings = ModelSettings(bundle=bundle, edgetpu_library=library)
        self._clock = clock
        self._deadline = clock() + TRIAL_SECONDS
        with ExitStack() as files:  # closed when one of the steps fails
            # In memory: a library that prints much would fill a pipe, and a service has no folder for files.
            self._output, self._errors = (_opened_in_memory(files, name) for name in ("output", "errors"))
            self._process = subprocess.Popen(
                [*python, "-m", "edge.diagnostics.probes", "edgetpu", json.dumps(msgspec.to_builtins(settings))],
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._errors,
            )
            self._files = files.pop_all()

    @property
    def step(self) -> str:
        """What the child process is doing; it reports each step before it begins it."""
        return next(
            (report["step"] for report in reversed(json_objects(_content(self._output))) if "step" in report),
            "starting",
        )

    def poll(self) -> TrialResult | None:
        """The result, once there is one; do not poll again after that. A child that takes too long is killed."""
        code = self._process.poll()
        if code is None and self._clock() < self._deadline:
            return None
        if code is None:
            self._process.kill()
            with suppress(subprocess.TimeoutExpired):  # a process that hangs in a driver may survive even that
                self._process.wait(0.5)
        result = self._judge(code)
        self._files.close()
        return result

    def wait(self) -> TrialResult:
        """Wait for the result."""
        while (result := self.poll()) is None:
            time.sleep(_POLL_SECONDS)
        return result

    def _judge(self, code: int | None) -> TrialResult:
        """The result of a child that ended with ``code``, None when it was killed for taking too long."""
        if code is None:
            sentence = f"a trial of the Edge TPU gave no answer within {TRIAL_SECONDS} s while {self.step}"
            remedy = f"unplug it, plug it in again, give it enough power; or {CHECK_VERSIONS}"
            return TrialResult("hung", sentence, remedy)
        if code < 0:
            sentence = f"a trial of the Edge TPU crashed with {signal.Signals(-code).name} while {self.step}"
            return TrialResult("crashed", sentence, CHECK_VERSIONS)
        report = next((report for report in json_objects(_content(self._output)) if "outcome" in report), None)
        if report is None:
            errors = _content(self._errors).decode(errors="replace").strip().splitlines()
            last = (errors or [f"exit code {code}"])[-1].removeprefix("probe: error: ")
            return TrialResult("unusable", f"a trial of the Edge TPU failed: {last}", HOW_TO_INSTALL)
        return TrialResult(report["outcome"], f"the Edge TPU: {report['sentence']}", report["remedy"])


def json_objects(output: bytes) -> list[dict[str, Any]]:
    """The JSON objects among a child's lines; libraries print there too, and the last line may be incomplete."""
    objects = []
    for line in output.decode(errors="replace").splitlines():
        with suppress(json.JSONDecodeError):
            if line.startswith("{"):
                objects.append(json.loads(line))
    return objects


def _opened_in_memory(files: ExitStack, name: str) -> int:
    descriptor = os.memfd_create(f"trial-{name}")
    files.callback(os.close, descriptor)
    return descriptor


def _content(descriptor: int) -> bytes:
    return os.pread(descriptor, _MAX_OUTPUT_BYTES, 0)
