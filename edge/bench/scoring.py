"""Scores boxes and tracks against a clip's ground truth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Final

from edge.bench.ground_truth import FaceTruth
from edge.records import Box, Track

HIT: Final = 0.5
"""The least intersection over union of a box with the face that it detects."""


@dataclass(frozen=True)
class DetectionCounts:
    """Counts of tracks against the ground truth, summed over frames.

    - ``faces``: faces that are visible enough (edge.bench.ground_truth.VISIBLE).
    - ``found``: those of them that have a track assigned.
    - ``tracked``: tracks.
    - ``false``: tracks that are at no face, however little of a face is visible.
    - ``lingering``: false tracks that were at a face before.
    - ``tracks``: different track ids.
    - ``phantoms``: track ids that never were at a face.
    - ``switches``: identity switches, as in the CLEAR MOT metrics (Bernardin and Stiefelhagen 2008): a person has a
      track, and her last one was another.
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
        """The sum of two clips' counts."""
        return DetectionCounts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def recall(self) -> float | None:
        """Detection recall: the share of faces that were found, 0..1; None when there were none."""
        return self.found / self.faces if self.faces else None

    @property
    def false_share(self) -> float:
        """The share of false tracks among the tracks of all frames, 0..1."""
        return self.false / self.tracked if self.tracked else 0.0


class Scorer:
    """Counts detections of one clip, frame by frame."""

    def __init__(self) -> None:
        self._counts = DetectionCounts()
        self._last_track: dict[int, int] = {}  # by person
        self._ids: set[int] = set()
        self._true_ids: set[int] = set()

    def add(self, tracks: Sequence[Track], faces: Sequence[FaceTruth]) -> None:
        """Count the tracks and the faces of one frame."""
        assigned = assign({track.id: track.box for track in tracks}, faces, self._last_track)
        visible = [face.person for face in faces if face.counts]
        places = [face.place for face in faces]
        true = {track.id for track in tracks if is_at(track.box, places)}
        false = {track.id for track in tracks} - true
        self._counts += DetectionCounts(
            faces=len(visible),
            found=sum(person in assigned for person in visible),
            tracked=len(tracks),
            false=len(false),
            lingering=len(false & self._true_ids),
            switches=sum(self._last_track.get(person, track) != track for person, track in assigned.items()),
        )
        self._last_track.update(assigned)
        self._ids |= true | false
        self._true_ids |= true

    def counts(self) -> DetectionCounts:
        """The counts so far."""
        return self._counts + DetectionCounts(tracks=len(self._ids), phantoms=len(self._ids - self._true_ids))


def is_at(box: Box, places: Sequence[Box]) -> bool:
    """Whether a box overlaps one of the places by at least HIT."""
    return any(box.overlap(place) >= HIT for place in places)


def assign(boxes: Mapping[int, Box], faces: Sequence[FaceTruth], last: Mapping[int, int]) -> dict[int, int]:
    """Assign tracks to faces one to one. Returns the track's id by person.

    ``boxes`` are the tracks' boxes by id, ``last`` is the track that each person had before. As CLEAR MOT demands, a
    person keeps that track as long as it is at her face. The others are assigned by overlap, the largest first.
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
