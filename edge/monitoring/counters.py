"""What a run counts about itself, whoever asks: plain numbers, written by the loop alone."""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from edge.app.broker_session import BrokerSession
from edge.events.episodes import Change
from edge.model.loader import DeployedModel
from edge.pipeline import FrameResult, Pipeline


@dataclass
class RunCounters:
    """``frames_dropped`` adds up over every opening of the camera; ``events`` are by kind and expression.

    ``last_frame`` is in seconds since 1970; ``model`` has name, sha256 and runtime of the one that runs, and
    ``model_ok`` says whether it is the chosen one and gives its golden outputs. Without ``individuals`` nothing is
    counted that tells of single faces.
    """

    failed_starts: int = 0
    individuals: bool = True
    clock: Callable[[], float] = time.time
    frames: int = 0
    faces: int = 0
    frames_dropped: int = 0
    paused: bool = False
    last_frame: float = 0.0
    stage_seconds: dict[str, float] = field(default_factory=dict)
    events: Counter[tuple[str, str]] = field(default_factory=Counter)
    accelerator: str = ""
    model: dict[str, str] = field(default_factory=dict)
    model_ok: bool = False
    session: BrokerSession | None = None
    _dropped: int = 0

    def deployed(self, deployed: DeployedModel) -> None:
        """Take which model runs, and tell the broker."""
        told = deployed.verification
        self.model = {"model": told.model, "sha256": told.sha256, "runtime": told.runtime}
        self.model_ok = told.ok and not deployed.refused
        if self.session:
            self.session.deployed(deployed)

    def seen(self, seen: FrameResult, pipeline: Pipeline, dropped: int) -> None:
        """Count a frame; ``dropped`` are those of the source since it was opened."""
        self.frames += 1
        self.faces = len(seen.tracks) if self.individuals else 0
        self.paused = False
        self.last_frame = self.clock()
        self.stage_seconds = dict(pipeline.stage_seconds) if self.individuals else {}
        self.accelerator = pipeline.classifier.accelerator
        self.frames_dropped += dropped - (self._dropped if dropped >= self._dropped else 0)
        self._dropped = dropped
        self.told(seen.changes)

    def told(self, changes: Iterable[Change]) -> None:
        """Count events."""
        if self.individuals:
            labels = ((change.kind, change.expression.label if change.expression else "") for change in changes)
            self.events.update(labels)

    def rests(self) -> None:
        """The camera is closed on purpose."""
        self.paused, self.faces, self._dropped = True, 0, 0
