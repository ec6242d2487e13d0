"""Remembers what was last read from each face, for pictures of frames in which not every face is classified."""

from edge.pipeline import FrameResult
from edge.records import Reading


class LastReadings:
    """The last reading of each track in view."""

    def __init__(self) -> None:
        self._readings: dict[int, Reading] = {}

    def update(self, result: FrameResult) -> dict[int, Reading]:
        """Take a frame; returns the readings by track id, without those of tracks that were not read yet."""
        kept = {track.id: self._readings[track.id] for track in result.tracks if track.id in self._readings}
        self._readings = {**kept, **result.readings}
        return self._readings
