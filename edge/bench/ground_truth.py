"""The ground truth of a clip, frame by frame: the sidecar file that ``fer-export clips`` writes.

It is a JSON Lines file, ``NAME.truth.jsonl`` beside the clip: a Header in the first line, then one FrameTruth for each
frame, in order. docs/performance-method.md describes it.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar

import msgspec
from msgspec import Meta

from edge.errors import DataError
from edge.labels import LabelName
from edge.records import Box
from edge.untrusted_file import MALFORMED_JSON, read_regular

SUFFIX: Final = ".truth.jsonl"

_LARGEST_FILE: Final = 32 * 2**20  # bytes; enough for two hours

VISIBLE: Final = 0.75
"""A face that is less visible (cut off by the picture's edge, or covered) counts neither as missed nor as false."""

_Line = TypeVar("_Line")


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first line: the clip that this is for. ``fps`` is in frames a second, sizes are in pixels."""

    format: Literal["fer-edge truth 1"]
    clip: str
    frames: int
    width: int
    height: int
    fps: float
    seed: int


class FaceTruth(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One face in one frame.

    ``box`` is the square that OpenCV's frontal-face cascade gives for such a face: left, top, width, height in pixels;
    it may extend over the picture's edge. ``visible`` is the share of it that is in the picture and not covered.
    ``expression`` is None when it is unknown.
    """

    person: int
    box: tuple[int, int, int, int]
    visible: Annotated[float, Meta(ge=0, le=1)]
    expression: LabelName | None = None

    @property
    def place(self) -> Box:
        """The box as a record of the pipeline."""
        return Box(*self.box)

    @property
    def counts(self) -> bool:
        """Whether a detector is expected to detect it."""
        return self.visible >= VISIBLE


class FrameTruth(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All faces of one frame; ``frame`` is its number, from 0."""

    frame: int
    faces: tuple[FaceTruth, ...]


class GroundTruth(msgspec.Struct, frozen=True):
    """A whole sidecar file."""

    file: Path
    header: Header
    frames: tuple[FrameTruth, ...]


def truth_beside(clip: Path) -> Path:
    """The path of a clip's sidecar: that of ``visit.avi`` is ``visit.truth.jsonl``."""
    return clip.with_name(clip.stem + SUFFIX)


def read_truth(file: Path) -> GroundTruth:
    """Read a sidecar. Raises DataError naming file, line and reason."""
    try:
        lines = read_regular(file, _LARGEST_FILE).splitlines()
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from error
    if not lines:
        raise DataError(f"{file}: is empty, but its first line must say which clip it is for")
    header = _decode(file, 1, lines[0], Header)
    frames = tuple(_decode(file, number, line, FrameTruth) for number, line in enumerate(lines[1:], 2))
    if len(frames) != header.frames:
        raise DataError(f"{file}: has {len(frames)} frames, but its first line says {header.frames}. Is it complete?")
    for index, frame in enumerate(frames):
        if frame.frame != index:
            raise DataError(f"{file}, line {index + 2}: describes frame {frame.frame}, expected {index}")
    return GroundTruth(file, header, frames)


def write_truth(file: Path, header: Header, frames: Iterable[FrameTruth]) -> None:
    """Write a sidecar. The same ground truth gives the same bytes."""
    lines = [msgspec.json.encode(header), *(msgspec.json.encode(frame) for frame in frames)]
    file.write_bytes(b"\n".join(lines) + b"\n")


def _decode(file: Path, number: int, line: bytes, kind: type[_Line]) -> _Line:
    try:
        return msgspec.json.decode(line, type=kind)
    except MALFORMED_JSON as error:
        raise DataError(f"{file}, line {number}: not a line of a clip's ground truth: {error}") from error
