"""What chance alone explains of a measured accuracy."""

from typing import Final

import numpy as np

from edge.errors import DataError
from edge.evaluation.fer2013 import LabelledFaces

SIGNIFICANCE_LEVEL: Final = 0.01


def require_enough(faces: LabelledFaces) -> None:
    """Raise DataError when chance explains even a network that is right on all of these faces."""
    label, share = commonest(faces)
    if share ** len(faces) >= SIGNIFICANCE_LEVEL:
        raise DataError(
            f"{faces.split} has too few faces to tell a good network from one that always says {label}: "
            f"{len(faces):,}, of which {share:.0%} are {label}. Give more faces, and of several labels."
        )


def commonest(faces: LabelledFaces) -> tuple[str, float]:
    """The label that most faces have, and their share."""
    counts = np.bincount(faces.labels)
    return faces.names[int(counts.argmax())], float(counts.max() / len(faces))
