"""Ground truth of real videos: faces that detectors and people have marked in a video that was not made for it.

A video ``NAME.mp4`` has two JSON files in one folder. ``NAME.json`` maps the numbers of the judged frames to their
faces; a frame that is absent was not judged. ``NAME.meta.json`` has the size of the pictures. Other keys are ignored.
docs/performance-method.md describes both.
"""

import math
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple

import msgspec
from msgspec import Meta

from edge.errors import DataError
from edge.untrusted_file import MALFORMED_JSON, read_regular

BANDS: Final = (0.12, 0.08, 0.05, 0.03)
"""Least sizes of the bands that faces are counted in, as shares of the picture's shorter side. Smaller faces are not
counted."""

_LARGEST_FILE: Final = 32 * 2**20  # bytes; enough for two hours

_Length = Annotated[float, Meta(gt=0)]


class AnnotatedFace(msgspec.Struct, frozen=True):
    """One face in one frame.

    ``box`` is left, top, width and height in pixels, from brow to chin. A face that is not ``agreed`` is neither surely
    a face nor surely none: it counts neither as missed nor as false. ``pose`` is how far the head is turned.
    """

    box: tuple[float, float, _Length, _Length]
    agreed: bool
    pose: Literal["frontal", "half", "profile"]

    @property
    def side(self) -> float:
        """The size in pixels: the square root of the box's area."""
        return math.sqrt(self.box[2] * self.box[3])


class _Meta(msgspec.Struct, frozen=True):
    size: tuple[int, int]


class Annotations(NamedTuple):
    """The judged frames of a video, whose pictures have ``size`` (width, height) pixels."""

    file: Path
    size: tuple[int, int]
    frames: dict[int, tuple[AnnotatedFace, ...]]


def read_annotations(file: Path) -> Annotations:
    """Read ``NAME.json`` and ``NAME.meta.json`` beside it. Raises DataError naming file and reason."""
    frames: dict[int, tuple[AnnotatedFace, ...]] = _read(file, dict[int, tuple[AnnotatedFace, ...]])
    size: tuple[int, int] = _read(file.with_suffix(".meta.json"), _Meta).size
    return Annotations(file, size, frames)


def _read(file: Path, kind: Any) -> Any:
    try:
        return msgspec.json.decode(read_regular(file, _LARGEST_FILE), type=kind)
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from error
    except MALFORMED_JSON as error:
        raise DataError(f"{file}: not the ground truth of a video: {error}") from error
