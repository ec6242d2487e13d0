"""Samples memory, open files and bytes written during the soak, and computes their growth."""

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

_EVERY: Final = 1.0
_WARM_UP: Final = 20.0  # seconds in which a process still loads what it needs


@dataclass(frozen=True)
class Sample:
    """A sample of a process: seconds since the soak began, faults injected so far, resident MB of 10^6 bytes."""

    at: float
    faults: int
    pid: int
    rss_mb: float
    files: int
    written: int
    during: str = ""
    """The fault of the device that lasts then."""


@dataclass(frozen=True)
class Growth:
    """Growth of the longest-lived process after its warm-up; None where it lived too shortly for a slope.

    ``rss_mb_per_1000_faults`` and ``_per_hour`` are slopes of straight lines through the second half of its life: in
    the first one it meets each kind of fault for the first time, and keeps memory that it then uses again.
    """

    seconds: float
    faults: int
    rss_mb_first: float
    rss_mb_last: float
    rss_mb_per_1000_faults: float | None
    rss_mb_per_hour: float | None
    files_first: int
    files_last: int
    files_most: int
    rss_mb_most: float
    """Of all processes."""
    most_during: str
    rss_mb_course: list[float]
    """At ten moments from its first to its last: a cache that fills once flattens out."""


class Sampler(threading.Thread):
    """Samples the device's current process once a second."""

    def __init__(
        self, pid: Callable[[], int], faults: Callable[[], int], during: Callable[[], str] = lambda: ""
    ) -> None:
        super().__init__(name="sampler", daemon=True)
        self.samples: list[Sample] = []
        self._pid, self._faults, self._during = pid, faults, during
        self._began = time.monotonic()
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(_EVERY):
            self.sample()

    def sample(self) -> None:
        """Take one sample now; none when there is no process."""
        pid = self._pid()
        with contextlib.suppress(OSError, KeyError, ValueError):
            place = Path(f"/proc/{pid}")
            status = dict(line.split(":", 1) for line in (place / "status").read_text().splitlines())
            written = dict(line.split(": ") for line in (place / "io").read_text().splitlines())
            files = sum(1 for _ in (place / "fd").iterdir())
            rss = int(status["VmRSS"].split()[0]) * 1024 / 1e6
            at = time.monotonic() - self._began
            self.samples.append(
                Sample(at, self._faults(), pid, rss, files, int(written["write_bytes"]), self._during())
            )

    def close(self) -> None:
        self._ended.set()
        self.join()


def growth(samples: Sequence[Sample]) -> Growth:
    """The growth of the process that lived longest."""
    by_pid: dict[int, list[Sample]] = {}
    for sample in samples:
        by_pid.setdefault(sample.pid, []).append(sample)
    seen = max(by_pid.values(), key=lambda one: one[-1].at - one[0].at)
    warm = [sample for sample in seen if sample.at - seen[0].at >= _WARM_UP] or seen[-1:]  # loading is no growth
    late = warm[len(warm) // 2 :]
    rss, late_rss = (np.array([sample.rss_mb for sample in some]) for some in (warm, late))
    files = [sample.files for sample in warm]
    most = max(samples, key=lambda one: one.rss_mb)
    return Growth(
        round(warm[-1].at - warm[0].at, 1),
        warm[-1].faults - warm[0].faults,
        round(warm[0].rss_mb, 1),
        round(warm[-1].rss_mb, 1),
        _slope(np.array([sample.faults for sample in late]) / 1000, late_rss),
        _slope(np.array([sample.at for sample in late]) / 3600, late_rss),
        files[0],
        files[-1],
        max(files),
        round(most.rss_mb, 1),
        most.during,
        [round(float(rss[place]), 1) for place in np.linspace(0, len(rss) - 1, 10).round().astype(int)],
    )


def written(samples: Sequence[Sample]) -> int:
    """Bytes that all processes made the kernel write to disks, without the last second of each."""
    last: dict[int, int] = {}
    for sample in samples:
        last[sample.pid] = sample.written
    return sum(last.values())


def _slope(along: np.ndarray, values: np.ndarray) -> float | None:
    return round(float(np.polyfit(along, values, 1)[0]), 2) if len(np.unique(along)) >= 10 else None
