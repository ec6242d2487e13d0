"""Detects which areas have changed since they were last searched for faces. Noise and light do not count as change.

The picture is reduced to a width of about 80 pixels, and its local contrast is compared: the difference from the
neighbourhood's mean, divided by that mean. Averaging 64 pixels removes sensor noise. The division removes gain,
exposure and flicker, whose bands are wider than the neighbourhood.
"""

from collections.abc import Iterable
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.records import Square
from edge.vision.pyramid import Pyramid

_WIDTH: Final = 80  # approximate width of the reduced picture
_NEIGHBOURHOOD: Final = 15  # side in pixels of the reduced picture
_DARK_OFFSET: Final = 16.0  # added to brightness, so that noise in the dark is not divided by nearly zero
_MIN_CHANGE: Final = 0.07  # of local contrast. A sensor's worst noise (sigma 10 of 255) is a quarter of that here
_CELL: Final = 8  # side of a cell in pixels of the reduced picture
_MIN_PIXELS: Final = 4  # a cell with so many changed pixels has changed

Area = tuple[int, int, int, int]
"""Left, top, right and bottom edge in pixels of the frame; right and bottom are exclusive."""


class MotionDetector:
    """Compares each frame with what each place looked like when it was last searched."""

    def __init__(self) -> None:
        self._contrast: NDArray[np.float32] = np.zeros((0, 0), np.float32)
        self._searched = self._contrast  # the contrast of each place when it was last searched
        self._size, self._scale = (0, 0), 1
        self._searched_as = (self._size, self._scale)

    def update(self, pyramid: Pyramid) -> None:
        """Take the next frame."""
        self._size = pyramid.size
        small, self._scale = pyramid.halved(max(1.0, pyramid.size[0] / _WIDTH))
        luma = small.astype(np.float32)
        mean = cv2.blur(luma, (_NEIGHBOURHOOD, _NEIGHBOURHOOD))
        self._contrast = np.asarray((luma - mean) / (mean + np.float32(_DARK_OFFSET)), np.float32)

    @property
    def _size_is_new(self) -> bool:
        """Whether this is the first frame, or the first one since the camera's size has changed."""
        return self._searched_as != (self._size, self._scale)

    def changed(self, known: Iterable[Square]) -> list[Area]:
        """The areas that changed, without those of ``known`` faces and the bodies below, which are expected to move.

        A frame of a new size has changed everywhere.
        """
        height, width = self._contrast.shape
        if self._size_is_new:
            return [(0, 0, width * self._scale, height * self._scale)]
        differs = np.asarray(cv2.absdiff(self._contrast, self._searched) > _MIN_CHANGE, np.uint8)
        if not differs.any():
            return []
        for face in known:
            side, x, y = face.side / self._scale, face.x / self._scale, face.y / self._scale
            # Motion there also changes the neighbourhood of the pixels beside it.
            halo = _NEIGHBOURHOOD // 2
            rows = _span(y - side - halo, y + 3 * side + halo)
            differs[rows, _span(x - side - halo, x + side + halo)] = 0
        tall, wide = -(-height // _CELL), -(-width // _CELL)
        padded = np.zeros((tall * _CELL, wide * _CELL), np.uint8)
        padded[:height, :width] = differs
        cells = padded.reshape(tall, _CELL, wide, _CELL).sum(axis=(1, 3)) >= _MIN_PIXELS
        # A few large areas cost less to search than many small ones.
        merged = cv2.dilate(cells.astype(np.uint8), np.ones((3, 3), np.uint8))
        _, _, stats, _ = cv2.connectedComponentsWithStats(merged, connectivity=8)
        pixels = _CELL * self._scale
        return [
            (int(x) * pixels, int(y) * pixels, int(x + w) * pixels, int(y + h) * pixels)
            for x, y, w, h, _ in stats[1:]  # the first component is the background
        ]

    def mark_searched(self, areas: Iterable[Area]) -> None:
        """Compare later frames with these areas as they are now."""
        if self._size_is_new:
            self._searched, self._searched_as = self._contrast.copy(), (self._size, self._scale)
        for left, top, right, bottom in areas:
            area = np.s_[top // self._scale : bottom // self._scale, left // self._scale : right // self._scale]
            self._searched[area] = self._contrast[area]


def _span(first: float, last: float) -> slice:
    return slice(max(0, round(first)), max(0, round(last)))
