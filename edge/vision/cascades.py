"""Face detection with Haar cascades (Viola and Jones 2001), by default OpenCV's for upright frontal faces.

Detection takes three steps:

1. A coarse scan of a search region with one cascade gives proposals.
2. A small network, the judge (edge.vision.judge), moves a proposal onto the face, turns it upright, and gives a score.
3. A second cascade, trained apart from the first, confirms it there. The windows that agree are its votes.

A texture may pass a cascade or the judge, but hardly all of them. Judge and second cascade need to agree only for a new
face; a known one keeps a lower score while it turns away or is half covered. Small faces need more, since there are
more places that may look like one.

The cost of each step is counted in windows of the cascade; see edge.vision.search.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.errors import FerEdgeError, SettingsError
from edge.records import Box, Gray, Square
from edge.settings import DetectSettings
from edge.vision.detection import Absence, Detection
from edge.vision.face_size import smallest_face
from edge.vision.judge import FACE_SCORE, FaceJudge
from edge.vision.pyramid import Pyramid
from edge.vision.search import LARGE_FACE, WINDOW, SearchRegion

_SCALE_FACTOR: Final = 1.1  # detectMultiScale's, where position and size are about known
_PRIMARY_FILE: Final = "haarcascade_frontalface_default.xml"
_CONFIRMING_FILE: Final = "haarcascade_frontalface_alt2.xml"
_SIZE_TOLERANCE: Final = 0.9  # a refined face may be so many times as large as the smallest face
_MASK_REACH: Final = 0.35  # of a known face's side: how far the mask reaches from its centre
# Evidence is the score, and the second cascade's votes in multiples of ``neighbors``, less a small face's rarity.
_CLEAR_SCORE: Final = 4.3  # below which it is no clear one
_FACE_EVIDENCE, _CLEAR_EVIDENCE = 5.0, 7.6  # from which on a proposal is a face, and a clear one
_KNOWN_SCORE, _ALONE_SCORE = -0.2, 2.3  # from which a known face is one: if a cascade sees it too, and if none does
_HOPELESS_SCORE: Final = -1.0  # below which a rough square is no face
_LOOK_WINDOWS: Final = 400  # the cost of one look, by its measured time
_UPRIGHT: Final = 10.0  # degrees of roll that cascades tolerate, and that the judge may be wrong by
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
_CONFIRMATION: Final = _DenseScan(face=62, context=1.4, sizes=(0.8, 1.25))
_RECHECK: Final = _DenseScan(face=29, context=1.4, sizes=(0.8, 1.25))


class FaceCascades:
    """Detects upright frontal faces, in a whole picture or step by step.

    Raises SettingsError when ``[detect] cascade`` names no cascade that OpenCV can read.
    """

    def __init__(self, settings: DetectSettings) -> None:
        self._settings = settings
        self._primary = _load_cascade(Path(settings.cascade)) if settings.cascade else _load_own(_PRIMARY_FILE)
        # There is no second cascade for what a custom one detects, so it has to confirm itself.
        self._confirming = self._primary if settings.cascade else _load_own(_CONFIRMING_FILE)
        self._judge = FaceJudge()

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
        """Move a proposal onto the face, if there is one, and let judge and second cascade confirm it.

        Returns the detection, or None if it is no face, and the cost in windows. What turns out to be smaller than the
        smallest face is mostly part of a larger one, and no face.
        """
        first = self._judge.look(pyramid, proposal)
        if first.score < _HOPELESS_SCORE:
            return None, _LOOK_WINDOWS
        detection, windows = self._confirm(pyramid, first.face, looks=3)
        if detection and detection.square.side < _SIZE_TOLERANCE * smallest_face(self._settings, pyramid.size):
            detection = None
        return detection, windows + _LOOK_WINDOWS

    def confirm_again(self, pyramid: Pyramid, square: Square) -> tuple[Detection | None, int]:
        """Confirm a tentative face in another frame; returns as `confirm_proposal` does."""
        return self._confirm(pyramid, square, looks=2)

    def redetect(self, pyramid: Pyramid, square: Square) -> tuple[Detection | Absence | None, int]:
        """Detect a confirmed face again near where it should be; the judge or either cascade will do.

        Returns the detection, if any, and the cost in windows. What the judge gives a hopeless score is no face: real
        ones that turned away or were half covered had more.
        """
        opinion, windows = self._judge.look(pyramid, square), _LOOK_WINDOWS
        if opinion.score < _KNOWN_SCORE:
            return (Absence() if opinion.score < _HOPELESS_SCORE else None), windows
        place = replace(square, roll=_lean(opinion.face))
        for cascade in (self._primary, self._confirming):
            windows += _RECHECK.windows
            seen = self._scan_patch(cascade, pyramid, place, _RECHECK)
            if seen and seen.votes > 1:
                return replace(seen, votes=opinion.score), windows
        if opinion.score < _ALONE_SCORE:
            return None, windows
        return Detection(replace(opinion.face, roll=place.roll), opinion.score), windows

    def roll(self, pyramid: Pyramid, square: Square) -> tuple[float | None, int]:
        """By how many degrees the face in a square leans clockwise, by the judge, and the cost in windows.

        None where the judge sees no face.
        """
        opinion = self._judge.look(pyramid, self._judge.look(pyramid, square).face)  # one look says too little
        return (opinion.face.roll if opinion.score >= _KNOWN_SCORE else None), 2 * _LOOK_WINDOWS

    def _confirm(self, pyramid: Pyramid, square: Square, looks: int) -> tuple[Detection | None, int]:
        """Whether judge and second cascade see a face near a square, and the cost in windows.

        Each look begins where the last one saw the face. The cascade's votes are counted in a patch that is turned
        upright, and in its mirror image.
        """
        for _ in range(looks):
            opinion = self._judge.look(pyramid, square)
            square = opinion.face
        windows = looks * _LOOK_WINDOWS
        if opinion.score < FACE_SCORE:
            return None, windows
        square, share = replace(square, roll=_lean(square)), square.side / min(pyramid.size)
        alone = evidence = opinion.score - _rarity(share)
        for mirror in (True, False):
            seen = self._scan_patch(self._confirming, pyramid, square, _CONFIRMATION, mirror=mirror)
            windows += _CONFIRMATION.windows
            evidence += seen.votes / self._settings.neighbors if seen else 0
            if evidence >= _CLEAR_EVIDENCE:
                break
        if evidence < _FACE_EVIDENCE or evidence == alone:
            return None, windows
        exact = self._scan_patch(self._primary, pyramid, square, _RECHECK)
        windows += _RECHECK.windows
        place = exact.square if exact and exact.votes > 1 else square
        # A small face is never clear: what looks like one in a single frame is often no face in the next one.
        clear = share >= LARGE_FACE and evidence >= _CLEAR_EVIDENCE and opinion.score >= _CLEAR_SCORE
        return Detection(place, opinion.score, clear), windows

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
        patch = pyramid.cut(replace(square, side=square.side * scan.context), scan.patch)
        if mirror:
            patch = np.asarray(cv2.flip(patch, 1), np.uint8)
        smallest, largest = (max(WINDOW, round(scan.face * size)) for size in scan.sizes)
        windows = _passing_windows(cascade, patch, smallest, largest)
        if not len(windows):
            return None
        (x, y, side), votes = _largest_group(windows)
        scale, centre, sign = square.side / scan.face, scan.patch / 2, -1 if mirror else 1
        right, down = sign * (x + side / 2 - centre) * scale, (y + side / 2 - centre) * scale
        cosine, sine = math.cos(math.radians(square.roll)), math.sin(math.radians(square.roll))
        place = (square.x + cosine * right - sine * down, square.y + sine * right + cosine * down)
        return Detection(Square(*place, side * scale, square.roll), votes)


def _rarity(share: float) -> float:
    """How much more evidence a small face needs: the logarithm of how many more places there are for it.

    ``share`` is its side as a share of the picture's shorter side. Large faces need no more.
    """
    return max(0.0, 2 * math.log(LARGE_FACE / share))


def _lean(square: Square) -> float:
    """By how many degrees a face leans, 0 if that is so little that it may as well be upright."""
    return square.roll if abs(square.roll) > _UPRIGHT else 0.0


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
