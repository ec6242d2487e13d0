"""Brightens what is too dark to be searched: a dark picture, or a visitor in front of a bright background.

OpenCV's cascades reject every window whose grey values have a standard deviation below 10, and a network sees little
in a few grey levels. So the levels of the dark part are stretched. Brighter ones are compressed and not cut off,
because a lit face may be among them. A picture in normal light is left as it is.
"""

from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.records import Gray
from edge.settings import DetectSettings
from edge.vision.face_size import LEAST_PIXELS, smallest_face
from edge.vision.pyramid import Pyramid

_WIDTH: Final = 80  # approximate width of the reduced picture whose levels are counted; noise averages out there
_DARK_LEVEL: Final = 80  # a picture is dark when nearly all of it is below; in real videos in normal light none was
_NEARLY_ALL: Final = 0.98  # lamps and reflections are the rest
_CLIPPED_LEVEL: Final = 250  # from here on the sensor is overexposed
_BACKLIT_SHARE: Final = 0.2  # of the picture that is overexposed when the light comes from behind; 0.02 in normal light
_SHADED_LEVEL, _SHADED_SHARE = 64, 0.05  # below this level is what stands before the light, and how much it is at least
_BLACK_SHARE, _BRIGHT_SHARE = 0.01, 0.95  # of the dark part: what counts as black there, and what is stretched to:
_BRIGHT_LEVEL: Final = 160  # measured: more recall and accuracy than with 120 or 200
_LEAST_SPAN: Final = 4  # grey levels. With fewer, noise is all that stretching shows: every third face is lost at 4


class LevelledFrame(NamedTuple):
    """A frame as it is searched.

    ``levels``, ``(256,)`` uint8, has the new grey level of each, for what is cropped from the frame; None if they stay.
    ``too_dark`` says that no face can be found.
    """

    pyramid: Pyramid
    levels: Gray | None = None
    too_dark: bool = False


class _Span(NamedTuple):
    """The grey levels of the dark part of a picture; ``whole`` says that the picture has no other part."""

    black: int
    bright: int
    whole: bool


def level_frame(pyramid: Pyramid, settings: DetectSettings) -> LevelledFrame:
    """Stretch the levels of a frame where its light asks for it. Other frames are not changed.

    What is stretched is not the frame but the halving in which the smallest faces of the ``settings`` are searched.
    """
    span = _dark_span(pyramid)
    if span is None:
        return LevelledFrame(pyramid)
    if span.bright - span.black < _LEAST_SPAN:
        return LevelledFrame(pyramid, too_dark=span.whole)
    # Black stays where it is: stretched, too, it makes more of the noise, and finds no more faces.
    points = np.interp(np.arange(256), (0, span.bright, 255), (0, _BRIGHT_LEVEL, 255))
    levels = np.rint(points).astype(np.uint8)
    factor = smallest_face(settings, pyramid.size) / LEAST_PIXELS["haar"]  # for any detector: YuNet needs no more
    return LevelledFrame(pyramid.mapped(levels, max(1.0, factor)), levels)


def _dark_span(pyramid: Pyramid) -> _Span | None:
    """Between which levels the dark part of a dark or backlit picture is; None in normal light."""
    small, _ = pyramid.halved(max(1.0, pyramid.size[0] / _WIDTH))
    shares = np.cumsum(cv2.calcHist([small], [0], None, [256], [0, 256])[:, 0]) / small.size
    if shares[_DARK_LEVEL - 1] >= _NEARLY_ALL:
        return _Span(_level(shares, _BLACK_SHARE), _level(shares, _BRIGHT_SHARE), whole=True)
    shaded = shares[_SHADED_LEVEL - 1]
    if 1 - shares[_CLIPPED_LEVEL - 1] >= _BACKLIT_SHARE and shaded >= _SHADED_SHARE:
        return _Span(_level(shares, _BLACK_SHARE * shaded), _level(shares, _BRIGHT_SHARE * shaded), whole=False)
    return None


def _level(shares: NDArray[np.float64], share: float) -> int:
    """The level up to which this share of the pixels is."""
    return int(np.searchsorted(shares, share))
