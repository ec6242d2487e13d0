"""What starting ``fer-edge run`` costs: a fresh process, watched from outside."""

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

_LOOK_EVERY: Final = 0.01


@dataclass(frozen=True)
class Start:
    """What one process of ``fer-edge run`` took until its first event, and the most memory that it held.

    ``seconds`` pass from just before the process is made until its first line of output is read; ``cpu_seconds`` is
    what all its threads had used by then (the kernel counts in hundredths). Both are None when it told no event.
    ``peak_mb`` is the peak of its resident memory (VmHWM) in MB of 10^6 bytes, None of a process that was ended early.
    """

    seconds: float | None
    cpu_seconds: float | None
    peak_mb: float | None


@dataclass(frozen=True)
class Starts:
    """Several starts on one clip: medians of the times, and the peak of the one that ran to the end."""

    clip: str
    times: int
    seconds: float | None
    cpu_seconds: float | None
    peak_mb: float


def measure_starts(source: Path, config: Path | None, bundle: str | None, times: int) -> Starts:
    """Start ``fer-edge run`` on a clip ``times`` times; the first one runs to its end, the others to the first event.

    Raises FerEdgeError when it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        if bundle is not None:
            config = Path(folder) / "config.toml"
            config.write_text(f'[model]\nbundle = "{_escaped(bundle)}"\n')
        command = [
            sys.executable,
            "-c",
            "import sys, edge.cli.main; sys.exit(edge.cli.main.main())",
            "run",
            "--source",
            source,
        ]
        command += ["--config", config] if config else []
        starts = [_start([str(word) for word in command], to_the_end=number == 0) for number in range(times)]
    return Starts(
        clip=source.name,
        times=times,
        seconds=_median([start.seconds for start in starts]),
        cpu_seconds=_median([start.cpu_seconds for start in starts]),
        peak_mb=starts[0].peak_mb or 0.0,
    )


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _start(command: Sequence[str], *, to_the_end: bool) -> Start:
    seconds = cpu_seconds = None
    peak = 0.0
    with tempfile.TemporaryFile() as complaints:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=complaints)
        assert process.stdout
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(process.stdout, selectors.EVENT_READ)
                while True:
                    readable = selector.select(_LOOK_EVERY)
                    peak = max(peak, _peak_mb(process.pid))
                    if not readable:
                        continue
                    line = os.read(process.stdout.fileno(), 65536)
                    if not line:
                        break
                    if seconds is None:
                        seconds, cpu_seconds = time.perf_counter() - began, _cpu_seconds(process.pid)
                        if not to_the_end:
                            return Start(seconds, cpu_seconds, None)
            if process.wait():
                complaints.seek(0)
                told = complaints.read().decode(errors="replace").strip()
                raise FerEdgeError(f"fer-edge run ended with exit code {process.returncode}: {told[-500:]}")
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
    return Start(seconds, cpu_seconds, peak)


def _peak_mb(pid: int) -> float:
    """Peak of the resident memory so far. The rusage of a child would not do: it includes the parent's before exec."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) * 1024 / 1e6 for line in status.splitlines() if line.startswith("VmHWM")), 0.0)


def _cpu_seconds(pid: int) -> float | None:
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
