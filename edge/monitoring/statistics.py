"""Periodic device-health statistics."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edge.mqtt.figures import DeliveryFigures
from edge.mqtt.messages import Statistics
from edge.system import hardware
from edge.system.clock import now


@dataclass(frozen=True)
class StatisticsInput:
    """What other parts contribute to statistics; fields as in edge.mqtt.messages.Statistics."""

    paused: bool
    frames_dropped: int
    model: str
    accelerator: str
    delivery: DeliveryFigures
    commands_ignored: int
    declared_use: str = ""


@dataclass(frozen=True)
class KernelFiles:
    """The kernel's files about the board."""

    throttled: Path = hardware.THROTTLED
    thermal: Path = hardware.THERMAL


class StatisticsCollector:
    """Makes statistics every ``interval`` seconds, of the frames since the last; the first come after one interval."""

    def __init__(
        self,
        interval: float,
        kernel_files: KernelFiles | None = None,
        clock: Callable[[], float] = time.monotonic,
        bytes_written: Callable[[], int | None] = hardware.bytes_written,
    ) -> None:
        self._interval = interval
        self._kernel_files = kernel_files or KernelFiles()
        self._clock = clock
        self._bytes_written = bytes_written
        self._started = self._since = clock()
        self._frames = 0
        self._stages: dict[str, float] = {}
        self._last_hour = hardware.LastHour()
        self._bytes_written_last_hour()

    def frame(self) -> None:
        """Count a frame that went through the whole pipeline."""
        self._frames += 1

    @property
    def due(self) -> bool:
        """Whether an interval has passed."""
        return self._clock() - self._since >= self._interval

    def collect(self, stage_seconds: Mapping[str, float], given: StatisticsInput) -> Statistics:
        """The statistics since the last ones; ``stage_seconds`` are totals of the pipeline since its start."""
        at = self._clock()
        frames, seconds = self._frames, at - self._since
        spent = {stage: total - self._stages.get(stage, 0.0) for stage, total in stage_seconds.items()}
        self._since, self._frames, self._stages = at, 0, dict(stage_seconds)
        return Statistics(
            time=now().isoformat(timespec="seconds"),
            uptime=round(at - self._started, 1),
            paused=given.paused,
            fps=round(frames / seconds, 2),
            stage_ms={stage: round(1000 * total / frames, 3) if frames else 0.0 for stage, total in spent.items()},
            frames_dropped=given.frames_dropped,
            model=given.model,
            accelerator=given.accelerator,
            temperature=hardware.temperature(self._kernel_files.thermal),
            throttled=hardware.throttled_now(self._kernel_files.throttled),
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
