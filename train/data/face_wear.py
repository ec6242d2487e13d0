"""Glasses and beards, drawn onto FER2013's faces: few of them wear any, and a camera sees many that do.

They are drawn at four times the size, so that a thin rim is grey and not absent, and lie where a face of FER2013 has
its eyes and its mouth, give or take what such faces differ by. Lengths are in pixels of a face of 48.
"""

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.records import Gray

_SIDE: Final = 48
_ENLARGED: Final = 4
_EYES, _MOUTH = (24.0, 18.5), (24.0, 37.5)
_SPREAD: Final = 1.2  # standard deviation of where they are
_LEAN: Final = 4.0  # degrees, likewise
_GLASSES, _BEARD = 0.2, 0.15  # shares of the faces that wear them

Random = np.random.Generator
Floats = NDArray[np.float32]
Points = NDArray[np.float64]


def wear(face: Gray, rng: Random) -> Gray:
    """A face ``(48, 48)`` uint8 with glasses, a beard, both or, mostly, neither. The given one is left as it is."""
    beard, glasses = rng.random() < _BEARD, rng.random() < _GLASSES
    if not beard and not glasses:
        return face
    picture = cv2.resize(face, None, fx=_ENLARGED, fy=_ENLARGED, interpolation=cv2.INTER_LINEAR).astype(np.float32)
    lean = rng.normal(0, _LEAN)
    if beard:
        picture = _grow_beard(picture, lean, rng)
    if glasses:
        picture = _put_on_glasses(picture, lean, rng)
    worn = cv2.resize(picture, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(np.clip(np.rint(worn), 0, 255), np.uint8)


def _put_on_glasses(picture: Floats, lean: float, rng: Random) -> Floats:
    """Spectacles with thin or thick rims, clear, shining, tinted or dark."""
    at = rng.normal(_EYES, _SPREAD)
    apart = rng.normal(8.9, 0.6)  # of the middles of the lenses from the nose
    width, height = min(rng.uniform(5.5, 8.5), apart - 0.8), rng.uniform(3.5, 7)
    thickness = max(1, round(_ENLARGED * np.exp(rng.uniform(np.log(0.3), np.log(2.2)))))
    rim = rng.uniform(0, 70) if rng.random() < 0.85 else rng.uniform(70, 220)
    lens = _rounded(width, height, np.exp(rng.uniform(np.log(2), np.log(6))))
    lenses = [_placed(lens + np.array((side * apart, 0)), at, lean) for side in (-1, 1)]
    glass, shade = _glass(rng)
    mask = np.zeros_like(picture)
    cv2.fillPoly(mask, lenses, 1.0, cv2.LINE_AA)
    picture = picture + glass * mask * (shade - picture)
    top, inner, outer = -0.4 * height, apart - width, apart + width
    lines = [_placed(np.array([(-inner, top), (0, top - 0.6), (inner, top)]), at, lean)]
    lines += [
        _placed(np.array([(side * outer, top), (side * (outer + 9), top + rng.uniform(-1, 1))]), at, lean)
        for side in (-1, 1)
    ]
    cv2.polylines(picture, lenses, True, rim, thickness, cv2.LINE_AA)
    cv2.polylines(picture, lines, False, rim, thickness, cv2.LINE_AA)
    return picture


def _glass(rng: Random) -> tuple[float, float]:
    """How much lenses hide, 0..1, and the grey that they hide it with."""
    kind = rng.random()
    if kind < 0.45:
        return rng.uniform(0, 0.1), rng.uniform(0, 120)
    if kind < 0.6:  # they shine
        return rng.uniform(0.1, 0.5), rng.uniform(150, 255)
    return (rng.uniform(0.1, 0.6) if kind < 0.8 else rng.uniform(0.6, 0.97)), rng.uniform(0, 80)


def _grow_beard(picture: Floats, lean: float, rng: Random) -> Floats:
    """From stubble to thick hair, mostly darker than the skin."""
    at = rng.normal(_MOUTH, _SPREAD)
    hair = np.zeros_like(picture)
    grown, bare = _beard_shapes(rng)
    for shapes, amount in ((grown, 1.0), (bare, 0.0)):
        for shape in shapes:
            cv2.fillPoly(hair, [_placed(shape, at, lean)], amount)
    hair = np.asarray(cv2.GaussianBlur(hair, (0, 0), _ENLARGED * rng.uniform(0.4, 1.6)), np.float32)
    skin = float(picture.mean())
    shade = skin * (rng.uniform(0.1, 0.65) if rng.random() < 0.85 else rng.uniform(1.1, 1.6))
    strands = shade + 0.12 * skin * rng.normal(0, 1, picture.shape).astype(np.float32)
    return picture + np.float32(rng.uniform(0.25, 0.95)) * hair * (strands - picture)


def _beard_shapes(rng: Random) -> tuple[list[Points], list[Points]]:
    """Where hair grows around a mouth, and what stays bare in it: a moustache, a beard around the mouth, a full one."""
    broad, kind = rng.uniform(5.5, 9), rng.random()
    grown = [_rounded(broad, rng.uniform(1.2, 2.4), 2.5, (0, rng.uniform(-5.5, -3.5)))]
    bare = [_rounded(rng.uniform(4, 7), rng.uniform(0.8, 2.2), 2.0)]  # the lips
    if kind > 0.2:  # on the chin
        grown.append(_rounded(rng.uniform(3, 8), rng.uniform(3, 6), 2.0, (0, rng.uniform(6, 9))))
    if kind > 0.4:  # from the moustache down
        grown += [_rounded(rng.uniform(1, 2.5), 8, 2.0, (side * broad, 2)) for side in (-1, 1)]
    if kind > 0.55:  # on the cheeks
        cheek, ear = rng.uniform(-8, -1), rng.uniform(-18, -8)
        half = [(20, ear), (15.5, cheek - 2), (broad, cheek), (broad - 1, 5), (0, 8), (0, 14), (14, 14)]
        grown += [np.array(half) * (side, 1) for side in (-1, 1)]
        if rng.random() < 0.4:
            width, height = rng.uniform(1.5, 3), rng.uniform(2, 4)
            bare += [_rounded(width, height, 2.0, (side * rng.uniform(3, 7), rng.uniform(4, 7))) for side in (-1, 1)]
    return grown, bare


def _rounded(width: float, height: float, corners: float, middle: tuple[float, float] = (0.0, 0.0)) -> Points:
    """The outline of an ellipse, or of a rectangle with round corners, the more of one the higher ``corners``: 2..6.

    ``width`` and ``height`` are half of its sides; the points are ``(n, 2)``, right and down.
    """
    angles = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    circle = np.stack((np.cos(angles), np.sin(angles)), axis=-1)
    outline: Points = np.sign(circle) * np.abs(circle) ** (2 / corners) * (width, height) + middle
    return outline


def _placed(points: Points, at: Points, lean: float) -> NDArray[np.int32]:
    """Points around ``at`` in the enlarged face, turned by ``lean`` degrees, as cv2 takes them."""
    cosine, sine = np.cos(np.radians(lean)), np.sin(np.radians(lean))
    return np.rint((points @ np.array(((cosine, sine), (-sine, cosine))) + at) * _ENLARGED).astype(np.int32)
