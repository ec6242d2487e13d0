"""Finding faces: a Haar cascade (Viola and Jones 2001), by default OpenCV's for upright frontal faces.

A coarse scan proposes; a dense look at each proposal and at its mirror image decides. What is no face may pass for one
from one side, but hardly from both; what is one gets many overlapping hits from either.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from edge.errors import FerEdgeError, SettingsError
from edge.lookout import WINDOW, Strip
from edge.pyramid import Pyramid
from edge.records import Box, Gray, Square
from edge.settings import Detect

_FINE: Final = 1.1  # from one size to the next where it is known where to look


@dataclass(frozen=True, slots=True)
class Found:
    """A face, and how many windows of the cascade agree on it; ``clear`` when enough do in the mirror image as well."""

    square: Square
    hits: int
    clear: bool = False


@dataclass(frozen=True, slots=True)
class _Glance:
    """How to look at one place: the face's side in the picture that the cascade gets, what is around it, and sizes."""

    face: int
    room: float
    sizes: tuple[float, float]

    @property
    def picture(self) -> int:
        return round(self.face * self.room)

    @property
    def windows(self) -> int:
        """What it costs. Windows near a face go through all stages of the cascade, and so count several times."""
        return 4 * self.picture**2 // (4 if self.face < 2 * WINDOW else 2)


# From twice the window's side on OpenCV tries every pixel instead of every other, as it does in a plain scan.
_DENSE: Final = _Glance(face=60, room=1.7, sizes=(0.8, 1.45))
_QUICK: Final = _Glance(face=30, room=1.6, sizes=(0.8, 1.25))


class FaceDetector:
    """Looks for upright frontal faces where it is told to.

    Raises SettingsError when ``[detect] cascade`` names no cascade that OpenCV can read.
    """

    def __init__(self, settings: Detect) -> None:
        self._settings = settings
        self._cascade = _load(settings.cascade)

    def detect(self, gray: Gray) -> list[Box]:
        """Boxes of the faces in a ``(h, w)`` uint8 picture, in its own pixels, largest first: a plain scan."""
        height, width = gray.shape
        factor = max(1.0, width / self._settings.width)
        reduced = (
            cv2.resize(gray, (round(width / factor), round(height / factor)), interpolation=cv2.INTER_AREA)
            if factor > 1
            else gray
        )
        smallest = max(WINDOW, round(self._settings.min_face * height / factor))
        found = self._cascade.detectMultiScale(
            reduced, scaleFactor=_FINE, minNeighbors=self._settings.neighbors, minSize=(smallest, smallest)
        )
        boxes = [Box(*(round(float(value) * factor) for value in face)) for face in found]
        return sorted(boxes, key=lambda box: box.w * box.h, reverse=True)

    def propose(self, pyramid: Pyramid, strip: Strip) -> list[Square]:
        """Places in a strip that may be faces of its size, most of them not."""
        picture = pyramid.reduced(strip.reduction, strip.rows, strip.columns)
        if min(picture.shape) < WINDOW:
            return []
        scale = strip.reduction
        hits = [
            Square(strip.columns[0] + (x + w / 2) * scale, strip.rows[0] + (y + h / 2) * scale, w * scale)
            for x, y, w, h in self._hits(picture, WINDOW, WINDOW)
        ]
        return [found.square for found in _together(hits)]

    def judge(self, pyramid: Pyramid, place: Square) -> tuple[Found | None, int]:
        """Look closely at a place that may be a face.

        Returns what is there, if ``neighbors`` windows agree on it in the picture or in its mirror image, and how
        many windows that cost.
        """
        plain = self._glance(pyramid, place, _DENSE, mirror=False)
        if not plain:
            return None, _DENSE.windows
        mirrored = self._glance(pyramid, plain.square, _DENSE, mirror=True)
        agreeing = (plain.hits, mirrored.hits if mirrored else 0)
        needed = self._settings.neighbors
        found = Found(plain.square, plain.hits, clear=min(agreeing) >= needed) if max(agreeing) >= needed else None
        return found, 2 * _DENSE.windows

    def check(self, pyramid: Pyramid, place: Square) -> tuple[Found | None, int]:
        """Look again at a face that is known to be about here, and the windows that it cost."""
        found = self._glance(pyramid, place, _QUICK, mirror=False)
        return (found if found and found.hits > 1 else None), _QUICK.windows

    def _glance(self, pyramid: Pyramid, place: Square, glance: _Glance, *, mirror: bool) -> Found | None:
        """The face on which most windows agree around a place."""
        picture = pyramid.cut(Square(place.x, place.y, place.side * glance.room), glance.picture)
        if mirror:
            picture = np.asarray(cv2.flip(picture, 1), np.uint8)
        smallest, largest = (max(WINDOW, round(glance.face * size)) for size in glance.sizes)
        scale, middle = place.side / glance.face, glance.picture / 2
        side = -1 if mirror else 1
        hits = [
            Square(
                place.x + side * (x + w / 2 - middle) * scale, place.y + (y + h / 2 - middle) * scale, float(w) * scale
            )
            for x, y, w, h in self._hits(picture, smallest, largest)
        ]
        return max(_together(hits), key=lambda found: found.hits, default=None)

    def _hits(self, picture: Gray, smallest: int, largest: int) -> list[tuple[float, float, float, float]]:
        """Every window that passes the whole cascade."""
        found = self._cascade.detectMultiScale(
            picture,
            scaleFactor=_FINE,
            minNeighbors=0,
            minSize=(smallest, smallest),
            maxSize=(largest, largest),
        )
        return [(float(x), float(y), float(w), float(h)) for x, y, w, h in found]


def _together(hits: list[Square]) -> list[Found]:
    """Overlapping hits as one: their mean, and their number; first those on which most agree."""
    found, left = [], hits
    while left:
        agreeing = [[other for other in left if other.overlap(hit) > 0.5] for hit in left]
        group = max(agreeing, key=len)
        n = len(group)
        mean = Square(sum(h.x for h in group) / n, sum(h.y for h in group) / n, sum(h.side for h in group) / n)
        found.append(Found(mean, n))
        left = [hit for hit in left if hit not in group]
    return found


def _load(name: str) -> cv2.CascadeClassifier:
    file = Path(name) if name else Path(cv2.__file__).parent / "data" / "haarcascade_frontalface_default.xml"
    cascade = cv2.CascadeClassifier()
    try:
        readable = file.is_file() and cascade.load(str(file)) and not cascade.empty()
    except cv2.error:  # what XML it is, but no cascade
        readable = False
    if readable:
        return cascade
    if name:
        raise SettingsError(f"detect.cascade: {file} is missing, or not a cascade that OpenCV can read")
    raise FerEdgeError(f"{file}: OpenCV's face cascade is missing. Reinstall opencv-python-headless below 5.")
