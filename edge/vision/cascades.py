"""Face detection with Haar cascades (Viola and Jones 2001), by default OpenCV's for upright frontal faces.

Detection takes three steps:

1. A coarse scan of a search region gives proposals.
2. A dense scan around a proposal refines its position and size.
3. A second cascade, trained apart from the first, confirms it. The windows that agree are its votes.

A texture may pass one cascade, but hardly both. A face passes in many overlapping windows of either. Small and blurred
faces get no more votes than some textures: there, eye and mouth cascades break ties.

A detection's votes are the windows that agree. The cost of each step is counted in windows of the cascade; see
edge.vision.search.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.errors import FerEdgeError, SettingsError
from edge.records import Box, Gray, Square
from edge.settings import DetectSettings
from edge.vision.detection import Detection
from edge.vision.face_size import smallest_face
from edge.vision.pyramid import Pyramid
from edge.vision.search import WINDOW, SearchRegion

_SCALE_FACTOR: Final = 1.1  # detectMultiScale's, where position and size are about known
_PRIMARY_FILE: Final = "haarcascade_frontalface_default.xml"
_CONFIRMING_FILE: Final = "haarcascade_frontalface_alt2.xml"
_SIZE_TOLERANCE: Final = 0.9  # a refined face may be so many times as large as the smallest face
_MASK_REACH: Final = 0.35  # of a known face's side: how far the mask reaches from its centre
# Votes, in multiples of ``neighbors``, from which on a proposal is a face, and a clear one.
_FACE_VOTES, _CLEAR_VOTES = 4.4, 6.4  # with the votes of eyes and mouth
_FACE_VOTES_CUSTOM, _CLEAR_VOTES_CUSTOM = 2.4, 3.6  # of the user's cascade alone, whatever that detects
_DENSE_COST: Final = 10  # windows near a face go through so many times more stages of the cascade than elsewhere


@dataclass(frozen=True)
class _DenseScan:
    """How a patch around a face is scanned.

    ``face`` is the face's side in the patch, in pixels; ``context`` is the patch's side, and ``sizes`` are the
    smallest and the largest face that is tried, all in multiples of it.
    """

    face: int
    context: float
    sizes: tuple[float, float]

    @property
    def patch(self) -> int:
        """Side of the patch in pixels."""
        return round(self.face * self.context)

    @cached_property
    def windows(self) -> int:
        """The cost, in windows of a coarse scan."""
        positions, size = 0.0, self.face * self.sizes[0]
        while size <= self.face * self.sizes[1]:
            positions += (self.patch * WINDOW / size - WINDOW) ** 2
            size *= _SCALE_FACTOR
        return round(_DENSE_COST * (positions if self.face >= 2 * WINDOW else positions / 4))


# From twice the window's side on, OpenCV tries every pixel, and below that every other one.
# A face has one of the sizes that OpenCV tries (24, 26, 29, ... 57, 62, 68, ...), so that as many larger as smaller
# sizes are tried, and the mean is not biased.
# The coarse scan that first meets a face is mostly one for larger faces, so refinement tries much smaller ones.
_REFINEMENT: Final = _DenseScan(face=75, context=1.4, sizes=(0.64, 1.25))
_CONFIRMATION: Final = _DenseScan(face=62, context=1.4, sizes=(0.8, 1.25))
_RECHECK: Final = _DenseScan(face=29, context=1.4, sizes=(0.8, 1.25))


class _FacePart(NamedTuple):
    """A part of a face that has a cascade of its own.

    ``votes`` is how much one window counts that sees it. ``rows`` and ``columns`` say where the part is in the face's
    square, when that is scaled to _PARTS_SIDE pixels. ``smallest`` is the width and height of the cascade's window;
    sizes up to twice that are tried. ``windows`` is the cost, by its measured time.
    """

    cascade: str
    votes: int
    rows: tuple[int, int]
    columns: tuple[int, int]
    smallest: tuple[int, int]
    windows: int


_PARTS_SIDE: Final = 96
# Textures hardly ever have an eye. A mouth gets many more windows than an eye, and each of them means less.
_EYES: Final = _FacePart("haarcascade_eye_tree_eyeglasses.xml", 4, (8, 58), (0, 96), (20, 20), 15_000)
_MOUTH: Final = _FacePart("haarcascade_smile.xml", 1, (50, 96), (6, 90), (36, 18), 7000)


class FaceCascades:
    """Detects upright frontal faces, in a whole picture or step by step.

    Raises SettingsError when ``[detect] cascade`` names no cascade that OpenCV can read.
    """

    def __init__(self, settings: DetectSettings) -> None:
        self._settings = settings
        self._primary = _load_cascade(Path(settings.cascade)) if settings.cascade else _load_own(_PRIMARY_FILE)
        # There is no second cascade for what a custom one detects, so it has to confirm itself.
        self._confirming = self._primary if settings.cascade else _load_own(_CONFIRMING_FILE)
        parts = () if settings.cascade else (_EYES, _MOUTH)
        self._parts = [(part, _load_own(part.cascade)) for part in parts]
        face, clear = (_FACE_VOTES, _CLEAR_VOTES) if parts else (_FACE_VOTES_CUSTOM, _CLEAR_VOTES_CUSTOM)
        self._face_votes, self._clear_votes = face * settings.neighbors, clear * settings.neighbors

    def detect(self, gray: Gray) -> list[Box]:
        """Detect faces in one picture by a plain scan with the first cascade.

        ``gray`` is ``(h, w)`` uint8. Returns boxes in its pixels, largest first.
        """
        height, width = gray.shape
        smallest = smallest_face(self._settings, (width, height))
        factor = max(1.0, smallest / (2 * WINDOW))  # one picture is scanned more finely than those of a video
        reduced = (
            cv2.resize(gray, (round(width / factor), max(1, round(height / factor))), interpolation=cv2.INTER_AREA)
            if factor > 1
            else gray
        )
        least = round(smallest / factor)
        found = self._primary.detectMultiScale(
            reduced, scaleFactor=_SCALE_FACTOR, minNeighbors=self._settings.neighbors, minSize=(least, least)
        )
        boxes = [Box(*(round(float(value) * factor) for value in face)) for face in found]
        return sorted(boxes, key=lambda box: box.w * box.h, reverse=True)

    def propose(self, pyramid: Pyramid, region: SearchRegion, known: Iterable[Square]) -> list[Square]:
        """Places in a region that may be faces of its size; most of them are not.

        The ``known`` faces are masked: their windows would go through the whole cascade and cost the most.
        """
        scale = region.side / WINDOW
        left, top = region.columns[0], region.rows[0]
        picture = pyramid.reduced(scale, region.rows, region.columns)
        if min(picture.shape) < WINDOW:
            return []
        for face in known:
            reach = _MASK_REACH * face.side
            rows, columns = (
                slice(max(0, int((centre - reach) / scale)), max(0, int((centre + reach) / scale)))
                for centre in (face.y - top, face.x - left)
            )
            picture[rows, columns] = 128
        windows = _passing_windows(self._primary, picture, WINDOW, WINDOW)
        return [
            Square(left + (x + w / 2) * scale, top + (y + w / 2) * scale, w * scale) for x, y, w in windows.tolist()
        ]

    def confirm_proposal(self, pyramid: Pyramid, proposal: Square) -> tuple[Detection | None, int]:
        """Refine a proposal and let the second cascade confirm it.

        Returns the detection, or None if it is no face, and the cost in windows. What turns out to be smaller than the
        smallest face is mostly part of a larger one, and no face.
        """
        refined = self._scan_patch(self._primary, pyramid, proposal, _REFINEMENT)
        if not refined or refined.square.side < _SIZE_TOLERANCE * smallest_face(self._settings, pyramid.size):
            return None, _REFINEMENT.windows
        detection, windows = self._confirm(pyramid, refined.square)
        return detection, windows + _REFINEMENT.windows

    def confirm_again(self, pyramid: Pyramid, square: Square) -> tuple[Detection | None, int]:
        """Confirm a tentative face in another frame; returns as `confirm_proposal` does."""
        refined = self._scan_patch(self._primary, pyramid, square, _RECHECK)
        detection, windows = self._confirm(pyramid, refined.square if refined else square)
        return detection, windows + _RECHECK.windows

    def redetect(self, pyramid: Pyramid, square: Square) -> tuple[Detection | None, int]:
        """Detect a confirmed face again near where it should be; either cascade will do.

        Returns the detection, if any, and the cost in windows.
        """
        windows = 0
        for cascade in (self._primary, self._confirming):
            windows += _RECHECK.windows
            detection = self._scan_patch(cascade, pyramid, square, _RECHECK)
            if detection and detection.votes > 1:
                return detection, windows
        return None, windows

    def _confirm(self, pyramid: Pyramid, square: Square) -> tuple[Detection | None, int]:
        """Whether the second cascade sees the face too, and the cost in windows.

        Its votes are counted in the patch and in its mirror image. Where they leave doubt, eyes and mouth vote too, if
        they are in the right half: few textures have many windows of all three.
        """
        votes, windows = 0.0, 0
        for mirror in (True, False):
            seen = self._scan_patch(self._confirming, pyramid, square, _CONFIRMATION, mirror=mirror)
            windows += _CONFIRMATION.windows
            votes += seen.votes if seen else 0
            if votes == 0 or votes >= self._clear_votes:
                break
        if 0 < votes < self._clear_votes:
            for part, cascade in self._parts:
                votes += part.votes * _count_part_windows(part, cascade, pyramid, square)
                windows += part.windows
        is_face, clear = votes >= self._face_votes, votes >= self._clear_votes
        return (Detection(square, votes, clear) if is_face else None), windows

    def _scan_patch(
        self,
        cascade: cv2.CascadeClassifier,
        pyramid: Pyramid,
        square: Square,
        scan: _DenseScan,
        *,
        mirror: bool = False,
    ) -> Detection | None:
        """The face around a square on which most windows agree, if there is one."""
        patch = pyramid.cut(Square(square.x, square.y, square.side * scan.context), scan.patch)
        if mirror:
            patch = np.asarray(cv2.flip(patch, 1), np.uint8)
        smallest, largest = (max(WINDOW, round(scan.face * size)) for size in scan.sizes)
        windows = _passing_windows(cascade, patch, smallest, largest)
        if not len(windows):
            return None
        (x, y, side), votes = _largest_group(windows)
        scale, centre, sign = square.side / scan.face, scan.patch / 2, -1 if mirror else 1
        return Detection(
            Square(
                square.x + sign * (x + side / 2 - centre) * scale,
                square.y + (y + side / 2 - centre) * scale,
                side * scale,
            ),
            votes,
        )


def _count_part_windows(part: _FacePart, cascade: cv2.CascadeClassifier, pyramid: Pyramid, square: Square) -> int:
    """How many windows see the part of a face in a square."""
    picture = pyramid.cut(square, _PARTS_SIDE)[slice(*part.rows), slice(*part.columns)]
    width, height = part.smallest
    found = cascade.detectMultiScale(
        picture, scaleFactor=_SCALE_FACTOR, minNeighbors=0, minSize=(width, height), maxSize=(2 * width, 2 * height)
    )
    return len(found)


def _passing_windows(cascade: cv2.CascadeClassifier, picture: Gray, smallest: int, largest: int) -> NDArray[np.int32]:
    """Every window that passes the whole cascade, ``(n, 3)`` int32: left, top, side."""
    found = cascade.detectMultiScale(
        picture, scaleFactor=_SCALE_FACTOR, minNeighbors=0, minSize=(smallest, smallest), maxSize=(largest, largest)
    )
    return np.reshape(found, (-1, 4))[:, :3].astype(np.int32)


def _largest_group(windows: NDArray[np.int32]) -> tuple[tuple[float, float, float], int]:
    """The window that most others overlap by half: the mean of this group, and how many windows it has."""
    left, top, side = windows.T.astype(np.float32)
    across, down = (
        np.minimum.outer(first + side, first + side) - np.maximum.outer(first, first) for first in (left, top)
    )
    common = np.maximum(across, 0) * np.maximum(down, 0)
    alike = common > 0.5 * (np.add.outer(side**2, side**2) - common)
    group = alike[alike.sum(axis=1).argmax()]
    x, y, w = windows[group].mean(axis=0).tolist()
    return (x, y, w), int(group.sum())


def _load_own(name: str) -> cv2.CascadeClassifier:
    """Load one of OpenCV's own cascades. Raises FerEdgeError when its file is missing."""
    file = Path(cv2.__file__).parent / "data" / name
    if not file.is_file():
        raise FerEdgeError(f"{file}: OpenCV's face cascade is missing. Reinstall opencv-python-headless below 5.")
    return _load_cascade(file)


def _load_cascade(file: Path) -> cv2.CascadeClassifier:
    cascade = cv2.CascadeClassifier()
    try:
        readable = file.is_file() and cascade.load(str(file)) and not cascade.empty()
    except cv2.error:  # the file is XML, but no cascade
        readable = False
    if not readable:
        raise SettingsError(f"detect.cascade: {file} is missing, or not a cascade that OpenCV can read")
    return cascade
