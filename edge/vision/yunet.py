"""Face detection with YuNet (Wu et al. 2023), a small convolutional network that OpenCV runs (cv2.FaceDetectorYN).

One forward pass gives the faces of all sizes in a picture, with a score, eyes, nose and mouth corners. Its time is
proportional to the picture's pixels. Hence three kinds of passes:

1. The whole frame, reduced as far as the smallest face allows, once or twice a second.
2. A part of it, where something has changed.
3. A small patch around one face. It confirms what the other passes propose, and detects known faces again.

The network was trained in colour. A grey picture gets lower scores, so proposals need only a low one.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.errors import SettingsError
from edge.records import Box, Gray, Pose, Square
from edge.settings import DetectSettings
from edge.vision.detection import Detection
from edge.vision.face_size import LEAST_FRAME, smallest_face
from edge.vision.motion import Area, MotionDetector
from edge.vision.pyramid import Pyramid

_PADDING: Final = 32  # OpenCV pads each side of a picture to a multiple of so many pixels, on the right and below
_MOST_NETWORKS: Final = 8  # one camera needs six: two patches, three parts, and the whole frame
# Side of the smallest face in a reduced frame; smaller ones the network hardly finds in grey. With the default min_face
# the shorter side of a reduced frame is exactly eight times that padding.
_FACE_PIXELS: Final = 12.8
_PROPOSAL_SCORE: Final = 0.4  # in a frame, or a part of it
_LEANING_SCORE: Final = 0.5  # the same, of a head that leans: below are few, and much else
_FACE_SCORE: Final = 0.6  # in a patch, for a new face
_CLEAR_SCORE: Final = 0.75  # in a patch; textures do not reach it
_KNOWN_SCORE: Final = 0.5  # in a patch, for a known face where it is expected; elsewhere a collar may get as much
_EXPECTED_REACH: Final = 0.25  # of its side. In real videos six right doubtful faces were nearer, two collars farther
_OVERLAP: Final = 0.3  # boxes that overlap more are of one face
_MAX_FACES: Final = 100

_LEAN: Final = 35.0  # degrees by which patches are turned, to find heads that lean
_ROLL_STEP: Final = 20.0  # degrees between the patches that measure how far a head leans
_MAX_ROLL: Final = 60.0  # degrees; a head that leans farther is hardly found
_NOSE_LENGTH: Final = 0.4  # of the distance between eyes and mouth: how far a profile's nose is beside their line
_PARTS: Final = (128, 192, 256)  # sides of parts of a reduced frame; few, since each size has a network of its own
_PART_MARGIN: Final = 16  # pixels of a reduced frame around an area that changed

# A cascade's square, on which the crop margin is based, in terms of the network's box. Medians of 243 faces in videos.
_SIDE_OF_BOX: Final = 1.09  # of the square root of its area
_ABOVE_BOX: Final = 0.027  # of the side: how far the square's centre is above the box's

_MS_PER_PIXEL: Final = 1.5e-4  # assumed speed of a Raspberry Pi 4's core: four times what a desktop's core takes
_SAVED_FRAMES: Final = 5  # the budget of so many frames can be saved up for when something happens
_CHANGE_INTERVAL: Final = 0.1  # seconds between two searches of what changes
_WIDE_CHANGE_INTERVAL: Final = 0.4  # the same, where so much changes that the whole frame is searched
_SCAN_INTERVALS: Final = (2.0, 0.5)  # seconds between two whole frames: in an empty room, and while something happens
_BUSY_SECONDS: Final = 2.0  # something happens until so long after the last change

_DOWNLOAD: Final = "docs/detectors.md says where to get the file"


class _Patch(NamedTuple):
    """A kind of patch around a face: its ``side`` in pixels, and its ``context``, its side in multiples of the face."""

    side: int
    context: float


_WIDE_PATCH: Final = _Patch(96, 2.3)
_TIGHT_PATCH: Final = _Patch(64, 1.5)  # it costs six tenths, and misses one in twenty of the faces that a wide one has


class Network:
    """The network for pictures of several sizes. OpenCV takes as long to change the size as for a small picture.

    So each size has a network of its own, of 6 MB. Pictures are padded as OpenCV would do it, so that there are few
    sizes.
    """

    def __init__(self, file: str) -> None:
        """Load the file. Raises SettingsError, which says what to do, when that is not possible."""
        self._file = file
        self._of_size: dict[tuple[int, int], cv2.FaceDetectorYN] = {}  # by width and height, the last one used last
        if not file:
            raise SettingsError(f'detect.model is empty, but detect.detector = "yunet" needs it; {_DOWNLOAD}')
        if not hasattr(cv2, "FaceDetectorYN"):
            raise SettingsError(
                'detect.detector = "yunet" needs an OpenCV with its DNN module. Install opencv-python-headless by pip, '
                'or set detect.detector = "haar"'
            )
        if not Path(file).is_file():
            raise SettingsError(f"detect.model: {file} is missing; {_DOWNLOAD}")
        try:
            self.faces(np.zeros((_WIDE_PATCH.side, _WIDE_PATCH.side), np.uint8), _FACE_SCORE)
        except cv2.error as error:
            raise SettingsError(f"detect.model: {file} is not YuNet, or not whole; {_DOWNLOAD}") from error

    def faces(self, picture: Gray, score: float) -> list[NDArray[np.float32]]:
        """The faces with at least a score, best first, each ``(15,)`` float32.

        They are left, top, width and height of the box, five landmarks (x, y), and the score. The landmarks are right
        eye, left eye, nose, right and left corner of the mouth.
        """
        height, width = (-(-side // _PADDING) * _PADDING for side in picture.shape)
        added = (0, height - picture.shape[0], 0, width - picture.shape[1])
        padded = cv2.copyMakeBorder(picture, *added, cv2.BORDER_CONSTANT)
        found = self._network((width, height)).detect(cv2.cvtColor(padded, cv2.COLOR_GRAY2BGR))[1]
        if found is None:
            return []
        faces = np.asarray(found, np.float32)
        return [face for face in faces if face[14] >= score and np.isfinite(face).all() and min(face[2:4]) > 0]

    def _network(self, size: tuple[int, int]) -> cv2.FaceDetectorYN:
        """The network for pictures of a size, width and height. Only those that were used last are kept."""
        network = self._of_size.pop(size, None)
        if network is None:
            network = cv2.FaceDetectorYN.create(self._file, "", size, _PROPOSAL_SCORE, _OVERLAP, _MAX_FACES)
        self._of_size[size] = network
        if len(self._of_size) > _MOST_NETWORKS:
            del self._of_size[next(iter(self._of_size))]
        return network


class _Pass(NamedTuple):
    """A part of the frame for one forward pass: its rows and columns in pixels of the frame."""

    rows: tuple[int, int]
    columns: tuple[int, int]


class YuNetDetector:
    """A `edge.vision.detection.Detector` of faces, also small, turned and leaning ones."""

    least_similarity = 0.85  # what YuNet no longer finds is turned away or covered, unless it looks nearly the same

    def __init__(self, settings: DetectSettings, network: Network | None = None) -> None:
        """Raises SettingsError when ``[detect] model`` names no file that OpenCV can read as YuNet."""
        self._settings = settings
        self._network = network or Network(settings.model)
        self._motion = MotionDetector()
        self._budget = settings.budget_ms
        self._left = (_SAVED_FRAMES - 1) * self._budget
        self._changed_at = self._searched_at = self._scanned_at = -math.inf
        self._known: list[Square] = []
        self._pass: _Pass | None = None

    def check(self, pyramid: Pyramid, square: Square, *, tentative: bool, misses: int) -> Detection | None:
        """Detect a known face again, in a patch around it.

        A confirmed face gets a tight patch, and a wide one if that does not show it. After that it gets one patch a
        check, turned now and then: ``square`` leans as the head did, and heads lean slowly. Away from ``square``, it is
        held to what a new face is.
        """
        if tentative:
            return self._detect(pyramid, square, _FACE_SCORE, (0.0, -_LEAN, _LEAN))
        place = replace(square, roll=square.roll + (0.0, -_LEAN, 0.0, _LEAN)[misses % 4])
        for patch in (_WIDE_PATCH,) if misses else (_TIGHT_PATCH, _WIDE_PATCH):
            found = self._in_patch(pyramid, place, patch)
            if found and found[1].votes >= _least_score(found[1].square, expected=square):
                return found[1]
        return None

    def pose(self, pyramid: Pyramid, square: Square) -> Pose | None:
        """How a head is held: the roll by how well it is detected in turned patches, the yaw by where its nose is.

        The roll is the mean of the patches' angles, weighted by the fourth power of the scores. The landmarks do not
        tell it: those of a head that leans by 30 degrees lean by 5.
        """
        scores: dict[float, float] = {}
        faces: dict[float, NDArray[np.float32]] = {}
        best = square.roll
        while abs(best) <= _MAX_ROLL:
            for roll in (best - _ROLL_STEP, best, best + _ROLL_STEP):
                if roll not in scores:
                    found = self._in_patch(pyramid, replace(square, roll=roll), _TIGHT_PATCH)
                    scores[roll] = found[1].votes if found else 0.0
                    faces |= {roll: found[0]} if found else {}
            previous, best = best, max(scores, key=lambda roll: scores[roll])
            if best == previous:
                break
        if scores.get(best, 0.0) < _KNOWN_SCORE:
            return None
        weights = {roll: score**4 for roll, score in scores.items()}
        mean = sum(roll * weight for roll, weight in weights.items()) / sum(weights.values())
        return Pose(mean, _yaw(faces[best][4:14].reshape(5, 2)))

    def begin_frame(self, pyramid: Pyramid, now: float, known: Sequence[Square]) -> None:
        """Plan the frame's pass, if it gets one. One that is too small for the network gets none."""
        self._pass = None
        if min(pyramid.size) < LEAST_FRAME["yunet"]:
            return
        self._left = min(self._left + self._budget, _SAVED_FRAMES * self._budget)
        self._known = list(known)
        self._motion.update(pyramid)
        self._pass = self._plan(pyramid.size, now)

    def search(self, pyramid: Pyramid) -> list[Detection]:
        """Detect new faces in the planned part of the frame. Those that are known are left out."""
        if self._pass is None:
            return []
        reduction = self._reduction(pyramid.size)
        picture = pyramid.reduced(reduction, self._pass.rows, self._pass.columns)
        self._left -= picture.size * _MS_PER_PIXEL
        detections: list[Detection] = []
        for face in self._network.faces(picture, _PROPOSAL_SCORE):
            proposal = _square(face, self._pass.columns[0], self._pass.rows[0], reduction)
            if any(proposal.within(square) for square in self._known):
                continue
            # By its landmarks a leaning head leans too little, but in 19 of 20 cases to the right side.
            lean = math.copysign(_LEAN, _roll(face[4:14].reshape(5, 2)))
            leans = (0.0, lean) if face[14] >= _LEANING_SCORE else (0.0,)
            detection = self._detect(pyramid, proposal, _FACE_SCORE, leans)
            if detection and detection.square.side >= 0.9 * smallest_face(self._settings, pyramid.size):
                self._known.append(detection.square)
                detections.append(detection)
        return detections

    def detect(self, gray: Gray) -> list[Box]:
        """Detect the faces of one picture in one pass."""
        height, width = gray.shape
        reduction = self._reduction((width, height))
        picture = Pyramid(gray).reduced(reduction, (0, height), (0, width))
        squares = [_square(face, 0, 0, reduction) for face in self._network.faces(picture, _FACE_SCORE)]
        return sorted((square.box for square in squares), key=lambda box: box.w, reverse=True)

    def for_new_source(self) -> "YuNetDetector":
        """The same network with a new search."""
        return YuNetDetector(self._settings, self._network)

    def _plan(self, size: tuple[int, int], now: float) -> _Pass | None:
        """The whole frame when that is due, else where something has changed, else nothing."""
        areas: list[Area] = []
        if self._left > 0 and now - self._searched_at >= _CHANGE_INTERVAL - 1e-6:
            areas = self._motion.changed(self._known)
        if areas:
            self._changed_at = now
        busy = bool(self._known) or now - self._changed_at < _BUSY_SECONDS
        planned = self._part(size, areas) if areas else None
        wide = bool(areas) and not planned and now - self._searched_at >= _WIDE_CHANGE_INTERVAL - 1e-6
        if wide or now - self._scanned_at >= _SCAN_INTERVALS[busy] - 1e-6:
            planned = _Pass((0, size[1]), (0, size[0]))
            self._scanned_at = now
        if areas and planned:  # else it stays changed, and is searched later
            self._searched_at = now
            self._motion.mark_searched(areas)
        return planned

    def _part(self, size: tuple[int, int], areas: Sequence[Area]) -> _Pass | None:
        """The smallest part that has all areas; None when the whole frame has hardly more pixels."""
        reduction = self._reduction(size)
        left, top = (min(edges) for edges in list(zip(*areas, strict=True))[:2])
        right, bottom = (max(edges) for edges in list(zip(*areas, strict=True))[2:])
        needed = max(right - left, bottom - top) / reduction + 2 * _PART_MARGIN
        side = next((side for side in _PARTS if side >= needed), None)
        if side is None or side > min(size) / reduction + 1e-6:
            return None
        length = math.floor(side * reduction)
        columns, rows = (
            _span((first + last) // 2, length, limit)
            for first, last, limit in ((left, right, size[0]), (top, bottom, size[1]))
        )
        return _Pass(rows, columns)

    def _detect(self, pyramid: Pyramid, square: Square, score: float, leans: Sequence[float]) -> Detection | None:
        """The face nearest to a square with at least a score, in patches turned by ``leans`` until it is clear."""
        best: Detection | None = None
        for lean in leans:
            found = self._in_patch(pyramid, replace(square, roll=square.roll + lean))
            if found and (best is None or found[1].votes > best.votes):
                best = found[1]
            if best and best.clear:
                break
        return best if best and best.votes >= score else None

    def _in_patch(
        self, pyramid: Pyramid, square: Square, patch: _Patch = _WIDE_PATCH
    ) -> tuple[NDArray[np.float32], Detection] | None:
        """The face nearest to a square, in a patch around it that is turned as the square is.

        Returns what the network gave, in pixels of the patch, and the detection.
        """
        side, middle = patch.context * square.side, -patch.side / 2
        self._left -= patch.side**2 * _MS_PER_PIXEL
        picture = pyramid.cut(replace(square, side=side), patch.side)
        near = [
            (face, found)
            for face in self._network.faces(picture, _PROPOSAL_SCORE)
            if (found := _upright(_square(face, middle, middle, 1.0), square, side / patch.side)).within(square)
        ]
        if not near:
            return None
        face, found = min(near, key=lambda pair: _distance(pair[1], square))
        found = replace(found, roll=found.roll + _roll(face[4:14].reshape(5, 2)))
        return face, Detection(found, float(face[14]), bool(face[14] >= _CLEAR_SCORE))

    def _reduction(self, size: tuple[int, int]) -> float:
        """By how much frames are reduced."""
        return max(1.0, smallest_face(self._settings, size) / _FACE_PIXELS)


def _square(face: NDArray[np.float32], left: float, top: float, scale: float) -> Square:
    """The square in the frame of a face in a picture, which begins at ``left``, ``top`` and is reduced by ``scale``."""
    x, y, w, h = (float(value) for value in face[:4])
    side = _SIDE_OF_BOX * math.sqrt(w * h) * scale
    return Square(left + (x + w / 2) * scale, top + (y + h / 2) * scale - _ABOVE_BOX * side, side)


def _distance(found: Square, expected: Square) -> float:
    """How far a face is from where it was expected, in sides of the expected square."""
    return math.dist((found.x, found.y), (expected.x, expected.y)) / expected.side


def _least_score(found: Square, expected: Square) -> float:
    """The score that a known face needs where it was found."""
    return _KNOWN_SCORE if _distance(found, expected) <= _EXPECTED_REACH else _FACE_SCORE


def _upright(offset: Square, centre: Square, scale: float) -> Square:
    """A square of a patch, relative to its middle, in the frame; the patch is turned as its ``centre`` is."""
    cosine, sine = math.cos(math.radians(centre.roll)), math.sin(math.radians(centre.roll))
    x, y = scale * offset.x, scale * offset.y
    return Square(
        centre.x + cosine * x - sine * y, centre.y + sine * x + cosine * y, scale * offset.side, roll=centre.roll
    )


def _roll(landmarks: NDArray[np.float32]) -> float:
    """By how many degrees the line of the eyes is turned clockwise.

    In small pictures the network underestimates it: a head turned by 20 degrees may get 3.
    """
    across, down = (landmarks[1] - landmarks[0]).tolist()  # the person's right eye is on the picture's left
    return math.degrees(math.atan2(down, across))


def _yaw(landmarks: NDArray[np.float32]) -> float:
    """By how many degrees a head is roughly turned to a side, 0..90, by how far its nose is beside its middle line."""
    eyes, mouth = (landmarks[0] + landmarks[1]) / 2, (landmarks[3] + landmarks[4]) / 2
    (down_x, down_y), (x, y) = (mouth - eyes).tolist(), (landmarks[2] - eyes).tolist()
    beside = abs(x * down_y - y * down_x) / max(down_x**2 + down_y**2, 1.0)
    return math.degrees(math.asin(min(1.0, beside / _NOSE_LENGTH)))


def _span(middle: int, length: int, limit: int) -> tuple[int, int]:
    """So many pixels around ``middle``, shifted to be within the frame."""
    first = max(0, min(middle - length // 2, limit - length))
    return first, first + length
