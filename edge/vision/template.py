"""Following a face between detections: its picture, strongly reduced, is found again near where it was.

Normalised cross-correlation does not mind brightness and contrast; at 16 pixels a face costs a twentieth of a
millisecond. The picture is taken anew at each detection and kept in between, so that nothing drifts.
"""

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.records import Gray, Square
from edge.vision.pyramid import Pyramid

_SIDE: Final = 16  # a face's box in the reduced picture, in pixels
_REACHES: Final = (3, 8)  # how far a face is looked for, in the same pixels, at least and at most


class FaceTemplate:
    """What a face looked like when it was last found."""

    def __init__(self, pyramid: Pyramid, square: Square) -> None:
        self._picture: Gray = pyramid.cut(square, _SIDE)

    def find(self, pyramid: Pyramid, near: Square, reach: float) -> tuple[Square, float]:
        """Where within ``reach`` (a fraction of the side, in both directions) the face is most like itself.

        Returns the place, and the correlation there, -1..1.
        """
        around = min(max(round(reach * _SIDE), _REACHES[0]), _REACHES[1])  # of single numbers np.clip takes 8 µs
        side = _SIDE + 2 * around
        pixel = near.side / _SIDE
        scene = pyramid.cut(Square(near.x, near.y, side * pixel), side)
        scores = np.asarray(cv2.matchTemplate(scene, self._picture, cv2.TM_CCOEFF_NORMED), np.float32)
        _, best, _, (column, row) = cv2.minMaxLoc(scores)
        if not np.isfinite(best):  # a flat picture correlates with nothing
            return near, -1.0
        x = column + _peak(scores[row], column) - around
        y = row + _peak(scores[:, column], row) - around
        return Square(near.x + x * pixel, near.y + y * pixel, near.side), float(best)


def _peak(scores: NDArray[np.float32], at: int) -> float:
    """How far the top of a parabola through three neighbours is from the middle one, -0.5..0.5."""
    if not 0 < at < len(scores) - 1:
        return 0.0
    before, top, after = (float(score) for score in scores[at - 1 : at + 2])
    bend = before - 2 * top + after
    return 0.0 if bend >= 0 else min(max((before - after) / (2 * bend), -0.5), 0.5)
