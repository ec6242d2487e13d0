"""How small a face may be for the detectors. The doctor uses this module, so it needs neither numpy nor OpenCV."""

import math
from typing import Final, NamedTuple

from edge.settings import DetectSettings

LEAST_PIXELS: Final = {"haar": 24, "yunet": 10}
"""Side in pixels of the smallest face that each detector can find: the cascade's window, and what YuNet learnt."""

LEAST_FRAME: Final = {"haar": 25, "yunet": 28}
"""Pixels in each direction of the smallest frame that each detector searches."""

_LARGER: Final = "choose larger pictures (camera.size, or a network camera's own settings)"


class Shortage(NamedTuple):
    """Why the smallest faces that the settings ask for cannot be found, and what to do about it."""

    problem: str
    remedy: str


def smallest_face(settings: DetectSettings, size: tuple[int, int]) -> float:
    """Side in pixels of the smallest face that is searched for in a frame of ``size``, width and height."""
    return max(settings.min_face * min(size), LEAST_PIXELS[settings.detector])


def pixel_shortage(settings: DetectSettings, size: tuple[int, int]) -> Shortage | None:
    """The shortage of pixels in frames of ``size``, if faces as small as ``[detect] min_face`` have too few there."""
    detector, shorter = settings.detector, min(size)
    least, least_frame = LEAST_PIXELS[detector], LEAST_FRAME[detector]
    if shorter < least_frame:
        needs = f"detector {detector} needs {least_frame} pixels in each direction"
        return Shortage(f"{needs}: no face can be found in {size[0]}x{size[1]}", _LARGER)
    if settings.min_face * shorter >= least - 1e-6:
        return None
    share = math.ceil(1000 * least / shorter) / 1000
    return Shortage(
        f"detect.min_face is {settings.min_face:g}, but detector {detector} needs faces of {least} pixels: "
        f"{share:g} of the shorter side of {size[0]}x{size[1]}",
        f"{_LARGER}, or set detect.min_face = {share:g}",
    )
