"""How the device does, every so many seconds: what is published as statistics."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edge.mqtt.figures import OutboxFigures
from edge.mqtt.messages import Statistics
from edge.system import hardware
from edge.system.clock import now


@dataclass(frozen=True)
class StatisticsInput:
    """What others know of themselves at the moment of the statistics; as in edge.mqtt.messages.Statistics."""

    paused: bool
    frames_dropped: int
    model: str
    accelerator: str
    outbox: OutboxFigures
    refused: int
    commands_ignored: int
    fault: int | None
    declared_use: str = ""


@dataclass(frozen=True)
class KernelFiles:
    """Where the kernel tells of the board."""

    throttled: Path = hardware.THROTTLED
    thermal: Path = hardware.THERMAL
    own_io: Path = hardware.OWN_IO


class StatisticsCollector:
    """Counts frames from one statistics to the next; the first come after one interval."""

    def __init__(
        self, every: float, places: KernelFiles | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._every = every
        self._places = places or KernelFiles()
        self._clock = clock
        self._started = self._since = clock()
        self._frames = 0
        self._stages: dict[str, float] = {}
        self._hour = hardware.LastHour()
        self._written()

    def frame(self) -> None:
        """Count a frame that went through the whole pipeline."""
        self._frames += 1

    @property
    def due(self) -> bool:
        """Whether it is time."""
        return self._clock() - self._since >= self._every

    def statistics(self, stage_seconds: Mapping[str, float], told: StatisticsInput) -> Statistics:
        """The statistics since the last ones; ``stage_seconds`` are totals of the pipeline since its start."""
        at = self._clock()
        frames, seconds = self._frames, at - self._since
        spent = {stage: total - self._stages.get(stage, 0.0) for stage, total in stage_seconds.items()}
        self._since, self._frames, self._stages = at, 0, dict(stage_seconds)
        return Statistics(
            time=now().isoformat(timespec="seconds"),
            uptime=round(at - self._started, 1),
            paused=told.paused,
            fps=round(frames / seconds, 2),
            stage_ms={stage: round(1000 * total / frames, 3) if frames else 0.0 for stage, total in spent.items()},
            frames_dropped=told.frames_dropped,
            model=told.model,
            accelerator=told.accelerator,
            temperature=hardware.temperature(self._places.thermal),
            throttled=hardware.throttled_now(self._places.throttled),
            outbox=told.outbox,
            bytes_written_last_hour=self._written(),
            refused=told.refused,
            commands_ignored=told.commands_ignored,
            fault=told.fault,
            declared_use=told.declared_use,
        )

    def _written(self) -> int | None:
        count = hardware.bytes_written(self._places.own_io)
        return None if count is None else self._hour.growth(self._clock(), count)
