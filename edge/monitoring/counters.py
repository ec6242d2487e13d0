"""Counters of a run, written by the frame loop alone and read by any thread."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from edge.events.episodes import Change
from edge.model.loader import DeployedModel
from edge.monitoring.observer import FrameObserver, LoopStatus
from edge.pipeline import FrameResult


@dataclass
class RunCounters(FrameObserver):
    """``frames_dropped`` adds up over every opening of the camera; ``events`` are by kind and expression.

    ``last_frame`` is in seconds since 1970; ``model`` has name, sha256 and runtime of the one that runs, and
    ``model_ok`` says whether it is the chosen one and gives its golden outputs. Both, and ``is_paused``, are None until
    they are known. Without ``individuals`` nothing is counted that describes single faces.
    """

    failed_starts: int = 0
    individuals: bool = True
    clock: Callable[[], float] = time.time
    frames: int = 0
    faces: int = 0
    frames_dropped: int = 0
    is_paused: bool | None = None
    is_too_dark: bool = False
    last_frame: float | None = None
    stage_seconds: dict[str, float] = field(default_factory=dict)
    events: Counter[tuple[str, str]] = field(default_factory=Counter)
    accelerator: str = ""
    model: dict[str, str] = field(default_factory=dict)
    model_ok: bool | None = None

    def deployed(self, deployed: DeployedModel) -> None:
        """Take which model runs."""
        verification = deployed.verification
        self.model = {
            "model": verification.model,
            "sha256": verification.sha256,
            "runtime": verification.runtime,
        }
        self.model_ok = verification.ok and not deployed.refused

    def frame(self, result: FrameResult, status: LoopStatus) -> None:
        """Count a frame and its events."""
        self.frames += 1
        self.faces = len(result.tracks) if self.individuals else 0
        self.is_paused = False
        self.is_too_dark = status.too_dark
        self.last_frame = self.clock()
        self.stage_seconds = dict(status.stage_seconds) if self.individuals else {}
        self.accelerator = status.classifier.accelerator
        self.frames_dropped = status.frames_dropped
        self._count(result.changes)

    def paused(self, status: LoopStatus) -> None:
        """The camera is closed: no face is in view."""
        self.is_paused, self.is_too_dark, self.faces = True, False, 0

    def closed(self, changes: Sequence[Change]) -> None:
        """Count the events of the tracks that have left."""
        self._count(changes)

    def _count(self, changes: Iterable[Change]) -> None:
        if self.individuals:
            labels = ((change.kind, change.expression.label if change.expression else "") for change in changes)
            self.events.update(labels)
