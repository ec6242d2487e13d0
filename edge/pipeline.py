"""The loop: frame, faces, tracks, readings, changes. Everything it needs is passed in."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from edge.classify import Classifier
from edge.contract import crop
from edge.episodes import Change, Narrator
from edge.faces import FaceDetector
from edge.records import Frame, Reading, Track
from edge.tracks import Tracker


@dataclass(frozen=True)
class Seen:
    """What one frame showed: the tracks in view, the readings of those looked at in this frame, and what changed."""

    frame: Frame
    tracks: list[Track]
    readings: dict[int, Reading]
    changes: list[Change]


@dataclass
class Pipeline:
    """One device's way from frames to changes; ``stage_seconds`` adds up the wall time of each stage."""

    detector: FaceDetector
    tracker: Tracker
    classifier: Classifier
    narrator: Narrator
    _now: float = 0.0
    stage_seconds: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("detect", "track", "classify", "tell"), 0.0)
    )

    def run(self, frames: Iterable[Frame]) -> Iterator[Seen]:
        """Go through all frames."""
        for frame in frames:
            self._now = frame.time
            yield self.step(frame)

    def finish(self) -> list[Change]:
        """The frames have ended: everybody who was in view has left."""
        return list(self.narrator.update((), {}, self._now))

    def step(self, frame: Frame) -> Seen:
        """Take one frame through all stages."""
        started = time.perf_counter()
        boxes = self.detector.detect(frame.gray)
        detected = time.perf_counter()
        tracks = self.tracker.update(boxes, frame.time)
        tracked = time.perf_counter()
        readings: dict[int, Reading] = {
            track.id: self.classifier.read(crop(frame.gray, track.box, self.classifier.card.crop_margin))
            for track in tracks
            if track.seen == frame.time
        }
        classified = time.perf_counter()
        changes = list(self.narrator.update([track.id for track in tracks], readings, frame.time))
        told = time.perf_counter()
        marks = (started, detected, tracked, classified, told)
        for stage, begin, end in zip(self.stage_seconds, marks, marks[1:], strict=False):
            self.stage_seconds[stage] += end - begin
        return Seen(frame, tracks, readings, changes)
