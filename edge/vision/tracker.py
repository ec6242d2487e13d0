"""Stable ids for faces across frames.

Each face is predicted by its velocity, found again by template matching (edge.vision.template), and corrected by a
detection now and then. A face for which both fail is out of sight: it is not shown, but kept for a while, so that it
keeps its id when it is found again. A new face is tentative until enough detections confirm it; then it gets an id.

The tracker is deterministic: times come from the frames, so the same frames give the same ids.
"""

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from edge.records import Square, Track
from edge.settings import TrackSettings
from edge.vision.detection import Detection
from edge.vision.pyramid import Pyramid
from edge.vision.template import FaceTemplate

SAME_SIMILARITY: Final = 0.6
"""From this correlation with its template on, something is the same face."""
_CERTAIN_SIMILARITY: Final = 0.8  # from this one on, even a face that was out of sight needs no detection to be back
_CHECK_INTERVALS: Final = (0.1, 0.2)  # seconds between two checks by the detector: in general, and of a certain face
_SAME_OVERLAP: Final = 0.3  # from this overlap on a detection is of the face that was predicted there
_DUPLICATE_OVERLAP: Final = 0.4  # from this overlap on two detections are of one face
_OCCLUDING_DISTANCE: Final = 0.4  # of the larger side: nearer to each other, one face must be behind the other
_SEARCH_SECONDS, _SEARCH_INTERVAL = 0.3, 0.05  # for how long, and how often, a face that is out of sight is checked
_COAST_SECONDS: Final = 0.3  # a face that was out of sight for longer has lost its velocity
_TENTATIVE_MISSES: Final = 3  # a tentative face that so many checks in a row do not find is dropped
_SIZE_RATIO: Final = 1.7  # a half hidden face looks smaller to the detector
_REPLACING_SIZE: Final = 1.25  # a face that replaces the smallest one must be so many times as large
_MOVED_SHARE: Final = 0.02  # of its side: a face that moves farther, and by more than a pixel, lives
_DETECTION_WEIGHT: Final = 0.5  # of a detection's position and size in a face's


@dataclass(eq=False)
class TrackedFace:
    """A face that is followed. Times are in seconds of the source.

    ``id`` is None while the face is tentative. ``hits`` counts its detections; a clear one counts as several.
    """

    square: Square
    """Where it is in this frame: matched, detected, or else predicted."""
    template: FaceTemplate
    detected_at: float
    seen_at: float
    """When it was last detected or matched."""
    checked_at: float
    """When the detector was last asked for it."""
    misses: int = 0
    """How many checks have not found it since it was last detected."""
    hits: int = 0
    absent: bool = False
    """Whether the last check saw that there is no face."""
    id: int | None = None
    velocity: tuple[float, float] = (0.0, 0.0)
    """Pixels a second."""
    similarity: float = 1.0
    """Correlation with its template at the best match in this frame, -1..1."""
    last_square: Square = field(init=False)
    """Where it was last seen."""
    rest_square: Square = field(init=False)
    """Where it was when it last moved."""
    moved_at: float = field(init=False)
    began_at: float = field(init=False)
    """When it was first detected."""

    def __post_init__(self) -> None:
        self.began_at = self.detected_at
        self.last_square = self.rest_square = self.square
        self.moved_at = self.detected_at

    def note_movement(self, now: float) -> None:
        """Compare the face with where it has rested, and note if it has moved from there."""
        # Not by its size, which the detections of a picture of a face change by some percent.
        if math.dist(_centre(self.square), _centre(self.rest_square)) > max(1.0, _MOVED_SHARE * self.square.side):
            self.rest_square, self.moved_at = self.square, now


class Tracker:
    """Follows detected faces. In each frame, call `follow`, then `update` with the detections."""

    def __init__(self, settings: TrackSettings, least_similarity: float = SAME_SIMILARITY) -> None:
        """``least_similarity`` is that of the detector (`edge.vision.detection.Detector`)."""
        self._settings = settings
        self._least_similarity = least_similarity
        self._faces: list[TrackedFace] = []
        self._next_id = 1
        self._now = 0.0

    @property
    def faces(self) -> list[TrackedFace]:
        """All faces, oldest first, also tentative ones and those out of sight."""
        return list(self._faces)

    @property
    def in_sight(self) -> list[Square]:
        """Where the faces are that were seen in this frame, oldest first, also tentative ones."""
        return [face.square for face in self._faces if face.seen_at == self._now]

    @property
    def ids(self) -> list[int]:
        """The ids of all faces that have not left, in sight or not, oldest first."""
        return [face.id for face in self._faces if face.id is not None]

    def tracks(self, size: tuple[int, int]) -> list[Track]:
        """The confirmed faces that are in sight, oldest first; ``size`` is the frame's width and height."""
        return [
            Track(face.id, face.square.box, face.seen_at, self._is_still(face))
            for face in self._faces
            if face.id is not None and self._is_shown(face, size)
        ]

    def due_for_check(self) -> list[TrackedFace]:
        """The faces that the detector should check in this frame."""
        return [face for face in self._faces if self._now - face.checked_at >= _check_interval(face, self._now) - 1e-6]

    def mark_checked(self, face: TrackedFace, *, absent: bool = False) -> None:
        """Note that the detector has checked this face in this frame. Until it is detected, that counts as a miss.

        ``absent`` says that there is no face any more (`edge.vision.detection.Absence`).
        """
        face.checked_at, face.absent = self._now, absent
        face.misses += 1

    def follow(self, pyramid: Pyramid, now: float) -> None:
        """Predict and match every face in the frame of time ``now``, which must not decrease."""
        interval, self._now = now - self._now, now
        matches = [self._match(face, pyramid, interval) for face in self._faces]
        for n, m in itertools.combinations(range(len(matches)), 2):
            one, other = matches[n], matches[m]
            if one and other and _occlude(one, other):  # the face that is less like its template is behind
                matches[min((n, m), key=lambda index: self._faces[index].similarity)] = None
        width, height = pyramid.size
        for face, match in zip(self._faces, matches, strict=True):
            if match:
                self._apply_match(face, match)
            else:
                ahead = _predicted(face, interval)
                face.square = replace(ahead, x=min(max(ahead.x, 0.0), width), y=min(max(ahead.y, 0.0), height))

    def update(self, detections: Iterable[Detection], pyramid: Pyramid) -> None:
        """Take all detections of this frame, in any order: they correct known faces, or begin new ones."""
        unassigned = _without_duplicates(detections)
        undetected = list(self._faces)
        for face, detection in self._overlapping(undetected, unassigned):
            if face in undetected and detection in unassigned:
                self._apply_detection(face, detection, pyramid)
                undetected.remove(face)
                unassigned.remove(detection)
        for detection in list(unassigned):
            returning = [face for face in undetected if self._may_be(face, detection)]
            if returning:
                face = min(returning, key=lambda face: math.dist(_centre(face.square), _centre(detection.square)))
                self._apply_detection(face, detection, pyramid)
                undetected.remove(face)
                unassigned.remove(detection)
        self._faces = [face for face in self._faces if self._is_kept(face)]
        for face in self._faces:
            face.note_movement(self._now)
        for detection in unassigned:
            if self._make_room(detection):
                template = FaceTemplate(pyramid, detection.square)
                face = TrackedFace(detection.square, template, self._now, self._now, self._now)
                self._faces.append(face)
                self._count_hit(face, detection, pyramid.size[1])

    def _overlapping(
        self, faces: list[TrackedFace], detections: list[Detection]
    ) -> list[tuple[TrackedFace, Detection]]:
        """Pairs of a face in sight and a detection that may be of it, the best first."""
        pairs = [
            (face.square.overlap(detection.square), face, detection)
            for face in faces
            if face.seen_at == self._now
            for detection in detections
        ]
        pairs.sort(key=lambda pair: pair[0] + pair[1].similarity * 0.3, reverse=True)
        return [(face, detection) for overlap, face, detection in pairs if overlap >= _SAME_OVERLAP]

    def _make_room(self, detection: Detection) -> bool:
        """Whether a new face can be followed. A clear one may replace a much smaller one when there are too many."""
        if len(self._faces) < self._settings.max_faces:
            return True
        smallest = min(self._faces, key=lambda face: (face.id is not None, face.square.side))
        if not detection.clear or detection.square.side < _REPLACING_SIZE * smallest.square.side:
            return False
        self._faces.remove(smallest)
        return True

    def _match(self, face: TrackedFace, pyramid: Pyramid, interval: float) -> Square | None:
        """Where a face is most like its template near its prediction, or None if it is not like it enough.

        What has its middle outside the frame is no match. Faces get there when the frames become smaller.
        """
        was_in_sight = face.seen_at >= self._now - interval
        reach = 0.15 + 2 * interval + (0.0 if was_in_sight else 0.2)
        match, face.similarity = face.template.find(pyramid, _predicted(face, interval), reach)
        if not (0 <= match.x <= pyramid.size[0] and 0 <= match.y <= pyramid.size[1]):
            return None
        return match if face.similarity >= (SAME_SIMILARITY if was_in_sight else _CERTAIN_SIMILARITY) else None

    def _apply_match(self, face: TrackedFace, match: Square) -> None:
        """Move a face to where it was matched, and update its velocity."""
        unseen = self._now - face.seen_at
        if unseen > _COAST_SECONDS:
            face.velocity = (0.0, 0.0)
        elif unseen > 0 and face.similarity > _CERTAIN_SIMILARITY:  # a half hidden face seems to move
            keep = math.exp(-unseen / 0.1)
            vx, vy = (match.x - face.last_square.x) / unseen, (match.y - face.last_square.y) / unseen
            face.velocity = (keep * face.velocity[0] + (1 - keep) * vx, keep * face.velocity[1] + (1 - keep) * vy)
        face.square = face.last_square = match
        face.seen_at = self._now

    def _apply_detection(self, face: TrackedFace, detection: Detection, pyramid: Pyramid) -> None:
        """Correct a face's position and size by a detection, and renew its template."""
        weight = _DETECTION_WEIGHT if face.seen_at == self._now else 1.0
        face.square = face.last_square = Square(
            *(
                old + weight * (new - old)
                for old, new in zip(_fields(face.square), _fields(detection.square), strict=True)
            )
        )
        if self._now - face.seen_at > _COAST_SECONDS:
            face.velocity = (0.0, 0.0)
        face.template = FaceTemplate(pyramid, face.square)
        face.detected_at = face.seen_at = self._now
        face.misses = 0
        face.similarity = 1.0
        self._count_hit(face, detection, pyramid.size[1])

    def _count_hit(self, face: TrackedFace, detection: Detection, height: int) -> None:
        """Count a detection, and give the face its id when that confirms it.

        Collars and hands come into the picture from below, so what overlaps its lower edge needs twice as much.
        """
        square = detection.square
        needed = self._settings.min_hits * (2 if square.y + square.side / 2 > height else 1)
        face.hits += self._settings.min_hits if detection.clear else 1
        if face.id is None and face.hits >= needed:
            face.id, self._next_id = self._next_id, self._next_id + 1

    def _may_be(self, face: TrackedFace, detection: Detection) -> bool:
        """Whether a detection may be of a face that is out of sight."""
        if face.seen_at == self._now:
            return False
        sides = (face.square.side, detection.square.side)
        reach = (0.6 + 2.0 * (self._now - face.seen_at)) * face.square.side
        distance = min(
            math.dist(_centre(square), _centre(detection.square)) for square in (face.square, face.last_square)
        )
        return max(sides) / min(sides) < _SIZE_RATIO and distance <= reach

    def _is_still(self, face: TrackedFace) -> bool:
        """Whether a face has not moved for so long that it is a picture of one."""
        return 0 < self._settings.still_seconds <= self._now - face.moved_at

    def _is_kept(self, face: TrackedFace) -> bool:
        """Whether a face was detected recently enough to be followed further."""
        if face.id is None:
            return face.misses < _TENTATIVE_MISSES
        return self._now - face.detected_at < self._settings.lost_after

    def _is_shown(self, face: TrackedFace, size: tuple[int, int]) -> bool:
        """Whether a face is in sight, and neither covered nor just leaving the frame."""
        if face.seen_at < self._now:
            return False
        if face.checked_at <= face.detected_at:
            return True
        if face.absent or face.similarity < self._least_similarity:
            return False
        if self._now - face.detected_at > face.detected_at - face.began_at:
            return False
        # At the picture's edge the detector fails first, and what is left of the face is soon no face.
        reach = 0.45 * face.square.side
        distances = (face.square.x, face.square.y, size[0] - face.square.x, size[1] - face.square.y)
        return min(distances) >= reach


def _check_interval(face: TrackedFace, now: float) -> float:
    """Seconds between two checks of a face by the detector."""
    if face.id is None:
        return 0.0
    if now - face.seen_at < _SEARCH_SECONDS and face.seen_at < now:
        return _SEARCH_INTERVAL
    certain = face.seen_at == now and face.similarity > _CERTAIN_SIMILARITY and face.detected_at == face.checked_at
    return _CHECK_INTERVALS[certain]


def _without_duplicates(detections: Iterable[Detection]) -> list[Detection]:
    """Non-maximum suppression by votes: one detection a face, largest first."""
    kept: list[Detection] = []
    for detection in sorted(detections, key=lambda detection: detection.votes, reverse=True):
        if all(detection.square.overlap(other.square) < _DUPLICATE_OVERLAP for other in kept):
            kept.append(detection)
    return sorted(kept, key=lambda detection: detection.square.side, reverse=True)


def _occlude(one: Square, other: Square) -> bool:
    return max(abs(one.x - other.x), abs(one.y - other.y)) < _OCCLUDING_DISTANCE * max(one.side, other.side)


def _predicted(face: TrackedFace, seconds: float) -> Square:
    """Where a face is after some seconds at its velocity."""
    square, (vx, vy) = face.square, face.velocity
    return replace(square, x=square.x + vx * seconds, y=square.y + vy * seconds)


def _centre(square: Square) -> tuple[float, float]:
    return square.x, square.y


def _fields(square: Square) -> tuple[float, float, float, float]:
    return square.x, square.y, square.side, square.roll
