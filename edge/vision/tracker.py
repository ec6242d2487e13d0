"""Stable ids for faces across frames. Deterministic: the same frames give the same ids, and times come from the frames.

Each face is predicted by its velocity, found again by what it looks like (edge.vision.template), and now and then
corrected by a detection. A face that is neither is not shown, but remembered for a while, so that it can come back.
"""

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from edge.records import Square, Track
from edge.settings import TrackSettings
from edge.vision.detector import Detection
from edge.vision.pyramid import Pyramid
from edge.vision.template import FaceTemplate

_ALIKE: Final = 0.6  # correlation with its former self from which on it is the same face
_SURE: Final = 0.8  # from which on there is no doubt: even a face that was hidden needs no detection to be back
_CHECK_SECONDS: Final = (0.1, 0.2)  # from one look of the cascade at a face to the next: in general, and when sure
_SAME: Final = 0.3  # overlap from which on a detection is of a face that is where it was predicted
_DOUBLE: Final = 0.4  # overlap from which on two detections are of one face
_COVERED: Final = 0.4  # of the larger side: nearer to each other, one face must be behind the other
_SEARCH_SECONDS: Final = 0.3  # so long the cascade looks in each frame for a face that is out of sight
_KEEP_SECONDS: Final = 0.3  # so long a face out of sight is taken to go on as it did, when it is found again
_DOUBT_SECONDS: Final = 0.1  # the cascade looks at a doubtful face in each frame, and must find it this often
_RESIZED: Final = 1.7  # a half hidden face looks smaller to the cascade
_LARGER: Final = 1.25  # so many times as large as the smallest face is whoever takes its place
_SMOOTH: Final = 0.5  # of a detection's size and place goes into a face's


@dataclass
class TrackedFace:
    """A face that is followed; ``id`` is given once it is believed. Times are in seconds of the source."""

    square: Square
    look: FaceTemplate
    found: float
    """When the cascade last found it."""
    seen: float
    """When it was last found or recognised."""
    checked: float
    """When the cascade last looked."""
    hits: int = 1
    id: int | None = None
    velocity: tuple[float, float] = (0.0, 0.0)
    """Pixels a second."""
    likeness: float = 1.0
    last: Square = field(init=False)
    """Where it was last seen."""

    def __post_init__(self) -> None:
        self.last = self.square


class Tracker:
    """Follows the faces that were found."""

    def __init__(self, settings: TrackSettings) -> None:
        self._settings = settings
        self._faces: list[TrackedFace] = []
        self._next_id = 1
        self._now = 0.0

    @property
    def faces(self) -> list[TrackedFace]:
        """All faces, also doubtful and hidden ones, oldest first."""
        return list(self._faces)

    def shown(self, size: tuple[int, int]) -> list[Track]:
        """The believed faces that are in view now, oldest first; ``size`` is the frame's."""
        return [
            Track(face.id, face.square.box, face.seen)
            for face in self._faces
            if face.id is not None and self._in_view(face, size)
        ]

    @property
    def ids(self) -> list[int]:
        """Every face that has not left, whether it can be seen at the moment or not, oldest first."""
        return [face.id for face in self._faces if face.id is not None]

    def due(self) -> list[TrackedFace]:
        """The faces that the cascade should look at again in this frame."""
        return [face for face in self._faces if self._now - face.checked >= _patience(face, self._now) - 1e-6]

    def follow(self, pyramid: Pyramid, now: float) -> None:
        """Find every face again in the frame of time ``now``, which must not decrease."""
        between, self._now = now - self._now, now
        places = [self._place(face, pyramid, between) for face in self._faces]
        for n, m in itertools.combinations(range(len(places)), 2):
            one, two = places[n], places[m]
            if one and two and _one_covers(one, two):
                places[min((n, m), key=lambda index: self._faces[index].likeness)] = None  # it is behind the other
        width, height = pyramid.size
        for face, place in zip(self._faces, places, strict=True):
            if place:
                self._move(face, place, between)
            else:
                ahead = _moved(face.square, face.velocity, between)
                face.square = replace(ahead, x=min(max(ahead.x, 0.0), width), y=min(max(ahead.y, 0.0), height))

    def update(self, found: Iterable[Detection], pyramid: Pyramid) -> None:
        """Take what the cascade has found in this frame, in any order: known faces again, and new ones."""
        left = _distinct(found)
        free = list(self._faces)
        pairs = [(face.square.overlap(one.square), face, one) for face in free for one in left]
        for overlap, face, one in sorted(pairs, key=lambda pair: pair[0] + pair[1].likeness * 0.3, reverse=True):
            if overlap >= _SAME and face in free and one in left and face.seen == self._now:
                self._correct(face, one, pyramid)
                free.remove(face)
                left.remove(one)
        for one in list(left):  # what is no face in view may be one that comes back
            back = [face for face in free if self._may_be(face, one)]
            if back:
                face = min(back, key=lambda face: math.dist(_centre(face.square), _centre(one.square)))
                self._correct(face, one, pyramid)
                free.remove(face)
                left.remove(one)
        self._faces = [face for face in self._faces if self._stays(face)]
        for one in left:
            if self._makes_room(one):
                self._faces.append(
                    TrackedFace(one.square, FaceTemplate(pyramid, one.square), self._now, self._now, self._now, 0)
                )
                self._believe(self._faces[-1], one)

    def _makes_room(self, one: Detection) -> bool:
        """Whether a new face can be taken in; where there are too many, a much smaller one leaves for a clear one."""
        if len(self._faces) < self._settings.max_faces:
            return True
        smallest = min(self._faces, key=lambda face: (face.id is not None, face.square.side))
        if not one.clear or one.square.side < _LARGER * smallest.square.side:
            return False
        self._faces.remove(smallest)
        return True

    def _place(self, face: TrackedFace, pyramid: Pyramid, between: float) -> Square | None:
        """Where a face is recognised, if it is."""
        in_sight = face.seen >= self._now - between
        reach = 0.15 + 2 * between + (0.0 if in_sight else 0.2)
        place, face.likeness = face.look.find(pyramid, _moved(face.square, face.velocity, between), reach)
        return place if face.likeness >= (_ALIKE if in_sight else _SURE) else None

    def _move(self, face: TrackedFace, place: Square, between: float) -> None:
        gone = self._now - face.seen
        if gone > _KEEP_SECONDS:
            face.velocity = (0.0, 0.0)
        elif gone > 0 and face.likeness > _SURE:  # what is half hidden seems to go elsewhere
            keep = math.exp(-gone / 0.1)
            vx, vy = (place.x - face.last.x) / gone, (place.y - face.last.y) / gone
            face.velocity = (keep * face.velocity[0] + (1 - keep) * vx, keep * face.velocity[1] + (1 - keep) * vy)
        face.square = face.last = place
        face.seen = self._now

    def _correct(self, face: TrackedFace, one: Detection, pyramid: Pyramid) -> None:
        """Take a detection into a face's place and size."""
        fresh = face.seen == self._now
        blend = _SMOOTH if fresh else 1.0
        old, new = face.square, one.square
        face.square = face.last = Square(
            *(was + blend * (now - was) for was, now in zip(_fields(old), _fields(new), strict=True))
        )
        if self._now - face.seen > _KEEP_SECONDS:
            face.velocity = (0.0, 0.0)
        face.look = FaceTemplate(pyramid, face.square)
        face.found = face.seen = self._now
        face.likeness = 1.0
        self._believe(face, one)

    def _believe(self, face: TrackedFace, one: Detection) -> None:
        face.hits += self._settings.min_hits if one.clear else 1
        if face.id is None and face.hits >= self._settings.min_hits:
            face.id, self._next_id = self._next_id, self._next_id + 1

    def _may_be(self, face: TrackedFace, one: Detection) -> bool:
        """Whether a face that is out of sight could be the one that was found."""
        if face.seen == self._now:
            return False
        bigger = max(face.square.side, one.square.side) / min(face.square.side, one.square.side)
        reach = (0.6 + 2.0 * (self._now - face.seen)) * face.square.side
        near = min(math.dist(_centre(where), _centre(one.square)) for where in (face.square, face.last))
        return bigger < _RESIZED and near <= reach

    def _stays(self, face: TrackedFace) -> bool:
        return self._now - face.found < (_DOUBT_SECONDS if face.id is None else self._settings.lost_after)

    def _in_view(self, face: TrackedFace, size: tuple[int, int]) -> bool:
        if face.seen < self._now:
            return False
        if face.checked <= face.found:
            return True
        # At the picture's edge the cascade sees nothing any more, and what is left of the face is soon no face.
        reach = 0.45 * face.square.side
        beside = (face.square.x, face.square.y, size[0] - face.square.x, size[1] - face.square.y)
        return min(beside) >= reach


def _patience(face: TrackedFace, now: float) -> float:
    """Seconds from one look of the cascade at a face to the next."""
    if face.id is None:
        return 0.0
    if now - face.seen < _SEARCH_SECONDS and face.seen < now:
        return 0.0
    sure = face.id is not None and face.seen == now and face.likeness > _SURE and face.found == face.checked
    return _CHECK_SECONDS[sure]


def _distinct(found: Iterable[Detection]) -> list[Detection]:
    """Each face once, as most windows saw it; largest first."""
    kept: list[Detection] = []
    for one in sorted(found, key=lambda one: one.hits, reverse=True):
        if all(one.square.overlap(other.square) < _DOUBLE for other in kept):
            kept.append(one)
    return sorted(kept, key=lambda one: one.square.side, reverse=True)


def _one_covers(one: Square, other: Square) -> bool:
    return max(abs(one.x - other.x), abs(one.y - other.y)) < _COVERED * max(one.side, other.side)


def _moved(square: Square, velocity: tuple[float, float], seconds: float) -> Square:
    return Square(square.x + velocity[0] * seconds, square.y + velocity[1] * seconds, square.side)


def _centre(square: Square) -> tuple[float, float]:
    return square.x, square.y


def _fields(square: Square) -> tuple[float, float, float]:
    return square.x, square.y, square.side
