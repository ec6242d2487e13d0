"""Stable ids for faces across frames, by overlap. Pure and deterministic: the same boxes give the same ids.

As in SORT (Bewley et al. 2016, arXiv 1602.00763), a new face is tentative until it was found in ``min_hits`` frames in
a row, which keeps a cascade's flickering false faces out, and is kept for a while when it is not found.
"""

from dataclasses import dataclass

from edge.records import Box, Track
from edge.settings import Track as TrackSettings

_MIN_OVERLAP = 0.3


@dataclass
class _Candidate:
    """A face that may become a track: ``id`` is given once it is confirmed."""

    box: Box
    seen: float
    hits: int = 1
    id: int | None = None


class Tracker:
    """Matches each frame's boxes with the faces that are in view, best overlap first."""

    def __init__(self, settings: TrackSettings) -> None:
        self._settings = settings
        self._candidates: list[_Candidate] = []
        self._next_id = 1

    def update(self, boxes: list[Box], now: float) -> list[Track]:
        """Take the boxes found at ``now`` (seconds, increasing); returns the confirmed tracks in view, oldest first.

        A track that was found in this very frame has ``seen == now``; one that has not been found for ``lost_after``
        seconds is no longer in the list.
        """
        unmatched = self._match(boxes[: self._settings.max_faces], now)
        self._candidates = [candidate for candidate in self._candidates if self._stays(candidate, now)]
        for box in unmatched[: max(0, self._settings.max_faces - len(self._candidates))]:
            self._candidates.append(_Candidate(box, now))
        for candidate in self._candidates:
            if candidate.id is None and candidate.hits >= self._settings.min_hits:
                candidate.id, self._next_id = self._next_id, self._next_id + 1
        return [Track(c.id, c.box, c.seen) for c in self._candidates if c.id is not None]

    def _match(self, boxes: list[Box], now: float) -> list[Box]:
        """Give boxes to the candidates that they overlap most; returns the boxes that are left."""
        pairs = [(c.box.overlap(box), c, box) for c in self._candidates for box in boxes]
        left = list(boxes)
        for overlap, candidate, box in sorted(pairs, key=lambda pair: pair[0], reverse=True):
            if overlap >= _MIN_OVERLAP and candidate.seen < now and box in left:
                candidate.box, candidate.seen, candidate.hits = box, now, candidate.hits + 1
                left.remove(box)
        return left

    def _stays(self, candidate: _Candidate, now: float) -> bool:
        if candidate.id is None:
            return candidate.seen == now
        return now - candidate.seen < self._settings.lost_after
