"""What every face detector is and gives. The pipeline knows no more of a detector than this."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from edge.records import Box, Gray, Pose, Square
from edge.vision.pyramid import Pyramid


@dataclass(frozen=True, slots=True)
class Detection:
    """A detected face. ``votes`` orders detections of one face; ``clear`` says that chance is hardly why."""

    square: Square
    votes: float
    clear: bool = False


@dataclass(frozen=True, slots=True)
class Absence:
    """What a detector says of a known face that it does not only miss: what is in its place now is no face."""


class Detector(Protocol):
    """Detects faces in the frames of one source, and decides itself where in a frame it searches.

    In each frame, the caller first lets known faces be checked, and then calls `begin_frame` and `search`. A detector
    keeps account of what all of them cost, by estimates and never by measured time: the same frames give the same
    faces.
    """

    least_similarity: float
    """How much a known face that `check` does not find must look like itself to be shown, as a correlation -1..1.

    A detector that hardly ever misses a known face asks for more than one that often does.
    """

    def check(self, pyramid: Pyramid, square: Square, *, tentative: bool, misses: int) -> Detection | Absence | None:
        """Detect a known face again, near ``square``. A ``tentative`` face is held to what a new one is held to.

        ``misses`` counts the checks that have not found it since it was last detected. None says that it was not found
        and may yet be there: it turns away, or is half covered.
        """
        ...

    def pose(self, pyramid: Pyramid, square: Square) -> Pose | None:
        """How the head of a known face is held; None when that cannot be told.

        ``square.roll`` is what it was before. It costs as much as several checks.
        """
        ...

    def begin_frame(self, pyramid: Pyramid, now: float, known: Sequence[Square]) -> None:
        """Plan the search of the frame of time ``now`` in seconds. The ``known`` faces need not be found."""
        ...

    def search(self, pyramid: Pyramid) -> list[Detection]:
        """Search the frame for new faces, as far as the budget allows."""
        ...

    def detect(self, gray: Gray) -> list[Box]:
        """Detect the faces of one picture, ``(h, w)`` uint8, at any cost: boxes in its pixels, largest first."""
        ...

    def for_new_source(self) -> "Detector":
        """A detector for a source whose time starts again; it shares what was loaded and knows of no frame."""
        ...
