"""Keeps how each head is held. One head is measured at a time, since that costs as much as several detections."""

import math
from collections.abc import Sequence
from typing import Final

from edge.records import Pose, Square, Track
from edge.vision.detection import Detector
from edge.vision.pyramid import Pyramid

_INTERVAL: Final = 1.0  # seconds between two measurements


class PoseKeeper:
    """The last known pose of each track. Until it is measured, a head counts as upright and frontal."""

    def __init__(self) -> None:
        self._poses: dict[int, Pose] = {}
        self._measured: dict[int, float] = {}
        self._last = -math.inf

    def of(self, track: Track) -> Pose:
        """How this track's head was held when it was last measured."""
        return self._poses.get(track.id, Pose())

    def update(self, detector: Detector, pyramid: Pyramid, tracks: Sequence[Track], now: float) -> None:
        """Measure that head in the frame of time ``now`` which has waited longest, if it is time; forget who left."""
        self._measured = {track.id: self._measured.get(track.id, -math.inf) for track in tracks}
        self._poses = {track.id: self.of(track) for track in tracks}
        if not tracks or now - self._last < _INTERVAL - 1e-6:
            return
        track = min(tracks, key=lambda track: self._measured[track.id])
        self._last = self._measured[track.id] = now
        box = track.box
        square = Square(box.x + box.w / 2, box.y + box.h / 2, box.w, roll=self.of(track).roll)
        pose = detector.pose(pyramid, square)
        if pose:
            self._poses[track.id] = pose
