"""The frame loop: from a frame to faces, tracks, readings and changes. Its parts are passed in."""

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from edge.events.episodes import Change, EpisodeTracker, episode_settings
from edge.model.classifier import FaceClassifier
from edge.model.preprocessing import crop
from edge.records import Frame, Gray, Reading, Track
from edge.settings import DetectSettings, QualitySettings, Settings, require_expressions
from edge.vision.detection import Absence, Detection, Detector
from edge.vision.detectors import open_detector
from edge.vision.ignore import is_ignored
from edge.vision.light import level_frame
from edge.vision.poses import PoseKeeper
from edge.vision.pyramid import Pyramid
from edge.vision.quality import flaw
from edge.vision.scheduler import ClassificationScheduler
from edge.vision.tracker import Tracker

STAGES: Final = ("detect", "track", "plan", "crop", "classify", "tell")
"""The stages of a frame, as statistics and metrics name them.

- ``detect``: the face detector.
- ``track``: following known faces.
- ``plan``: choosing where to search.
- ``crop``: cropping faces and judging their quality.
- ``classify``: the network.
- ``tell``: finding the changes that are published as events.
"""


@dataclass(frozen=True)
class FrameResult:
    """What one frame gave: the tracks in sight, the readings of those classified in this frame, and the changes.

    ``hidden`` are the ids of faces that are out of sight and have not left. ``too_dark`` says that the frame is so
    dark that no face can be found in it. ``levels`` are those of `edge.model.preprocessing.crop` in this frame, and
    ``rolls`` is by how many degrees each track's head leans there.
    """

    frame: Frame
    tracks: list[Track]
    hidden: list[int]
    readings: dict[int, Reading]
    changes: list[Change]
    too_dark: bool = False
    levels: Gray | None = None
    rolls: Mapping[int, float] = field(default_factory=dict)

    def face(self, track: Track, margin: float, *, levelled: bool = True) -> Gray:
        """The crop of a track's face that quality judges and the network gets: ``(INPUT_SIZE, INPUT_SIZE)`` uint8.

        ``margin`` is the card's. Unless it is ``levelled``, its grey levels are the camera's.
        """
        levels = self.levels if levelled else None
        return crop(self.frame.gray, track.box, margin, self.rolls.get(track.id, 0.0), levels)


@dataclass
class Pipeline:
    """Turns the frames of one source into results. ``stage_seconds`` sums the wall time of each of STAGES."""

    detector: Detector
    detect: DetectSettings
    tracker: Tracker
    scheduler: ClassificationScheduler
    quality: QualitySettings
    classifier: FaceClassifier
    episode_tracker: EpisodeTracker
    stage_seconds: dict[str, float]
    poses: PoseKeeper = field(default_factory=PoseKeeper)
    _now: float = 0.0
    _stage_began: float = 0.0

    def run(self, frames: Iterable[Frame]) -> Iterator[FrameResult]:
        """Process all frames, one at a time as results are asked for."""
        for frame in frames:
            result = self.step(frame)
            self._now = frame.time  # only now: nobody has seen a frame in which Ctrl-C ended the run
            yield result

    def finish(self) -> list[Change]:
        """End the source: every face that was in view leaves."""
        return list(self.episode_tracker.update((), {}, self._now))

    def for_new_source(self, settings: Settings) -> "Pipeline":
        """A pipeline for a source whose time starts again.

        It shares what was loaded, and the stage times. No face is known: the search, the tracker, the schedule and the
        episodes are new.
        """
        return _make_pipeline(settings, self.detector.for_new_source(), self.classifier, self.stage_seconds)

    def step(self, frame: Frame) -> FrameResult:
        """Process one frame."""
        self._stage_began = time.perf_counter()
        levelled = level_frame(Pyramid(frame.gray, frame.half), self.detect)
        pyramid = levelled.pyramid
        self.tracker.follow(pyramid, frame.time)
        detections = self._check_known_faces(pyramid)
        detections += self._search_new_faces(pyramid, frame.time)
        self.tracker.update(detections, pyramid)
        tracks = self.tracker.tracks(pyramid.size)
        chosen = self.scheduler.choose([track.id for track in tracks], frame.time)
        self._end_stage("track")
        self.poses.update(self.detector, pyramid, tracks, frame.time)
        self._end_stage("detect")
        ids = self.tracker.ids
        hidden = sorted(set(ids) - {track.id for track in tracks})
        rolls = {track.id: self.poses.of(track).roll for track in tracks}
        seen = FrameResult(frame, tracks, hidden, {}, [], levelled.too_dark, levelled.levels, rolls)
        readings = {track.id: self._read(seen, track) for track in tracks if track.id in chosen}
        changes = list(self.episode_tracker.update(ids, readings, frame.time, hidden))
        self._end_stage("tell")
        return replace(seen, readings=readings, changes=changes)

    def _check_known_faces(self, pyramid: Pyramid) -> list[Detection]:
        """Detect known faces again, where that is due."""
        detections = []
        for face in self.tracker.due_for_check():
            self._end_stage("track")
            found = self.detector.check(pyramid, face.square, tentative=face.id is None, misses=face.misses)
            self._end_stage("detect")
            self.tracker.mark_checked(face, absent=isinstance(found, Absence))
            if isinstance(found, Detection):
                detections.append(found)
        return detections

    def _search_new_faces(self, pyramid: Pyramid, now: float) -> list[Detection]:
        """Search this frame for new faces."""
        known = self.tracker.in_sight
        self._end_stage("track")
        self.detector.begin_frame(pyramid, now, known)
        self._end_stage("plan")
        detections = self.detector.search(pyramid)
        self._end_stage("detect")
        return [found for found in detections if not is_ignored(found.square, pyramid.size, self.detect.ignore)]

    def _read(self, seen: FrameResult, track: Track) -> Reading:
        """Classify one face, or say why it is not worth classifying."""
        face = seen.face(track, self.classifier.card.crop_margin)
        reason = "still" if track.still else flaw(track.box, face, self.quality, self.poses.of(track).yaw)
        self._end_stage("crop")
        if reason:
            return reason
        logits = self.classifier.read(face)
        self._end_stage("classify")
        return logits

    def _end_stage(self, stage: str) -> None:
        """Add the time since the last stage ended to this stage."""
        began, self._stage_began = self._stage_began, time.perf_counter()
        self.stage_seconds[stage] += self._stage_began - began


def make_pipeline(settings: Settings, classifier: FaceClassifier) -> Pipeline:
    """A pipeline as the settings and the model's card say. Raises SettingsError for a preset that the model lacks."""
    require_expressions(settings.preset, classifier.card.labels, classifier.card.name)
    return _make_pipeline(settings, open_detector(settings.detect), classifier, dict.fromkeys(STAGES, 0.0))


def _make_pipeline(
    settings: Settings, detector: Detector, classifier: FaceClassifier, stage_seconds: dict[str, float]
) -> Pipeline:
    card = classifier.card
    episodes = episode_settings(settings.events, settings.preset, card.labels, card.events, card.threshold)
    return Pipeline(
        detector=detector,
        detect=settings.detect,
        tracker=Tracker(settings.track, detector.least_similarity),
        scheduler=ClassificationScheduler(settings.model.rate),
        quality=settings.quality,
        classifier=classifier,
        episode_tracker=EpisodeTracker(episodes),
        stage_seconds=stage_seconds,
    )
