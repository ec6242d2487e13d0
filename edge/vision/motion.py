"""Where the picture has changed since faces were last looked for there. Noise and light are not change.

Compared is the local contrast of the picture reduced to about 80 pixels: the difference to the neighbourhood, divided
by the neighbourhood's brightness. Averaging 64 pixels removes sensor noise; dividing removes gain, exposure and
flicker, whose bands are wider than the neighbourhood.
"""

from collections.abc import Iterable
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.records import Square
from edge.vision.pyramid import Pyramid

_WIDTH: Final = 80  # of the reduced picture, about
_NEIGHBOURHOOD: Final = 15
_DARK: Final = 16.0  # added to brightness: in the dark, noise would be divided by nothing
_CHANGE: Final = 0.07  # of local contrast. A sensor's worst noise (sigma 10 of 255) is a quarter of that here
_CELL: Final = 8  # pixels of the reduced picture
_PIXELS: Final = 4  # so many changed ones make a cell changed

Area = tuple[int, int, int, int]
"""Left, top, right and bottom edge in pixels of the frame."""


class MotionDetector:
    """Remembers what each place looked like when it was last looked at."""

    def __init__(self) -> None:
        self._contrast: NDArray[np.float32] = np.zeros((0, 0), np.float32)
        self._seen = self._contrast
        self._by = self._by_seen = 1

    def update(self, pyramid: Pyramid) -> None:
        """Take a frame."""
        small, self._by = pyramid.halved(max(1.0, pyramid.size[0] / _WIDTH))
        light = small.astype(np.float32)
        around = cv2.blur(light, (_NEIGHBOURHOOD, _NEIGHBOURHOOD))
        self._contrast = np.asarray((light - around) / (around + np.float32(_DARK)), np.float32)

    @property
    def _unknown(self) -> bool:
        return (self._seen.shape, self._by_seen) != (self._contrast.shape, self._by)

    def changed(self, known: Iterable[Square]) -> list[Area]:
        """The areas that changed, apart from ``known`` faces and the bodies below, which are expected to move."""
        height, width = self._contrast.shape
        if self._unknown:  # the first frame, or the camera's size has changed
            return [(0, 0, width * self._by, height * self._by)]
        differs = np.asarray(cv2.absdiff(self._contrast, self._seen) > _CHANGE, np.uint8)
        if not differs.any():
            return []
        for face in known:
            side, x, y = face.side / self._by, face.x / self._by, face.y / self._by
            # What moves there changes the neighbourhood of what is beside it as well.
            halo = _NEIGHBOURHOOD // 2
            rows = _span(y - side - halo, y + 3 * side + halo)
            differs[rows, _span(x - side - halo, x + side + halo)] = 0
        tall, wide = -(-height // _CELL), -(-width // _CELL)
        padded = np.zeros((tall * _CELL, wide * _CELL), np.uint8)
        padded[:height, :width] = differs
        cells = padded.reshape(tall, _CELL, wide, _CELL).sum(axis=(1, 3)) >= _PIXELS
        near = cv2.dilate(cells.astype(np.uint8), np.ones((3, 3), np.uint8))  # few large areas cost less than many
        _, _, stats, _ = cv2.connectedComponentsWithStats(near, connectivity=8)
        pixels = _CELL * self._by
        return [
            (int(x) * pixels, int(y) * pixels, int(x + w) * pixels, int(y + h) * pixels)
            for x, y, w, h, _ in stats[1:]  # the first is what did not change
        ]

    def look(self, areas: Iterable[Area]) -> None:
        """Faces are looked for in these areas as they are now."""
        if self._unknown:
            self._seen, self._by_seen = self._contrast.copy(), self._by
        for left, top, right, bottom in areas:
            place = np.s_[top // self._by : bottom // self._by, left // self._by : right // self._by]
            self._seen[place] = self._contrast[place]


def _span(first: float, last: float) -> slice:
    return slice(max(0, round(first)), max(0, round(last)))
