"""Degradations: how cameras, light, inaccurate boxes and covers change a face of 48x48 grey pixels.

Each kind changes a batch of faces by a level in its own unit (pixels, grey levels, a share, degrees). Training draws
kinds and levels at random (``degrade``). The robustness table (export.studies.robustness) uses fixed levels of the same
kinds, as ImageNet-C does (Hendrycks and Dietterich 2019, arXiv 1903.12261). A face that is moved gets its border
pixels repeated.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.model.preprocessing import INPUT_SIZE, resize

Faces = NDArray[np.uint8]
"""Grey faces, ``(n, 48, 48)``."""
Levels = NDArray[np.float64]
"""One level per face, ``(n,)``, in the unit of the kind."""
_Change = Callable[[Faces, Levels, np.random.Generator], Faces]

_SECOND_KIND_SHARE: Final = 0.3
"""The share of the degraded faces that get a second kind too."""
_CENTRE: Final = (INPUT_SIZE - 1) / 2
_ROWS, _COLUMNS = np.mgrid[:INPUT_SIZE, :INPUT_SIZE].astype(np.float64) / (INPUT_SIZE - 1)


@dataclass(frozen=True)
class Degradation:
    """One kind of degradation. ``change`` takes faces, one level per face and a random generator; it returns new faces.

    Training draws levels from ``lowest`` to ``highest``. For some kinds, such as ``JPEG``, the lowest is the worst.
    """

    name: str
    unit: str
    lowest: float
    highest: float
    change: _Change

    def apply(self, faces: Faces, level: float, rng: np.random.Generator) -> Faces:
        """A copy of the faces, all at one level; ``rng`` draws the direction, the side or the shade."""
        return self.change(faces, np.full(len(faces), level), rng)

    def draw(self, faces: Faces, rng: np.random.Generator) -> Faces:
        """A copy of the faces, each at a random level from the lowest to the highest."""
        return self.change(faces, rng.uniform(self.lowest, self.highest, len(faces)), rng)


def degrade(faces: Faces, share: float, rng: np.random.Generator) -> Faces:
    """Degrade a random ``share`` of the faces, each by one kind or two at random levels.

    Two kinds are applied in the order in which they happen to a picture: cover, position, light, optics, sensor,
    compression. At share 0 the faces are returned unchanged, and nothing is drawn from ``rng``.
    """
    if share == 0:
        return faces
    n, kinds = len(faces), len(DEGRADATIONS)
    first = np.where(rng.random(n) < share, rng.integers(0, kinds, n), -1)
    second = np.where((first >= 0) & (rng.random(n) < _SECOND_KIND_SHARE), rng.integers(0, kinds, n), -1)
    result = faces.copy()
    for number, kind in enumerate(DEGRADATIONS.values()):
        chosen = np.flatnonzero((first == number) | (second == number))
        if len(chosen):
            result[chosen] = kind.draw(result[chosen], rng)
    return result


def _defocus(faces: Faces, sigmas: Levels, _rng: np.random.Generator) -> Faces:
    """Blur by a Gaussian of these standard deviations in pixels."""
    return _each(faces, sigmas, lambda face, sigma: cv2.GaussianBlur(face, (0, 0), sigma))


def _motion(faces: Faces, lengths: Levels, rng: np.random.Generator) -> Faces:
    """Blur along straight lines of these lengths in pixels, each face in a random direction."""
    directions = rng.uniform(0, np.pi, len(faces))
    blurred = [
        cv2.filter2D(face, -1, _line_kernel(length, direction), borderType=cv2.BORDER_REPLICATE)
        for face, length, direction in zip(faces, lengths, directions, strict=True)
    ]
    return np.array(blurred, np.uint8).reshape(faces.shape)


def _line_kernel(length: float, direction: float) -> NDArray[np.float32]:
    """The kernel ``(k, k)`` of a straight line through its centre; its elements add up to 1.

    Each point of the line is distributed over the four pixels around it, by bilinear interpolation.
    """
    half = int(np.ceil(length / 2)) + 1
    points = 4 * half
    along = ((np.arange(points) + 0.5) / points - 0.5) * length
    rows, columns = half + along * np.sin(direction), half + along * np.cos(direction)
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    down, right = rows - top, columns - left
    kernel = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        share = np.abs(1 - row - down) * np.abs(1 - column - right)
        np.add.at(kernel, (top + row, left + column), share / points)
    return kernel


def _noise(faces: Faces, deviations: Levels, rng: np.random.Generator) -> Faces:
    """Add Gaussian noise of these standard deviations in grey levels."""
    noise = rng.standard_normal(faces.shape, np.float32) * _column(deviations)
    return _grey(faces + noise)


def _jpeg(faces: Faces, qualities: Levels, _rng: np.random.Generator) -> Faces:
    """Compress as JPEG with these qualities, 1 to 100, and decode."""

    def compressed(face: Faces, quality: float) -> Faces:
        encoded = cv2.imencode(".jpg", face, (cv2.IMWRITE_JPEG_QUALITY, round(quality)))[1]
        return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE), np.uint8)

    return _each(faces, qualities, compressed)


def _low_resolution(faces: Faces, sides: Levels, _rng: np.random.Generator) -> Faces:
    """Reduce faces to these sides in pixels, as far cameras see them, and enlarge them as the device does."""

    def reduced(face: Faces, side: float) -> Faces:
        pixels = round(side)
        return resize(np.asarray(cv2.resize(face, (pixels, pixels), interpolation=cv2.INTER_AREA), np.uint8))

    return _each(faces, sides, reduced)


def _exposure(faces: Faces, factors: Levels, _rng: np.random.Generator) -> Faces:
    """Multiply the light by these factors; pixels brighter than white become white."""
    return _grey(faces * _column(factors))


def _backlight(faces: Faces, shares: Levels, rng: np.random.Generator) -> Faces:
    """Darken the face by these shares, and add as much stray light from the left or the right."""
    from_left = rng.random(len(faces)) < 0.5
    tilt = rng.uniform(-0.3, 0.3, len(faces))
    across = np.where(_column(from_left), _COLUMNS, 1 - _COLUMNS) + _column(tilt) * (_ROWS - 0.5)
    stray = 255 * np.clip(1 - across, 0, 1) ** 2
    return _grey(faces * (1 - _column(shares)) + stray * _column(shares))


def _contrast(faces: Faces, factors: Levels, _rng: np.random.Generator) -> Faces:
    """Multiply the differences from each face's mean grey by these factors."""
    means = faces.mean(axis=(1, 2), keepdims=True)
    return _grey(means + (faces - means) * _column(factors))


def _roll(faces: Faces, degrees: Levels, rng: np.random.Generator) -> Faces:
    """Rotate by these degrees, to the left or to the right."""
    angles = degrees * _signs(len(faces), rng)
    matrices = [np.asarray(cv2.getRotationMatrix2D((_CENTRE, _CENTRE), angle, 1), np.float64) for angle in angles]
    return _warp(faces, matrices)


def _misplaced_box(faces: Faces, shares: Levels, rng: np.random.Generator) -> Faces:
    """Crop by a box that is displaced by these shares of its side, and too large or too small by the same share."""
    scale = 1 + shares * _signs(len(faces), rng)
    direction = rng.uniform(0, 2 * np.pi, len(faces))
    moved = shares * INPUT_SIZE * np.stack([np.cos(direction), np.sin(direction)])
    offsets = moved + _CENTRE * (1 - scale)
    matrices = [np.array([[s, 0, x], [0, s, y]], np.float64) for s, x, y in zip(scale, *offsets, strict=True)]
    return _warp(faces, matrices)


def _cover_mouth(faces: Faces, shares: Levels, rng: np.random.Generator) -> Faces:
    """Cover these shares of the face from below with one shade, as a mask does; it narrows towards the chin."""
    top = _column(1 - shares + rng.uniform(-0.02, 0.02, len(faces)))
    across = np.abs(_COLUMNS - 0.5)
    covered = (top <= _ROWS) & (across < 0.46 - 0.25 * np.clip(_ROWS - 0.75, 0, 1))
    return _cover(faces, covered, rng.uniform(0, 255, len(faces)), rng)


def _cover_eyes(faces: Faces, heights: Levels, rng: np.random.Generator) -> Faces:
    """Cover the eyes with dark glasses; the lenses have these heights, as shares of the face."""
    y = 0.38 + rng.uniform(-0.02, 0.02, len(faces))
    lenses = np.zeros((len(faces), INPUT_SIZE, INPUT_SIZE), np.bool_)
    for x in (0.29, 0.71):
        lenses |= ((_COLUMNS - x) / 0.2) ** 4 + ((_ROWS - _column(y)) / _column(heights / 2)) ** 4 < 1
    bridge = (np.abs(_ROWS - _column(y - heights / 4)) < 0.03) & (np.abs(_COLUMNS - 0.5) < 0.45)
    return _cover(faces, lenses | bridge, rng.uniform(0, 50, len(faces)), rng)


def _cover_half(faces: Faces, shares: Levels, rng: np.random.Generator) -> Faces:
    """Cover these shares of the face from the left or the right with one shade."""
    from_left = rng.random(len(faces)) < 0.5
    across = np.where(_column(from_left), _COLUMNS, 1 - _COLUMNS)
    return _cover(faces, across < _column(shares), rng.uniform(0, 255, len(faces)), rng)


def _cover(faces: Faces, covered: NDArray[np.bool_], shades: Levels, rng: np.random.Generator) -> Faces:
    """Fill ``covered``, ``(n, 48, 48)``, with one shade per face and a little noise."""
    fill = _column(shades) + rng.standard_normal(faces.shape, np.float32) * 4
    return np.where(covered, _grey(fill), faces)


def _warp(faces: Faces, matrices: list[NDArray[np.float64]]) -> Faces:
    warped = [
        cv2.warpAffine(face, matrix, (INPUT_SIZE, INPUT_SIZE), borderMode=cv2.BORDER_REPLICATE)
        for face, matrix in zip(faces, matrices, strict=True)
    ]
    return np.array(warped, np.uint8).reshape(faces.shape)


def _each(faces: Faces, levels: Levels, change: Callable[[Faces, float], object]) -> Faces:
    changed = [change(face, level) for face, level in zip(faces, levels.tolist(), strict=True)]
    return np.array(changed, np.uint8).reshape(faces.shape)


def _column(values: NDArray[np.generic]) -> NDArray[np.float32]:
    """Reshape one value per face, ``(n,)``, so that it broadcasts over faces."""
    return values.astype(np.float32)[:, np.newaxis, np.newaxis]


def _signs(n: int, rng: np.random.Generator) -> Levels:
    return np.where(rng.random(n) < 0.5, -1.0, 1.0)


def _grey(values: NDArray[np.floating]) -> Faces:
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)


DEGRADATIONS: Final = {
    kind.name: kind
    for kind in (
        Degradation("mouth covered", "of the face", 0.25, 0.5, _cover_mouth),
        Degradation("eyes covered", "of the face", 0.14, 0.34, _cover_eyes),
        Degradation("half covered", "of the face", 0.2, 0.55, _cover_half),
        Degradation("roll", "degrees", 5, 35, _roll),
        Degradation("box", "of its side", 0.03, 0.22, _misplaced_box),
        Degradation("dark", "times the light", 0.12, 0.8, _exposure),
        Degradation("bright", "times the light", 1.2, 2.8, _exposure),
        Degradation("backlight", "of stray light", 0.2, 0.85, _backlight),
        Degradation("low contrast", "of the contrast", 0.12, 0.8, _contrast),
        Degradation("defocus blur", "px", 0.4, 2.6, _defocus),
        Degradation("motion blur", "px", 2, 10, _motion),
        Degradation("low resolution", "px", 11, 40, _low_resolution),
        Degradation("sensor noise", "grey levels", 3, 28, _noise),
        Degradation("JPEG", "of 100", 5, 50, _jpeg),
    )
}
"""Every kind by name, in the order in which it happens to a picture."""
