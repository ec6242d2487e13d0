"""Augmentation of 48x48 grey faces: flip, small affine, brightness and contrast, random erasing.

Shift and scale also simulate the jitter of a detector's box, so that the network stays accurate on the crops of a Haar
cascade. CutMix is not used: it destroys the mouth and the eyes.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.model.preprocessing import INPUT_SIZE


def augment(pixels: NDArray[np.uint8], rng: np.random.Generator, strength: float = 1.0) -> NDArray[np.uint8]:
    """Change each face at random (one view of it); takes and returns ``(n, 48, 48)`` uint8.

    ``strength`` scales every range and probability; 0 returns the pictures unchanged.
    """
    if strength == 0:
        return pixels
    n = len(pixels)
    matrices = _affine_matrices(n, rng, strength)
    contrast = 1 + strength * rng.uniform(-0.25, 0.25, n)
    brightness = strength * rng.uniform(-25, 25, n)
    views = np.empty_like(pixels)
    for index in range(n):
        views[index] = cv2.warpAffine(
            pixels[index], matrices[index], (INPUT_SIZE, INPUT_SIZE), borderMode=cv2.BORDER_REPLICATE
        )
    means = views.mean(axis=(1, 2))
    lit = (views - means[:, None, None]) * contrast[:, None, None] + (means + brightness)[:, None, None]
    views = np.asarray(np.clip(lit, 0, 255), np.uint8)
    _erase(views, rng, 0.25 * strength)
    return views


def _affine_matrices(n: int, rng: np.random.Generator, strength: float) -> NDArray[np.float64]:
    """Random 2x3 matrices about the centre: flip, rotation +-12 degrees, scale .85-1.12, shift +-4 pixels."""
    angle = strength * np.deg2rad(rng.uniform(-12, 12, n))
    scale = 1 + strength * rng.uniform(-0.15, 0.12, n)
    mirror = np.where(rng.random(n) < 0.5 * min(strength, 1.0), -1.0, 1.0)
    shift = strength * rng.uniform(-4, 4, (n, 2))
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.stack([np.stack([cos * mirror, -sin], -1), np.stack([sin * mirror, cos], -1)], 1)
    centre = np.full(2, (INPUT_SIZE - 1) / 2)
    offset = centre + shift - linear @ centre
    return np.concatenate([linear, offset[:, :, None]], axis=2)


def _erase(views: NDArray[np.uint8], rng: np.random.Generator, probability: float) -> None:
    """Fill a random rectangle of some faces with their mean grey, in place (Zhong et al., arXiv 1708.04896)."""
    n = len(views)
    chosen = np.flatnonzero(rng.random(n) < probability)
    sizes = rng.integers(6, 17, (n, 2))
    corners = (rng.random((n, 2)) * (INPUT_SIZE - sizes)).astype(int)
    for index in chosen:
        (y, x), (h, w) = corners[index], sizes[index]
        views[index, y : y + h, x : x + w] = round(views[index].mean())
