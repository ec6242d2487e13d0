"""Follows a face between detections by template matching: a small picture of it is searched near its prediction.

Normalised cross-correlation (OpenCV's TM_CCOEFF_NORMED) does not depend on brightness and contrast. At 16 pixels a face
costs a twentieth of a millisecond. The template is taken at each detection and kept in between, so it does not drift.
"""

import math
from dataclasses import replace
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.records import Gray, Square
from edge.vision.pyramid import Pyramid

_SIDE: Final = 16  # of the template, in its pixels
_MIN_REACH, _MAX_REACH = 3, 8  # of the search around the prediction, in the same pixels


class FaceTemplate:
    """What a face looked like when it was last detected: the frame's ``square``, scaled to 16x16 pixels."""

    def __init__(self, pyramid: Pyramid, square: Square) -> None:
        self._picture: Gray = pyramid.cut(square, _SIDE)

    def find(self, pyramid: Pyramid, near: Square, reach: float) -> tuple[Square, float]:
        """The best match within ``reach`` of ``near`` (a fraction of its side, in each direction).

        Returns where it is, finer than a pixel, and the correlation there, -1..1. The size stays that of ``near``.
        """
        around = min(max(round(reach * _SIDE), _MIN_REACH), _MAX_REACH)  # np.clip takes 8 µs for a single number
        side = _SIDE + 2 * around
        pixel = near.side / _SIDE
        scene = pyramid.cut(Square(near.x, near.y, side * pixel, near.roll), side)
        scores = np.asarray(cv2.matchTemplate(scene, self._picture, cv2.TM_CCOEFF_NORMED), np.float32)
        _, best, _, (column, row) = cv2.minMaxLoc(scores)
        if not np.isfinite(best):  # a flat picture correlates with nothing
            return near, -1.0
        x = (column + _peak_offset(scores[row], column) - around) * pixel
        y = (row + _peak_offset(scores[:, column], row) - around) * pixel
        cosine, sine = math.cos(math.radians(near.roll)), math.sin(math.radians(near.roll))
        return replace(near, x=near.x + cosine * x - sine * y, y=near.y + sine * x + cosine * y), float(best)


def _peak_offset(scores: NDArray[np.float32], index: int) -> float:
    """Offset of the vertex of a parabola through the scores at ``index`` and beside it, -0.5..0.5."""
    if not 0 < index < len(scores) - 1:
        return 0.0
    before, top, after = (float(score) for score in scores[index - 1 : index + 2])
    curvature = before - 2 * top + after
    return 0.0 if curvature >= 0 else min(max((before - after) / (2 * curvature), -0.5), 0.5)
