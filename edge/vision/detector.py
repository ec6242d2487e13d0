"""Finding faces: a Haar cascade (Viola and Jones 2001), by default OpenCV's for upright frontal faces.

A coarse scan proposes, a dense look refines, and another cascade, trained apart from the first, decides. What is no
face may pass for one with one of them, but hardly with both; what is one gets many overlapping hits from either. In
between, small and blurred faces get no more hits than some textures do: there, eyes and a mouth tell.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.errors import FerEdgeError, SettingsError
from edge.records import Box, Gray, Square
from edge.settings import DetectSettings
from edge.vision.pyramid import Pyramid
from edge.vision.search import WINDOW, SearchRegion, smallest_face

_FINE: Final = 1.1  # from one size to the next where it is known where to look
_USUAL: Final = "haarcascade_frontalface_default.xml"
_OTHER: Final = "haarcascade_frontalface_alt2.xml"
_SLACK: Final = 0.9  # times the smallest face's side: how far a face that was measured may be below
_PAINTED: Final = 0.35  # of a known face's side, to all sides of its middle
# Times ``neighbors``: windows in the picture and its mirror image together, that make a face believable, and clear.
_ENOUGH, _CLEAR = 4.4, 6.4  # with those that see an eye or a mouth
_ENOUGH_ALONE, _CLEAR_ALONE = 2.4, 3.6  # of a cascade that the user names, for whatever that may find
_DEEP: Final = 10  # times the stages of the cascade that a window of a plain scan takes


@dataclass(frozen=True, slots=True)
class Detection:
    """A face, and how many windows of the cascades agree on it; ``clear`` when that is hardly by chance."""

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
        """What it costs: near a face most windows go through many stages of the cascade, elsewhere through few."""
        positions, size = 0.0, self.face * self.sizes[0]
        while size <= self.face * self.sizes[1]:
            positions += (self.picture * WINDOW / size - WINDOW) ** 2
            size *= _FINE
        return round(_DEEP * (positions if self.face >= 2 * WINDOW else positions / 4))


# From twice the window's side on OpenCV tries every pixel instead of every other, as it does in a plain scan.
# A face has one of the sizes that OpenCV tries (24, 26, 29, ... 57, 62, 68, ...): as many larger as smaller ones are
# tried then, and their mean is not drawn to one side.
# The first scan that meets a face is mostly one for larger faces, so that much smaller ones have to be tried there.
_REFINING: Final = _Glance(face=75, room=1.4, sizes=(0.64, 1.25))
_DECIDING: Final = _Glance(face=62, room=1.4, sizes=(0.8, 1.25))
_CHECKING: Final = _Glance(face=29, room=1.4, sizes=(0.8, 1.25))


class _Part(NamedTuple):
    """A part of a face with a cascade of its own, what one window that sees it counts for, and where it is.

    ``rows`` and ``columns`` are of the face's square reduced to _PARTS_SIDE pixels; ``smallest`` is the width and
    height of the cascade's window, up to twice of which is looked for. ``windows`` is what that costs, by its time.
    """

    cascade: str
    weight: int
    rows: tuple[int, int]
    columns: tuple[int, int]
    smallest: tuple[int, int]
    windows: int


_PARTS_SIDE: Final = 96
# Textures have hardly ever an eye. A mouth has many more windows than an eye, and each of them says less.
_EYES: Final = _Part("haarcascade_eye_tree_eyeglasses.xml", 4, (8, 58), (0, 96), (20, 20), 15_000)
_MOUTH: Final = _Part("haarcascade_smile.xml", 1, (50, 96), (6, 90), (36, 18), 7000)


class FaceDetector:
    """Looks for upright frontal faces where it is told to.

    Raises SettingsError when ``[detect] cascade`` names no cascade that OpenCV can read.
    """

    def __init__(self, settings: DetectSettings) -> None:
        self._settings = settings
        self._cascade = _load(Path(settings.cascade)) if settings.cascade else _load(_own(_USUAL))
        # A cascade for something else than upright frontal faces can only be asked twice.
        self._other = self._cascade if settings.cascade else _load(_own(_OTHER))
        parts = () if settings.cascade else (_EYES, _MOUTH)
        self._parts = [(part, _load(_own(part.cascade))) for part in parts]
        self._enough, self._clear = (_ENOUGH, _CLEAR) if parts else (_ENOUGH_ALONE, _CLEAR_ALONE)

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

    def propose(self, pyramid: Pyramid, region: SearchRegion, known: Iterable[Square]) -> list[Square]:
        """Places in a strip that may be faces of its size, most of them not; the ``known`` ones are painted over.

        That is not only because they are known: windows on a face go through the whole cascade and cost the most.
        """
        scale = region.side / WINDOW
        left, top = region.columns[0], region.rows[0]
        picture = pyramid.reduced(scale, region.rows, region.columns)
        if min(picture.shape) < WINDOW:
            return []
        for face in known:
            reach = _PAINTED * face.side
            rows, columns = (
                slice(max(0, int((middle - reach) / scale)), max(0, int((middle + reach) / scale)))
                for middle in (face.y - top, face.x - left)
            )
            picture[rows, columns] = 128
        hits = _hits(self._cascade, picture, WINDOW, WINDOW)
        return [Square(left + (x + w / 2) * scale, top + (y + w / 2) * scale, w * scale) for x, y, w in hits.tolist()]

    def judge(self, pyramid: Pyramid, place: Square) -> tuple[Detection | None, int]:
        """Look closely at a place that may be a face. Returns what is there, if anything, and the windows it cost.

        What turns out to be smaller than faces are meant to be is mostly part of a larger one.
        """
        refined = self._glance(self._cascade, pyramid, place, _REFINING)
        if not refined or refined.square.side < _SLACK * smallest_face(self._settings, pyramid.size):
            return None, _REFINING.windows
        found, windows = self._decide(pyramid, refined.square)
        return found, windows + _REFINING.windows

    def confirm(self, pyramid: Pyramid, place: Square) -> tuple[Detection | None, int]:
        """Look again at a face that was found and is not believed yet; otherwise as `judge`."""
        about = self._glance(self._cascade, pyramid, place, _CHECKING)
        found, windows = self._decide(pyramid, about.square if about else place)
        return found, windows + _CHECKING.windows

    def check(self, pyramid: Pyramid, place: Square) -> tuple[Detection | None, int]:
        """Look again at a face that is known to be about here, and the windows that it cost."""
        for turn, cascade in enumerate((self._cascade, self._other), 1):
            found = self._glance(cascade, pyramid, place, _CHECKING)
            if found and found.hits > 1:
                return found, turn * _CHECKING.windows
        return None, 2 * _CHECKING.windows

    def _decide(self, pyramid: Pyramid, place: Square) -> tuple[Detection | None, int]:
        """Whether the other cascade sees the face too, and the windows that it cost.

        Its agreeing windows are counted in the picture and in its mirror image. Where they leave a doubt, windows that
        see an eye or a mouth in the right half count too: few textures have many of all three.
        """
        needed, votes, windows = self._settings.neighbors, 0, 0
        for mirror in (True, False):
            other = self._glance(self._other, pyramid, place, _DECIDING, mirror=mirror)
            windows += _DECIDING.windows
            votes += other.hits if other else 0
            if votes == 0 or votes >= self._clear * needed:
                break
        if 0 < votes < self._clear * needed:
            for part, cascade in self._parts:
                votes += part.weight * _windows_on(part, cascade, pyramid, place)
                windows += part.windows
        clear = votes >= self._clear * needed
        return (Detection(place, votes, clear) if votes >= self._enough * needed else None), windows

    def _glance(
        self, cascade: cv2.CascadeClassifier, pyramid: Pyramid, place: Square, glance: _Glance, *, mirror: bool = False
    ) -> Detection | None:
        """The face on which most windows agree around a place."""
        picture = pyramid.cut(Square(place.x, place.y, place.side * glance.room), glance.picture)
        if mirror:
            picture = np.asarray(cv2.flip(picture, 1), np.uint8)
        smallest, largest = (max(WINDOW, round(glance.face * size)) for size in glance.sizes)
        scale, middle = place.side / glance.face, glance.picture / 2
        side = -1 if mirror else 1
        hits = _hits(cascade, picture, smallest, largest)
        if not len(hits):
            return None
        (x, y, w), agreeing = _agreed(hits)
        return Detection(
            Square(place.x + side * (x + w / 2 - middle) * scale, place.y + (y + w / 2 - middle) * scale, w * scale),
            agreeing,
        )


def _windows_on(part: _Part, cascade: cv2.CascadeClassifier, pyramid: Pyramid, place: Square) -> int:
    """How many windows see a part of the face that may be at a place."""
    picture = pyramid.cut(place, _PARTS_SIDE)[slice(*part.rows), slice(*part.columns)]
    width, height = part.smallest
    found = cascade.detectMultiScale(
        picture, scaleFactor=_FINE, minNeighbors=0, minSize=(width, height), maxSize=(2 * width, 2 * height)
    )
    return len(found)


def _hits(cascade: cv2.CascadeClassifier, picture: Gray, smallest: int, largest: int) -> NDArray[np.int32]:
    """Every window that passes the whole cascade, ``(n, 3)``: left, top, side."""
    found = cascade.detectMultiScale(
        picture, scaleFactor=_FINE, minNeighbors=0, minSize=(smallest, smallest), maxSize=(largest, largest)
    )
    return np.reshape(found, (-1, 4))[:, :3].astype(np.int32)


def _agreed(hits: NDArray[np.int32]) -> tuple[tuple[float, float, float], int]:
    """The mean of the hits that overlap most others by half, and how many they are."""
    left, top, side = hits.T.astype(np.float32)
    across, down = (
        np.minimum.outer(first + side, first + side) - np.maximum.outer(first, first) for first in (left, top)
    )
    common = np.maximum(across, 0) * np.maximum(down, 0)
    alike = common > 0.5 * (np.add.outer(side**2, side**2) - common)
    group = alike[alike.sum(axis=1).argmax()]
    x, y, w = hits[group].mean(axis=0).tolist()
    return (x, y, w), int(group.sum())


def _own(name: str) -> Path:
    """The file of one of OpenCV's own cascades. Raises FerEdgeError when it is missing."""
    file = Path(cv2.__file__).parent / "data" / name
    if not file.is_file():
        raise FerEdgeError(f"{file}: OpenCV's face cascade is missing. Reinstall opencv-python-headless below 5.")
    return file


def _load(file: Path) -> cv2.CascadeClassifier:
    cascade = cv2.CascadeClassifier()
    try:
        readable = file.is_file() and cascade.load(str(file)) and not cascade.empty()
    except cv2.error:  # what XML it is, but no cascade
        readable = False
    if not readable:
        raise SettingsError(f"detect.cascade: {file} is missing, or not a cascade that OpenCV can read")
    return cascade
