"""How well boxes and tracks agree with what a clip really shows. Pure: boxes in, counts out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Final

from edge.bench.ground_truth import FaceTruth
from edge.records import Box, Track

HIT: Final = 0.5
"""Intersection over union from which on a box is at a face."""


@dataclass(frozen=True)
class DetectionCounts:
    """Tracks against the truth, over frames.

    ``faces`` of which enough was visible (edge.bench.ground_truth.VISIBLE), and how many of these were ``found``,
    having a track assigned. ``tracked`` sums the tracks of all frames; ``false`` of them were at no face of their
    frame, however little of it is visible, and ``lingering`` of those had been at a face before. ``tracks`` is how many
    ids there were, ``phantoms`` how many of them never were at a face. ``switches`` are identity switches as in the
    CLEAR MOT metrics (Bernardin and Stiefelhagen 2008): a person has a track and the one she had last was another.
    """

    faces: int = 0
    found: int = 0
    tracked: int = 0
    false: int = 0
    lingering: int = 0
    tracks: int = 0
    phantoms: int = 0
    switches: int = 0

    def __add__(self, other: "DetectionCounts") -> "DetectionCounts":
        """The counts of two clips together."""
        return DetectionCounts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def recall(self) -> float | None:
        """The share of faces that were found; None when there were none."""
        return self.found / self.faces if self.faces else None

    @property
    def false_share(self) -> float:
        """The share of the tracks of all frames that were at no face."""
        return self.false / self.tracked if self.tracked else 0.0


class Scorer:
    """DetectionCounts one clip."""

    def __init__(self) -> None:
        self._counts = DetectionCounts()
        self._last: dict[int, int] = {}
        self._ids: set[int] = set()
        self._real: set[int] = set()

    def add(self, tracks: Sequence[Track], faces: Sequence[FaceTruth]) -> None:
        """Count the tracks and the faces of one frame."""
        assigned = assign({track.id: track.box for track in tracks}, faces, self._last)
        visible = [face.person for face in faces if face.counts]
        places = [face.place for face in faces]
        right = {track.id for track in tracks if is_at(track.box, places)}
        wrong = {track.id for track in tracks} - right
        self._counts += DetectionCounts(
            faces=len(visible),
            found=sum(person in assigned for person in visible),
            tracked=len(tracks),
            false=len(wrong),
            lingering=len(wrong & self._real),
            switches=sum(self._last.get(person, track) != track for person, track in assigned.items()),
        )
        self._last.update(assigned)
        self._ids |= right | wrong
        self._real |= right

    def counts(self) -> DetectionCounts:
        """What was counted so far."""
        return self._counts + DetectionCounts(tracks=len(self._ids), phantoms=len(self._ids - self._real))


def is_at(box: Box, places: Sequence[Box]) -> bool:
    """Whether ``box`` is at one of the places."""
    return any(box.overlap(place) >= HIT for place in places)


def assign(boxes: Mapping[int, Box], faces: Sequence[FaceTruth], last: Mapping[int, int]) -> dict[int, int]:
    """Which track is at which person's face, one to one: person to track.

    ``boxes`` are the tracks' by id, ``last`` says which track each person had before. A person keeps that one as long
    as it is at her face (as CLEAR MOT demands); the others are assigned by overlap, best first.
    """
    pairs = [
        (last.get(face.person) != track, -face.place.overlap(box), face.person, track)
        for face in faces
        for track, box in boxes.items()
    ]
    assigned: dict[int, int] = {}
    for _, overlap, person, track in sorted(pairs):
        if -overlap >= HIT and person not in assigned and track not in assigned.values():
            assigned[person] = track
    return assigned
