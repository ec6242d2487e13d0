"""What a clip really shows, frame by frame: the sidecar of the clips that ``fer-export clips`` makes.

A JSON Lines file, ``NAME.truth.jsonl`` beside the clip: the first line is a Header, and then one FrameTruth a frame
follows, in order. docs/performance.md describes it.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar

import msgspec
from msgspec import Meta

from edge.errors import DataError
from edge.model.preprocessing import LABELS
from edge.records import Box

SUFFIX: Final = ".truth.jsonl"

VISIBLE: Final = 0.75
"""A face of which less is to be seen (cut off by the picture's edge, or covered) is neither missed nor false."""

_Line = TypeVar("_Line")


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first line: which clip this is about. ``fps`` are frames a second, sizes are in pixels."""

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
    it may reach over the picture's edge. ``visible`` is the share of it that is in the picture and not covered.
    ``expression`` is one of edge.model.preprocessing.LABELS, or None when nobody has said.
    """

    person: int
    box: tuple[int, int, int, int]
    visible: Annotated[float, Meta(ge=0, le=1)]
    expression: str | None = None

    @property
    def place(self) -> Box:
        """The box as the pipeline's records have it."""
        return Box(*self.box)

    @property
    def counts(self) -> bool:
        """Whether somebody should see it."""
        return self.visible >= VISIBLE


class FrameTruth(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All faces of one frame; ``frame`` counts from 0."""

    frame: int
    faces: tuple[FaceTruth, ...]


class GroundTruth(msgspec.Struct, frozen=True):
    """A whole sidecar."""

    file: Path
    header: Header
    frames: tuple[FrameTruth, ...]


def truth_beside(clip: Path) -> Path:
    """Where the sidecar of a clip is looked for: ``visit.avi`` has ``visit.truth.jsonl``."""
    return clip.with_name(clip.stem + SUFFIX)


def read_truth(file: Path) -> GroundTruth:
    """Read a sidecar. Raises DataError naming file, line and reason."""
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from error
    if not lines:
        raise DataError(f"{file}: is empty; its first line is to say which clip it is about")
    header = _decode(file, 1, lines[0], Header)
    frames = tuple(_decode(file, number, line, FrameTruth) for number, line in enumerate(lines[1:], 2))
    if len(frames) != header.frames:
        raise DataError(f"{file}: has {len(frames)} frames, and its first line says {header.frames}. Is it complete?")
    for index, frame in enumerate(frames):
        if frame.frame != index:
            raise DataError(f"{file}, line {index + 2}: is about frame {frame.frame}, expected {index}")
        for face in frame.faces:
            if face.expression is not None and face.expression not in LABELS:
                raise DataError(f"{file}, line {index + 2}: expression {face.expression!r} is not {', '.join(LABELS)}")
    return GroundTruth(file, header, frames)


def write_truth(file: Path, header: Header, frames: Iterable[FrameTruth]) -> None:
    """Write a sidecar; the same truth gives the same bytes."""
    lines = [msgspec.json.encode(header), *(msgspec.json.encode(frame) for frame in frames)]
    file.write_bytes(b"\n".join(lines) + b"\n")


def _decode(file: Path, number: int, line: bytes, kind: type[_Line]) -> _Line:
    try:
        return msgspec.json.decode(line, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{file}, line {number}: not what a clip's truth is made of: {error}") from error
