"""Detection recall by size and pose, against the annotations of a real video."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from edge.bench.annotations import BANDS, AnnotatedFace
from edge.records import Box

POSES: Final = ("frontal", "turned")
_CENTRE: Final = 0.45  # of the face's size: how far the centres of face and detection may be apart, across and down
_SIDES: Final = (0.55, 1.9)  # of the face's size: the side of a detection. Detectors frame faces very differently.


class SizeRecall:
    """Counts a detector's boxes in annotated frames."""

    def __init__(self) -> None:
        self.frames = self.boxes = self.false = 0
        self._faces: Counter[tuple[str, float]] = Counter()
        self._found: Counter[tuple[str, float]] = Counter()

    def add(self, faces: Sequence[AnnotatedFace], boxes: Sequence[Box], shorter: int) -> None:
        """Count one frame's boxes. A box at any annotated face, agreed or not, is not false.

        ``shorter`` is the picture's shorter side in pixels.
        """
        self.frames += 1
        self.boxes += len(boxes)
        self.false += sum(not any(_is_near(face, box) for face in faces) for box in boxes)
        for face in faces:
            band = next((least for least in BANDS if face.side >= least * shorter), None)
            if face.agreed and band is not None:
                kind = (POSES[face.pose != "frontal"], band)
                self._faces[kind] += 1
                self._found[kind] += any(_is_near(face, box) for box in boxes)

    def __iadd__(self, other: "SizeRecall") -> "SizeRecall":
        self.frames += other.frames
        self.boxes += other.boxes
        self.false += other.false
        self._faces.update(other._faces)
        self._found.update(other._found)
        return self

    def as_json(self) -> dict[str, Any]:
        """The counts for a machine; ``size`` is the least size of a band."""
        return {
            "frames": self.frames,
            "boxes": self.boxes,
            "false": self.false,
            "bands": [
                {"pose": pose, "size": size, "faces": self._faces[pose, size], "found": self._found[pose, size]}
                for pose in POSES
                for size in BANDS
            ],
        }


def _is_near(face: AnnotatedFace, box: Box) -> bool:
    left, top, width, height = face.box
    across = abs(left + width / 2 - box.x - box.w / 2)
    down = abs(top + height / 2 - box.y - box.h / 2)
    side = math.sqrt(box.w * box.h) / face.side
    return max(across, down) < _CENTRE * face.side and _SIDES[0] < side < _SIDES[1]
