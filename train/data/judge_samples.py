"""Samples for the judge of faces (edge.vision.judge): patches of 24x24 pixels around and beside FER2013's faces.

Faces lie in drawn surroundings, and the patches on them are shifted, resized and turned by known amounts. What is no
face is drawn or taken from faces: their parts, faces upside down, their pieces in wrong order, patches beside them, and
drawn clutter, with writing, stripes, collars and spotted ovals. No picture but FER2013's training faces is needed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.records import Gray, Square
from edge.vision.judge import FACE_SHARE, INPUT_SIDE, MAX_ROLL, FaceJudge
from edge.vision.pyramid import Pyramid
from train.data.face_wear import wear

_FACE: Final = 48  # side of FER2013's pictures
_MIDDLE: Final = 1.5 * _FACE  # of a face in its surroundings, which are three times as wide
_BATCH: Final = 400  # patches that are no faces, which are drawn in one room
_CLUTTER: Final = (320, 240)
_OFFSETS: Final = ((0.08, 0.12, 15.0), (0.2, 0.3, 40.0), (0.12, 0.6, 20.0))  # shift, log of size, degrees: at most

Random = np.random.Generator
Targets = NDArray[np.float32]


@dataclass(frozen=True)
class JudgeSamples:
    """Patches ``(n, 24, 24)`` uint8 and what the network should say: ``(n, 5)``.

    The first target is 1 for a face; the others are the offsets of `edge.vision.judge.FaceJudge.outputs`.
    """

    patches: Gray
    targets: Targets

    def __add__(self, other: "JudgeSamples") -> "JudgeSamples":
        return JudgeSamples(
            np.concatenate((self.patches, other.patches)), np.concatenate((self.targets, other.targets))
        )


def face_samples(faces: Gray, n: int, rng: Random) -> JudgeSamples:
    """Patches on ``n`` of the ``faces``, ``(m, 48, 48)`` uint8."""
    patches, targets = np.empty((n, INPUT_SIDE, INPUT_SIDE), np.uint8), np.ones((n, 5), np.float32)
    rooms = [clutter(faces, rng) for _ in range(min(80, n))]
    for index in range(n):
        shift, growth, turn = _OFFSETS[rng.choice(3, p=(0.3, 0.4, 0.3))]
        right, down = rng.uniform(-shift, shift, 2)
        larger, roll = rng.uniform(-growth, growth), rng.uniform(-turn, turn)
        side, angle = _FACE * FACE_SHARE * np.exp(larger), np.radians(roll)
        x = _MIDDLE + side * (np.cos(angle) * right - np.sin(angle) * down)
        y = _MIDDLE + side * (np.sin(angle) * right + np.cos(angle) * down)
        surroundings = Pyramid(_surround(_draw(faces, rng), rooms, faces, rng))
        patch = surroundings.cut(Square(x, y, side, roll), INPUT_SIDE)
        patches[index] = worsened(patch, rng) if rng.random() < 0.8 else patch
        targets[index, 1:] = -right, -down, -larger, -roll / MAX_ROLL
    return JudgeSamples(patches, targets)


def other_samples(faces: Gray, n: int, rng: Random, judge: FaceJudge | None = None) -> JudgeSamples:
    """``n`` patches that are no faces; with a ``judge`` only those that it takes for faces, as far as there are any."""
    found: list[Gray] = []
    for _ in range(1 + (n // _BATCH if judge is None else n // 10)):
        if len(found) >= n:
            break
        room = clutter(faces, rng)
        patches = np.array(
            [worsened(_OTHERS[rng.integers(len(_OTHERS))](faces, room, rng), rng) for _ in range(_BATCH)]
        )
        found += list(patches if judge is None else patches[judge.outputs(patches)[:, 0] > 0])
    patches = np.array(found[:n], np.uint8).reshape(-1, INPUT_SIDE, INPUT_SIDE)
    return JudgeSamples(patches, np.zeros((len(patches), 5), np.float32))


def worsened(patch: Gray, rng: Random) -> Gray:
    """A patch as a camera may give it: in other light, blurred, noisy, dim, compressed."""
    pixels = patch.astype(np.float32)
    if rng.random() < 0.35:
        down, across = np.mgrid[-1 : 1 : INPUT_SIDE * 1j, -1 : 1 : INPUT_SIDE * 1j]
        angle = rng.uniform(0, 2 * np.pi)
        pixels *= 1 + rng.uniform(0, 0.7) * (np.cos(angle) * across + np.sin(angle) * down)
    if rng.random() < 0.4:
        pixels = 255 * (np.clip(pixels, 0, 255) / 255) ** np.exp(rng.uniform(-0.8, 0.8))
    if rng.random() < 0.5:
        pixels = np.asarray(cv2.GaussianBlur(pixels, (0, 0), rng.uniform(0.3, 1.4)), np.float32)
    if rng.random() < 0.25:
        pixels *= rng.uniform(0.08, 0.5)
    if rng.random() < 0.6:
        pixels += rng.normal(0, 1, pixels.shape) * rng.uniform(0, 0.2) * (pixels.std() + 1)
    worse = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    if rng.random() < 0.25:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 80))]
        worse = np.asarray(cv2.imdecode(cv2.imencode(".jpg", worse, quality)[1], cv2.IMREAD_GRAYSCALE), np.uint8)
    return worse


def clutter(faces: Gray, rng: Random) -> Gray:
    """A drawn picture without a face, ``(240, 320)`` uint8: leaves, parts of faces, writing, stripes, collars."""
    width, height = _CLUTTER
    picture = np.full((height, width), rng.integers(30, 225), np.uint8)
    count = int(rng.integers(60, 500))
    for size in (0.25 - rng.random(count) * (0.25 - 1 / 60**2)) ** -0.5:
        at = (int(rng.integers(0, width)), int(rng.integers(0, height)))
        axes = (max(1, int(size)), max(1, int(size * rng.uniform(0.1, 1))))
        if rng.random() < 0.85:
            cv2.ellipse(picture, at, axes, rng.uniform(0, 180), 0, 360, rng.uniform(10, 245), -1)
        else:
            piece = _part(faces, rng, side=2 * axes[0] + 6)
            there = picture[at[1] : at[1] + len(piece), at[0] : at[0] + len(piece)]
            there[:] = piece[: there.shape[0], : there.shape[1]]
    for _ in range(int(rng.integers(0, 7))):
        _write(picture, rng)
    for _ in range(int(rng.integers(0, 4))):
        _stripe(picture, rng)
    for _ in range(int(rng.integers(0, 3))):
        _dress(picture, rng)
    soft = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.4, 1.5))
    return np.asarray(np.clip(soft + rng.normal(0, rng.uniform(0, 6), soft.shape), 0, 255), np.uint8)


def _write(picture: Gray, rng: Random) -> None:
    text = "".join(map(chr, rng.integers(33, 126, int(rng.integers(1, 9)))))
    size = float(np.exp(rng.uniform(np.log(0.3), np.log(4))))
    at = (int(rng.integers(-20, _CLUTTER[0] - 20)), int(rng.integers(10, _CLUTTER[1])))
    width = max(1, int(size * rng.uniform(1, 5)))
    cv2.putText(picture, text, at, int(rng.integers(0, 8)), size, rng.uniform(0, 255), width, cv2.LINE_AA)


def _stripe(picture: Gray, rng: Random) -> None:
    left, top = int(rng.integers(0, _CLUTTER[0] - 40)), int(rng.integers(0, _CLUTTER[1] - 40))
    cloth = picture[top : top + int(rng.integers(30, 140)), left : left + int(rng.integers(30, 140))]
    down, across = np.mgrid[: cloth.shape[0], : cloth.shape[1]]
    waves = np.ones(cloth.shape)
    for _ in range(int(rng.integers(1, 3))):
        angle, period = rng.uniform(0, np.pi), rng.uniform(3, 30)
        waves *= np.sin(2 * np.pi * (across * np.cos(angle) + down * np.sin(angle)) / period + rng.uniform(0, 6))
    cloth[:] = np.clip(cloth + rng.uniform(10, 70) * (np.sign(waves) if rng.random() < 0.4 else waves), 0, 255)


def _dress(picture: Gray, rng: Random) -> None:
    """Draw shoulders, a neck and a collar."""
    s, depth = int(rng.integers(20, 90)), rng.uniform(0.2, 1.2)
    x, y = int(rng.integers(0, _CLUTTER[0])), int(rng.integers(0, _CLUTTER[1]))
    third = s // 3
    shoulders = [[x - s, y + 2 * s], [x - s, y + third], [x - third, y], [x + third, y], [x + s, y + third]]
    cv2.fillPoly(picture, [np.array([*shoulders, [x + s, y + 2 * s]])], rng.uniform(10, 245))
    neck = [[x - third, y - third], [x + third, y - third], [x + third, y], [x, y + int(depth * s)], [x - third, y]]
    cv2.fillPoly(picture, [np.array(neck)], rng.uniform(10, 245))
    if rng.random() < 0.5:
        axes = (int(s * 0.45), int(s * depth * 0.6))
        cv2.ellipse(picture, (x, y), axes, 0, 0, 180, rng.uniform(10, 245), max(1, s // 12))


def _draw(faces: Gray, rng: Random) -> Gray:
    face = faces[rng.integers(len(faces))]
    return wear(np.ascontiguousarray(face[:, ::-1] if rng.random() < 0.5 else face), rng)


def _part(faces: Gray, rng: Random, side: int = INPUT_SIDE) -> Gray:
    """A part of a face, enlarged and turned."""
    share = rng.uniform(0.15, 0.5) * _FACE
    x, y = rng.uniform(share / 2, _FACE - share / 2, 2)
    return Pyramid(_draw(faces, rng)).cut(Square(x, y, share, rng.uniform(0, 360)), side)


def _surround(face: Gray, rooms: list[Gray], faces: Gray, rng: Random, *, alone: bool = False) -> Gray:
    """A face in the middle of surroundings three times as wide; ``alone``: without mirror images of it beside it."""
    kind = rng.random()
    if kind < 0.45:
        border = cv2.BORDER_REPLICATE if kind < 0.3 or alone else cv2.BORDER_REFLECT_101
        return np.asarray(cv2.copyMakeBorder(face, _FACE, _FACE, _FACE, _FACE, border), np.uint8)
    wide = 3 * _FACE
    if kind < 0.8:
        room = rooms[rng.integers(len(rooms))]
        top, left = (int(rng.integers(0, length - wide)) for length in room.shape)
        around = room[top : top + wide, left : left + wide].copy()
    else:
        around = _part(faces, rng, side=wide)
    mask = np.zeros((_FACE, _FACE), np.float32)
    if rng.random() < 0.5:
        cv2.ellipse(mask, (_FACE // 2, _FACE // 2), (_FACE // 2 - 2, _FACE // 2), 0, 0, 360, 1.0, -1)
    else:
        cv2.rectangle(mask, (2, 2), (_FACE - 3, _FACE - 3), 1.0, -1)
    mask = np.asarray(cv2.GaussianBlur(mask, (0, 0), rng.uniform(0.8, 2.5)), np.float32)
    inside = np.s_[_FACE : 2 * _FACE, _FACE : 2 * _FACE]
    around[inside] = mask * face + (1 - mask) * around[inside]
    return around


def _beside(faces: Gray, room: Gray, rng: Random) -> Gray:
    side, angle = _FACE * FACE_SHARE * np.exp(rng.uniform(-0.6, 0.5)), rng.uniform(0, 2 * np.pi)
    distance = rng.uniform(0.45, 1.0) * max(side, _FACE)
    square = Square(_MIDDLE + distance * np.cos(angle), _MIDDLE + distance * np.sin(angle), side, rng.uniform(-45, 45))
    return Pyramid(_surround(_draw(faces, rng), [room], faces, rng, alone=True)).cut(square, INPUT_SIDE)


def _wrong_size(faces: Gray, room: Gray, rng: Random) -> Gray:
    share = rng.uniform(1.8, 3) if rng.random() < 0.5 else rng.uniform(0.25, 0.55)
    x, y = _MIDDLE + rng.uniform(-12, 12, 2)
    square = Square(x, y, _FACE * FACE_SHARE * share, rng.uniform(-45, 45))
    return Pyramid(_surround(_draw(faces, rng), [room], faces, rng)).cut(square, INPUT_SIDE)


def _upside_down(faces: Gray, room: Gray, rng: Random) -> Gray:
    x, y = _MIDDLE + rng.uniform(-6, 6, 2)
    square = Square(x, y, _FACE * FACE_SHARE * np.exp(rng.uniform(-0.3, 0.3)), rng.uniform(80, 280))
    return Pyramid(_surround(_draw(faces, rng), [room], faces, rng)).cut(square, INPUT_SIDE)


def _in_pieces(faces: Gray, _room: Gray, rng: Random) -> Gray:
    """The pieces of a face, none of them where it belongs."""
    face = Pyramid(_draw(faces, rng)).cut(Square(_FACE / 2, _FACE / 2, _FACE * FACE_SHARE), INPUT_SIDE)
    n = int(rng.integers(2, 5))
    step, circle, order = INPUT_SIDE // n, rng.permutation(n * n), np.empty(n * n, np.intp)
    order[circle] = np.roll(circle, 1)
    pieces = [face[i * step : (i + 1) * step, j * step : (j + 1) * step] for i in range(n) for j in range(n)]
    rows = [np.hstack([pieces[order[i * n + j]] for j in range(n)]) for i in range(n)]
    return np.asarray(cv2.GaussianBlur(np.vstack(rows), (0, 0), 0.5), np.uint8)


def _of_clutter(_faces: Gray, room: Gray, rng: Random) -> Gray:
    side = float(np.exp(rng.uniform(np.log(18), np.log(150))))
    x, y = (rng.uniform(0, length) for length in _CLUTTER)
    return Pyramid(room).cut(Square(x, y, side, rng.uniform(-30, 30)), INPUT_SIDE)


def _spotted(_faces: Gray, _room: Gray, rng: Random) -> Gray:
    """An oval with spots, as fruit, stones and toys may look; cascades take many of them for faces."""
    side, middle = 3 * INPUT_SIDE, 1.5 * INPUT_SIDE
    ground, skin = rng.uniform(20, 235, 2)
    picture = np.full((side, side), ground, np.uint8)

    def spot(reach: float, least: float, most: float, shade: float) -> None:
        x, y = (int(value) for value in rng.normal(middle, reach, 2))
        axes = (int(rng.uniform(least, most)), int(rng.uniform(least, most)))
        cv2.ellipse(picture, (x, y), axes, rng.uniform(0, 180), 0, 360, shade, -1)

    for _ in range(int(rng.integers(0, 3))):
        spot(16, 8, 26, rng.uniform(20, 235))
    spot(3, 13, 30, skin)
    for _ in range(int(rng.integers(2, 14))):
        spot(13, 1.5, 7, rng.uniform(0, 255))
    soft = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.4, 2.5))
    return np.asarray(cv2.resize(soft, (INPUT_SIDE, INPUT_SIDE), interpolation=cv2.INTER_AREA), np.uint8)


_OTHERS: Final[tuple[Callable[[Gray, Gray, Random], Gray], ...]] = (
    lambda faces, _room, rng: _part(faces, rng),
    _beside,
    _wrong_size,
    _upside_down,
    _in_pieces,
    _spotted,
    _spotted,
    _of_clutter,
    _of_clutter,
    _of_clutter,
)
