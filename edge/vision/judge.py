"""A small network that says whether a patch is a face, and where in the patch the face is.

A cascade proposes; this judge decides. It takes 24x24 pixels around a square and gives a score, the offset to the
middle of the face, its size and its roll, as the later stages of MTCNN do (Zhang et al. 2016, arXiv 1604.02878). So a
rough square becomes an exact one in two looks, and a known face is found again in one. ``fer-train judge`` trains it.

It has three convolutions and 200,000 multiply-accumulates. numpy computes them in a twentieth of a millisecond, which
is less than what a runtime takes to be called and keeps this room free of one.
"""

import math
from dataclasses import dataclass
from importlib import resources
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.records import Gray, Square
from edge.vision.pyramid import Pyramid

INPUT_SIDE: Final = 24
"""Side of the network's input in pixels."""

FACE_SHARE: Final = 0.9
"""The network sees this share of a face's square, whose borders hold more hair and wall than face."""

MAX_ROLL: Final = 45.0
"""Degrees by which a face may be rolled in the network's input, to either side."""

FACE_SCORE: Final = 2.0
"""The score that one in 1000 drawn patches without a face exceeds; below it a proposal is no face."""

STRIDE: Final = 2
"""Of each convolution, in both directions."""

_FILE: Final = "face-judge.npz"
_MAX_MOVE: Final = 0.3  # of the square's side, and of the logarithm of its size: more is extrapolated
_CONTRAST_FLOOR: Final = np.float32(1.0)  # grey levels, so that a flat patch is not divided by nothing

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Opinion:
    """What the judge says of a square: a score (the higher, the likelier; see FACE_SCORE), and where the face is."""

    score: float
    face: Square


class FaceJudge:
    """The network, with the weights of this package or of ``weights``: arrays by name, as ``fer-train judge`` has."""

    def __init__(self, weights: "dict[str, Floats] | None" = None) -> None:
        arrays = weights or _own_weights()
        self._convolutions: list[tuple[NDArray[np.intp], Floats, Floats]] = []
        side = INPUT_SIDE
        while (name := f"convolution{len(self._convolutions)}") in arrays:
            kernel = arrays[name].astype(np.float32)
            matrix = kernel.reshape(-1, kernel.shape[-1])
            bias = arrays[f"{name}_bias"].astype(np.float32)
            self._convolutions.append((_window_pixels(side, kernel.shape[0]), matrix, bias))
            side = -(-side // STRIDE)
        self._hidden, self._output = (
            (arrays[name].astype(np.float32), arrays[f"{name}_bias"].astype(np.float32))
            for name in ("hidden", "output")
        )

    def look(self, pyramid: Pyramid, square: Square) -> Opinion:
        """Judge one square, which may be turned."""
        side = square.side * FACE_SHARE
        patch = pyramid.cut(Square(square.x, square.y, side, square.roll), INPUT_SIDE)
        score, right, down, growth, roll = self.outputs(patch[np.newaxis])[0].tolist()
        right, down, growth = (min(max(value, -_MAX_MOVE), _MAX_MOVE) for value in (right, down, growth))
        angle = math.radians(square.roll)
        return Opinion(
            score,
            Square(
                square.x + side * (math.cos(angle) * right - math.sin(angle) * down),
                square.y + side * (math.sin(angle) * right + math.cos(angle) * down),
                square.side * math.exp(growth),
                min(max(square.roll + roll * MAX_ROLL, -2 * MAX_ROLL), 2 * MAX_ROLL),
            ),
        )

    def outputs(self, patches: Gray) -> Floats:
        """The network's raw outputs for ``(n, 24, 24)`` uint8 patches: ``(n, 5)``.

        They are the score, the offset right and down (in sides of the patch), the logarithm of how much larger the
        face is than FACE_SHARE says, and its roll (in units of MAX_ROLL, clockwise).
        """
        values = normalized(patches).reshape(len(patches), -1, 1)
        for pixels, matrix, bias in self._convolutions:
            border = np.zeros((len(values), 1, values.shape[2]), np.float32)
            windows = np.concatenate((values, border), axis=1).take(pixels, axis=1)
            products = windows.reshape(-1, len(matrix)) @ matrix + bias
            values = np.maximum(products, 0).reshape(len(values), len(pixels), -1)
        (hidden, hidden_bias), (output, output_bias) = self._hidden, self._output
        result = np.maximum(values.reshape(len(values), -1) @ hidden + hidden_bias, 0) @ output + output_bias
        return np.asarray(result, np.float32)


def normalized(patches: Gray) -> Floats:
    """Patches ``(n, 24, 24)`` as the network takes them: each with mean 0 and a standard deviation of about 1."""
    values = patches.astype(np.float32)
    values -= values.mean(axis=(1, 2), keepdims=True)
    values /= values.std(axis=(1, 2), keepdims=True) + _CONTRAST_FLOOR
    return values


def _window_pixels(side: int, kernel: int) -> NDArray[np.intp]:
    """For each output pixel of a convolution, the indices of the input pixels that it sees: ``(outputs, kernel²)``.

    The input is ``side`` pixels wide and padded as TensorFlow's "SAME" does; index ``side²`` stands for the padding.
    """
    outputs = -(-side // STRIDE)
    padding = max(0, (outputs - 1) * STRIDE + kernel - side) // 2
    line = np.arange(outputs)[:, np.newaxis] * STRIDE + np.arange(kernel) - padding
    outside = (line < 0) | (line >= side)
    pixels = line[:, np.newaxis, :, np.newaxis] * side + line[np.newaxis, :, np.newaxis, :]
    pixels[outside[:, np.newaxis, :, np.newaxis] | outside[np.newaxis, :, np.newaxis, :]] = side * side
    return pixels.reshape(outputs**2, kernel**2)


def _own_weights() -> dict[str, Floats]:
    with (resources.files("edge.vision") / _FILE).open("rb") as stream, np.load(stream) as arrays:
        return dict(arrays)
