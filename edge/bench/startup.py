"""Measures what starting ``fer-edge run`` costs, by watching a fresh process from outside."""

import os
import selectors
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge.errors import FerEdgeError
from edge.setting_words import toml

_POLL_SECONDS: Final = 0.01


@dataclass(frozen=True)
class StartResult:
    """What one process of ``fer-edge run`` took until its first event, and its peak memory.

    ``seconds`` is the time from just before the process is created until its first line of output is read.
    ``cpu_seconds`` is what all its threads had used by then; the kernel counts in hundredths. Both are None when it
    printed no event. ``peak_mb`` is the peak of its resident memory (VmHWM) in MB of 10^6 bytes, and None for a process
    that was ended early.
    """

    seconds: float | None
    cpu_seconds: float | None
    peak_mb: float | None


@dataclass(frozen=True)
class StartSummary:
    """Several starts on one clip: medians of the times, and the peak memory of the one that ran to the end."""

    clip: str
    times: int
    seconds: float | None
    cpu_seconds: float | None
    peak_mb: float


def measure_starts(source: Path, config: Path | None, bundle: str | None, times: int) -> StartSummary:
    """Start ``fer-edge run`` on a clip ``times`` times, without metrics.

    The first run goes to its end, the others to the first event.

    Raises FerEdgeError when a run fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        if bundle is not None:
            config = Path(folder) / "config.toml"
            config.write_text(f"[model]\nbundle = {toml(bundle)}\n")
        command = [
            sys.executable,
            "-c",
            "import sys, edge.cli.main; sys.exit(edge.cli.main.main())",
            "run",
            "--no-metrics",  # the service may be serving them, at the same port
            "--source",
            source,
        ]
        command += ["--config", config] if config else []
        starts = [_start([str(word) for word in command], to_the_end=number == 0) for number in range(times)]
    return StartSummary(
        clip=source.name,
        times=times,
        seconds=_median([start.seconds for start in starts]),
        cpu_seconds=_median([start.cpu_seconds for start in starts]),
        peak_mb=starts[0].peak_mb or 0.0,
    )


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _start(command: Sequence[str], *, to_the_end: bool) -> StartResult:
    """Start the command, and poll its memory until its first line of output or until its end."""
    seconds = cpu_seconds = None
    peak = 0.0
    with tempfile.TemporaryFile() as errors:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors)
        assert process.stdout
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(process.stdout, selectors.EVENT_READ)
                while True:
                    readable = selector.select(_POLL_SECONDS)
                    peak = max(peak, _peak_mb(process.pid))
                    if not readable:
                        continue
                    line = os.read(process.stdout.fileno(), 65536)
                    if not line:
                        break
                    if seconds is None:
                        seconds, cpu_seconds = time.perf_counter() - began, _cpu_seconds(process.pid)
                        if not to_the_end:
                            return StartResult(seconds, cpu_seconds, None)
            if process.wait():
                errors.seek(0)
                message = errors.read().decode(errors="replace").strip()
                raise FerEdgeError(f"fer-edge run failed with exit code {process.returncode}: {message[-500:]}")
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
    return StartResult(seconds, cpu_seconds, peak)


def _peak_mb(pid: int) -> float:
    """Peak of the resident memory so far; 0 once the process is gone.

    A child's rusage would be wrong: it includes the memory of its parent before exec.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) * 1024 / 1e6 for line in status.splitlines() if line.startswith("VmHWM")), 0.0)


def _cpu_seconds(pid: int) -> float | None:
    """User and system time so far; None once the process is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
