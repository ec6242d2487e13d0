"""How a network wants its pixels: the usual scalings, and the pictures that they make of faces."""

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.records import Gray
from export.importing.face_input import FaceInput


@dataclass(frozen=True)
class PixelScaling:
    """``(pixel - mean) / deviation`` for each channel; one mean and deviation stand for all channels."""

    name: str
    means: tuple[float, ...]
    deviations: tuple[float, ...]

    def factors(self, channels: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The mean and the deviation of each channel, ``(channels,)``."""
        return np.resize(self.means, channels).astype(float), np.resize(self.deviations, channels).astype(float)


SCALINGS: Final = {
    scaling.name: scaling
    for scaling in (
        PixelScaling("zero-one", (0,), (255,)),
        PixelScaling("minus-one-one", (127.5,), (127.5,)),
        PixelScaling("raw", (0,), (1,)),
        PixelScaling("caffe", (103.939, 116.779, 123.68), (1,)),
        PixelScaling("torch", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    )
}
"""``caffe`` and ``torch`` are modes of Keras's ``preprocess_input``, for networks that started from ImageNet."""

_OF_COLOUR: Final = ("caffe", "torch")


def candidates(face: FaceInput) -> tuple[PixelScaling, ...]:
    """The scalings that are usual for such an input."""
    return tuple(scaling for scaling in SCALINGS.values() if face.channels == 3 or scaling.name not in _OF_COLOUR)


def parse_scaling(text: str) -> PixelScaling:
    """A scaling by its name, or ``MEAN,DEVIATION`` in pixels from 0 to 255. Raises ValueError."""
    if text in SCALINGS:
        return SCALINGS[text]
    try:
        mean, deviation = map(float, text.split(","))
    except ValueError:
        mean, deviation = 0.0, 0.0
    if not (-1e3 < mean < 1e3 and 1e-3 < deviation < 1e4):
        raise ValueError(f"neither auto, {', '.join(SCALINGS)}, nor MEAN,DEVIATION in pixels, such as 129.4,65.1")
    return PixelScaling(text, (mean,), (deviation,))


def prepare(pixels: Gray, face: FaceInput, scaling: PixelScaling) -> NDArray[np.float32]:
    """A face, ``(48, 48)`` uint8, as its user gives it to the network: ``(1, side, side, channels)`` float32.

    It is resized as ``cv2.resize`` does by default.
    """
    side = (face.side, face.side)
    resized = pixels if pixels.shape == side else cv2.resize(pixels, side, interpolation=cv2.INTER_LINEAR)
    means, deviations = scaling.factors(face.channels)
    colours = np.repeat(np.asarray(resized, np.float64)[np.newaxis, ..., np.newaxis], face.channels, axis=-1)
    return np.asarray((colours - means) / deviations, np.float32)
