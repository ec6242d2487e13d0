"""An image pyramid of one frame: it is halved on demand, and pictures of any size are sampled from the halvings.

OpenCV halves by area averaging in 20 µs for 640x480. The nearest halving is less than twice as large as what is asked
for, so bilinear sampling skips no pixels. A camera may have made the first halving itself.
"""

import math

import cv2
import numpy as np

from edge.records import Gray, Square


class Pyramid:
    """One frame, ``(h, w)`` uint8, and its halvings. All coordinates are in pixels of the frame.

    ``half`` is the first halving, ``(h // 2, w // 2)`` uint8, if there is one already.
    """

    def __init__(self, gray: Gray, half: Gray | None = None) -> None:
        self._halvings = [gray] if half is None else [gray, half]
        self._finest = 1  # by how much the first of them is reduced
        height, width = gray.shape
        self.size = (width, height)
        """Width and height of the frame."""

    def mapped(self, levels: Gray, factor: float) -> "Pyramid":
        """The same frame with other grey levels: ``levels``, ``(256,)`` uint8, has the new one of each.

        The new pyramid has no picture that is finer than the smallest halving that is reduced by at most ``factor``.
        """
        finest, by = self.halved(factor)
        other = Pyramid(np.asarray(cv2.LUT(finest, levels), np.uint8))
        other._finest, other.size = by, self.size
        return other

    def halved(self, factor: float) -> tuple[Gray, int]:
        """The smallest halving that is reduced by at most ``factor``, and by how much it is reduced: 1, 2, 4, ..."""
        wanted = max(0, math.floor(math.log2(factor / self._finest)))
        while len(self._halvings) <= wanted and min(self._halvings[-1].shape) >= 2:
            finer = self._halvings[-1]
            half = (finer.shape[1] // 2, finer.shape[0] // 2)
            self._halvings.append(np.asarray(cv2.resize(finer, half, interpolation=cv2.INTER_AREA), np.uint8))
        level = min(wanted, len(self._halvings) - 1)
        return self._halvings[level], self._finest * 2**level

    def reduced(self, factor: float, rows: tuple[int, int], columns: tuple[int, int]) -> Gray:
        """A part of the frame, reduced by ``factor``; ``rows`` and ``columns`` are its first and its end."""
        halving, by = self.halved(factor)
        part = halving[rows[0] // by : max(1, rows[1] // by), columns[0] // by : max(1, columns[1] // by)]
        size = (max(1, round(part.shape[1] * by / factor)), max(1, round(part.shape[0] * by / factor)))
        return np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_LINEAR), np.uint8)

    def cut(self, square: Square, size: int) -> Gray:
        """A square of the frame, turned upright and scaled to ``(size, size)`` uint8.

        Outside the frame, border pixels are repeated.
        """
        factor = square.side / size
        halving, by = self.halved(max(1.0, factor))
        step, angle, middle = factor / by, math.radians(square.roll), (size - 1) / 2
        across, down = step * math.cos(angle), step * math.sin(angle)
        # Pixel centres: pixel (u, v) of the cut lies at (x, y) of the halving.
        matrix = np.array(
            [
                [across, -down, square.x / by - 0.5 - (across - down) * middle],
                [down, across, square.y / by - 0.5 - (down + across) * middle],
            ]
        )
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return np.asarray(
            cv2.warpAffine(halving, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_REPLICATE), np.uint8
        )
