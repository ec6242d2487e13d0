"""Periodic device-health statistics."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge.events.episodes import Change
from edge.mqtt.figures import DeliveryFigures
from edge.mqtt.messages import Statistics
from edge.system import hardware
from edge.system.clock import now

_SHORTEST: Final = 1.0  # seconds that a rate needs, and between two statistics without an interval


@dataclass(frozen=True)
class StatisticsInput:
    """What other parts contribute to statistics; fields as in edge.mqtt.messages.Statistics."""

    paused: bool
    too_dark: bool
    frames_dropped: int
    model: str
    accelerator: str
    delivery: DeliveryFigures
    commands_ignored: int
    declared_use: str = ""


@dataclass(frozen=True)
class KernelFiles:
    """The folders of the kernel's files about the board."""

    platform: Path = hardware.PLATFORM
    hwmon: Path = hardware.HWMON
    thermal: Path = hardware.THERMAL


class StatisticsCollector:
    """Makes statistics at once, then every ``interval`` seconds, and when accelerator, fault or darkness have changed.

    Rates are of the time since an interval began. With ``individuals`` false it counts no visitors.
    """

    def __init__(
        self,
        interval: float,
        kernel_files: KernelFiles | None = None,
        clock: Callable[[], float] = time.monotonic,
        bytes_written: Callable[[], int | None] = hardware.bytes_written,
        *,
        individuals: bool = True,
    ) -> None:
        self._interval = interval
        self._kernel_files = kernel_files or KernelFiles()
        self._clock = clock
        self._bytes_written = bytes_written
        self._individuals = individuals
        self._started = self._since = self._collected_at = clock()
        self._collected: tuple[str, int | None, bool] | None = None
        self._visitors = 0
        self._presets: Counter[str] = Counter()
        self._frames = 0
        self._stages: dict[str, float] = {}
        self._last_hour = hardware.LastHour()
        self._bytes_written_last_hour()

    def frame(self, changes: Sequence[Change] = ()) -> None:
        """Count a frame that went through the whole pipeline, and the visitors and presets in its changes."""
        self._frames += 1
        if self._individuals:
            for change in changes:
                self._visitors += change.kind == "appeared"
                if change.name:
                    self._presets[change.name] += 1

    def due(self, accelerator: str, fault: int | None, *, too_dark: bool = False) -> bool:
        """Whether an interval has passed, or something has changed that nobody should wait for."""
        at = self._clock()
        changed = self._collected != (accelerator, fault, too_dark) and at - self._collected_at >= _SHORTEST
        return self._collected is None or changed or at - self._since >= self._interval

    def collect(self, stage_seconds: Mapping[str, float], given: StatisticsInput) -> Statistics:
        """The statistics since the last ones; ``stage_seconds`` are totals of the pipeline since its start."""
        at = self._clock()
        # The time before the first statistics was for starting.
        frames, seconds = self._frames, at - self._since if self._collected else 0.0
        spent = {stage: total - self._stages.get(stage, 0.0) for stage, total in stage_seconds.items()}
        if not self._collected or at - self._since >= self._interval:
            self._since, self._frames, self._stages = at, 0, dict(stage_seconds)
        self._collected_at = at
        self._collected = (given.accelerator, given.delivery.fault, given.too_dark)
        return Statistics(
            time=now().isoformat(timespec="seconds"),
            uptime=round(at - self._started, 1),
            paused=given.paused,
            too_dark=given.too_dark,
            fps=round(frames / seconds, 2) if seconds >= _SHORTEST else None,
            visitors=self._visitors if self._individuals else None,
            presets=dict(self._presets),
            stage_ms={stage: round(1000 * total / frames, 3) if frames else 0.0 for stage, total in spent.items()},
            frames_dropped=given.frames_dropped,
            model=given.model,
            accelerator=given.accelerator,
            temperature=hardware.temperature(self._kernel_files.thermal),
            throttled=hardware.throttled_now(self._kernel_files.platform, self._kernel_files.hwmon),
            outbox=given.delivery.outbox,
            bytes_written_last_hour=self._bytes_written_last_hour(),
            refused=given.delivery.refused,
            commands_ignored=given.commands_ignored,
            fault=given.delivery.fault,
            declared_use=given.declared_use,
        )

    def _bytes_written_last_hour(self) -> int | None:
        count = self._bytes_written()
        return None if count is None else self._last_hour.growth(self._clock(), count)
