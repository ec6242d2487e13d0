"""The loop: frame, faces, tracks, readings, changes. Everything it needs is passed in."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from edge.events.episodes import Change, EpisodeTracker, episode_settings
from edge.model.bundle import Card
from edge.model.classifier import Classifier
from edge.model.preprocessing import crop
from edge.records import Frame, Gray, Reading, Track
from edge.settings import QualitySettings, Settings
from edge.vision.detector import Detection, FaceDetector
from edge.vision.pyramid import Pyramid
from edge.vision.quality import flaw
from edge.vision.scheduler import ClassificationScheduler
from edge.vision.search import SearchScheduler
from edge.vision.tracker import Tracker

STAGES: Final = ("detect", "track", "plan", "crop", "classify", "tell")
"""What the time of a frame goes to: the cascade on what was chosen for it, following known faces, deciding where to
look, crops and their quality, the network, and what is worth telling."""


@dataclass(frozen=True)
class FrameResult:
    """What one frame showed: the tracks in view, the readings of those looked at in this frame, and what changed.

    ``hidden`` are the ids of faces that are out of sight and have not left.
    """

    frame: Frame
    tracks: list[Track]
    hidden: list[int]
    readings: dict[int, Reading]
    changes: list[Change]


@dataclass
class Pipeline:
    """One device's way from frames to changes; ``stage_seconds`` adds up the wall time of each stage."""

    detector: FaceDetector
    search: SearchScheduler
    tracker: Tracker
    scheduler: ClassificationScheduler
    quality: QualitySettings
    classifier: Classifier
    episode_tracker: EpisodeTracker
    _now: float = 0.0
    _mark: float = 0.0
    stage_seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    def run(self, frames: Iterable[Frame]) -> Iterator[FrameResult]:
        """Go through all frames."""
        for frame in frames:
            self._now = frame.time
            yield self.step(frame)

    def finish(self) -> list[Change]:
        """The frames have ended: everybody who was in view has left."""
        return list(self.episode_tracker.update((), {}, self._now))

    def anew(self, settings: Settings) -> "Pipeline":
        """The same detector and network for a source whose time begins anew: nobody is known."""
        return Pipeline(
            self.detector,
            SearchScheduler(settings.detect),
            Tracker(settings.track),
            ClassificationScheduler(settings.model.rate),
            self.quality,
            self.classifier,
            make_episode_tracker(settings, self.classifier.card),
            stage_seconds=self.stage_seconds,
        )

    def step(self, frame: Frame) -> FrameResult:
        """Take one frame through all stages."""
        self._mark = time.perf_counter()
        pyramid = Pyramid(frame.gray)
        self.tracker.follow(pyramid, frame.time)
        found = [*self._look_again(pyramid, frame.time), *self._look_around(pyramid, frame.time)]
        self.tracker.update(found, pyramid)
        tracks = self.tracker.shown(pyramid.size)
        chosen = self.scheduler.choose([track.id for track in tracks], frame.time)
        self._lap("track")
        readings = {track.id: self._read(frame.gray, track) for track in tracks if track.id in chosen}
        ids = self.tracker.ids
        hidden = sorted(set(ids) - {track.id for track in tracks})
        changes = list(self.episode_tracker.update(ids, readings, frame.time))
        self._lap("tell")
        return FrameResult(frame, tracks, hidden, readings, changes)

    def _look_again(self, pyramid: Pyramid, now: float) -> Iterator[Detection]:
        """Known faces, when it is time to."""
        for face in self.tracker.due():
            self._lap("track")
            look = self.detector.confirm if face.id is None else self.detector.check
            found, windows = look(pyramid, face.square)
            self._lap("detect")
            face.checked = now
            self.search.spend(windows)
            if found:
                yield found

    def _look_around(self, pyramid: Pyramid, now: float) -> Iterator[Detection]:
        """New faces, where it is worth it."""
        known = [face.square for face in self.tracker.faces if face.seen == now]
        looked = list(known)
        self._lap("track")
        for region in self.search.regions(pyramid, now, known):
            self._lap("plan")
            places = self.detector.propose(pyramid, region, known)
            self._lap("detect")
            for place in places:
                if any(place.within(one) for one in looked):
                    continue
                looked.append(place)
                self._lap("plan")
                found, windows = self.detector.judge(pyramid, place)
                self._lap("detect")
                self.search.spend(windows)
                if found:
                    known.append(found.square)
                    looked.append(found.square)
                    yield found
        self._lap("plan")

    def _read(self, gray: Gray, track: Track) -> Reading:
        face = crop(gray, track.box, self.classifier.card.crop_margin)
        reason = flaw(track.box, face, self.quality)
        self._lap("crop")
        if reason:
            return reason
        logits = self.classifier.read(face)
        self._lap("classify")
        return logits

    def _lap(self, stage: str) -> None:
        """The time since the last lap was of this stage."""
        before, self._mark = self._mark, time.perf_counter()
        self.stage_seconds[stage] += self._mark - before


def make_pipeline(settings: Settings, classifier: Classifier) -> Pipeline:
    """All steps of the stream as the settings want them."""
    return Pipeline(
        FaceDetector(settings.detect),
        SearchScheduler(settings.detect),
        Tracker(settings.track),
        ClassificationScheduler(settings.model.rate),
        settings.quality,
        classifier,
        make_episode_tracker(settings, classifier.card),
    )


def make_episode_tracker(settings: Settings, card: Card) -> EpisodeTracker:
    """The narrator that the model's card and the settings want."""
    return EpisodeTracker(episode_settings(settings.events, settings.preset, card.events, card.abstention.threshold))
