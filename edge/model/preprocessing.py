"""The contract between training and device: cropping, encoding and decoding.

This is the only preprocessing of the project. Training makes its pictures with these functions, export calibrates with
them, and the device runs them, so that a model never gets a differently prepared picture.
"""

from typing import Final

import cv2
import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge.labels import Labels
from edge.records import Box, Expression, Gray

INPUT_SIZE: Final = 48
"""Side of the network's square grey input in pixels, as in FER2013."""

CROP_MARGIN: Final = 0.0
"""Crop margin of new bundles; it suits both students (docs/experiments/crop-margin.md has the measurement)."""

_TOLERATED_ROLL: Final = 10.0  # degrees; training turns faces by as much
_MAX_LOG_TEMPERATURE: Final = float(np.log(3))


def crop(gray: Gray, box: Box, margin: float, roll: float = 0.0, levels: Gray | None = None) -> Gray:
    """Crop the square around a face that the network classifies, and resize it.

    ``gray`` is ``(height, width)`` uint8. ``margin`` is added on each side, as a fraction of the box's longer side (the
    bundle's card states it). A head that leans clockwise by ``roll`` degrees is turned upright, unless the network
    was trained to tolerate that. Where the square leaves the picture, the border pixels are repeated. ``levels``,
    ``(256,)`` uint8, has the new grey level of each, where the light asks for it (`edge.vision.light`).

    Returns a ``(INPUT_SIZE, INPUT_SIZE)`` uint8 picture. Raises ValueError for a box without an area, or outside the
    picture.
    """
    if box.w <= 0 or box.h <= 0:
        raise ValueError(f"box {box} has no area")
    side = max(1, round(max(box.w, box.h) * (1 + 2 * margin)))
    left = round(box.x + box.w / 2 - side / 2)
    top = round(box.y + box.h / 2 - side / 2)
    height, width = gray.shape
    if abs(roll) > _TOLERATED_ROLL and 0 <= left + side / 2 < width and 0 <= top + side / 2 < height:
        square = _turned(gray, (left, top), side, roll)
    else:
        square = _upright(gray, (left, top), side)
    if square.size == 0:
        raise ValueError(f"box {box} lies outside the {width}x{height} picture")
    # Before the picture shrinks: the mean of dark pixels, rounded, has lost what stretching would show.
    return resize(square if levels is None else np.asarray(cv2.LUT(square, levels), np.uint8))


def _upright(gray: Gray, corner: tuple[int, int], side: int) -> Gray:
    """The square with this upper left corner; empty if all of it lies outside the picture."""
    (left, top), (height, width) = corner, gray.shape
    inside = gray[max(0, top) : max(0, top + side), max(0, left) : max(0, left + side)]
    if inside.size == 0 or inside.shape == (side, side):
        return inside
    borders = (max(0, -top), max(0, top + side - height), max(0, -left), max(0, left + side - width))
    return np.asarray(cv2.copyMakeBorder(inside, *borders, cv2.BORDER_REPLICATE), np.uint8)


def _turned(gray: Gray, corner: tuple[int, int], side: int, roll: float) -> Gray:
    """The square with this upper left corner, turned counter-clockwise around its middle, at the picture's scale."""
    middle = (side - 1) / 2
    matrix = cv2.getRotationMatrix2D((corner[0] + middle, corner[1] + middle), roll, 1.0)
    matrix[:, 2] -= corner
    return np.asarray(
        cv2.warpAffine(gray, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.uint8
    )


def resize(square: Gray) -> Gray:
    """Resize a square ``(n, n)`` uint8 picture to the input size: area averaging to shrink, bilinear to enlarge."""
    if square.shape == (INPUT_SIZE, INPUT_SIZE):
        return square
    shrinking = square.shape[0] > INPUT_SIZE
    resized = cv2.resize(
        square, (INPUT_SIZE, INPUT_SIZE), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    )
    return np.asarray(resized, np.uint8)


def normalize(pixels: Gray) -> NDArray[np.float32]:
    """Map pixels 0..255 to the network's real-valued input, [-1, 1): ``(pixel - 128) / 128``.

    With an int8 input of scale 1/128 and zero point 0 the encoding is then exactly ``pixel - 128``, and the zero
    padding of the convolutions is mid-grey.
    """
    return (pixels.astype(np.float32) - 128.0) / 128.0


def quantize(real: NDArray[np.float32], scale: float, zero_point: int) -> NDArray[np.int8]:
    """Quantize to int8 with saturation: scale, round, clip, cast, in that order (TFLite's quantization spec)."""
    steps = np.rint(real / scale) + zero_point
    return np.asarray(np.clip(steps, -128, 127), np.int8)


def encode(face: Gray, scale: float, zero_point: int) -> NDArray[np.int8]:
    """Turn a cropped face into the network's input tensor, ``(1, 48, 48, 1)`` int8.

    ``scale`` and ``zero_point`` are those the interpreter states for its input.
    """
    return quantize(normalize(face), scale, zero_point)[np.newaxis, :, :, np.newaxis]


def dequantize(output: NDArray[np.int8], scale: float, zero_point: int) -> NDArray[np.float64]:
    """Turn the network's int8 logits, ``(..., n)`` for n classes, into real ones."""
    return (output.astype(np.float64) - zero_point) * scale


class Temperature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Temperature scaling that depends on the face: logits divided by T have a calibrated softmax.

    ``T = exp(level + slope * g + curve * g**2)``, clipped to 1/3..3, where g is the lead of the largest logit over the
    second. With slope and curve 0 it is plain temperature scaling (Guo et al. 2017, arXiv 1706.04599). Adapting it to
    each input is the idea of Balanya et al. 2022 (arXiv 2207.06211), who use the entropy for g. The likeliest label
    does not change. T is bounded so that the logits can be averaged over frames.
    """

    level: float
    slope: float
    curve: float

    def calibrated(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Logits ``(..., n)`` of n classes, each row divided by its temperature."""
        second, first = np.moveaxis(np.sort(logits, axis=-1)[..., -2:], -1, 0)
        lead = first - second
        exponent = np.clip(
            self.level + self.slope * lead + self.curve * lead**2, -_MAX_LOG_TEMPERATURE, _MAX_LOG_TEMPERATURE
        )
        return np.asarray(logits / np.exp(exponent)[..., np.newaxis], np.float64)


def expression(probabilities: NDArray[np.float64], labels: Labels) -> Expression:
    """The likeliest label, and the probabilities of all, rounded to the four digits that are published.

    ``probabilities`` is ``(n,)``, in the order of the ``n`` labels.
    """
    best = labels[int(probabilities.argmax())]
    scores = {label: round(float(p), 4) for label, p in zip(labels, probabilities, strict=True)}
    return Expression(best, scores[best], scores)


def softmax(logits: ArrayLike) -> NDArray[np.float64]:
    """Softmax along the last axis, stable for large logits."""
    shifted = np.asarray(logits, np.float64)
    exponents = np.exp(shifted - shifted.max(axis=-1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=-1, keepdims=True), np.float64)
