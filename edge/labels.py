"""The names of expressions: what a model's card may call its classes, and FER2013's names.

Imports neither numpy nor OpenCV, because doctor must work without them.
"""

import re
from typing import Annotated, Final, TypeAlias

from msgspec import Meta

Labels: TypeAlias = tuple[str, ...]
"""The names of a network's outputs, in their order, as its card states them."""

FER2013_LABELS: Final[Labels] = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""The seven expressions in FER2013's order: the classes of training, and of the bundled models."""

# It does not begin with a digit, since numbers in data are FER2013's classes.
_NAME: Final = "[a-z][a-z0-9_-]{0,31}"
LABEL: Final = rf"^{_NAME}\Z"
"""The pattern of a label."""

LabelName: TypeAlias = Annotated[str, Meta(pattern=LABEL, max_length=32)]

ShownLabel: TypeAlias = Annotated[
    str,
    Meta(
        pattern=f"^{_NAME}$",  # as JavaScript and JSON Schema write it
        max_length=32,
        description="A label of the model's card.",
        examples=[*FER2013_LABELS],
    ),
]
"""A label as messages have it; the examples are those of the bundled models."""

RESERVED: Final = ("nobody", "uncertain", "none", "unknown", "unavailable")
"""Words that stand for no expression: the first two in Home Assistant's sensor, the others in Home Assistant itself."""

FEWEST: Final = 2
MOST: Final = 16


def label_problem(labels: Labels) -> str:
    """Why these names cannot be a model's labels, as a part of a sentence; empty when they can."""
    if not FEWEST <= len(labels) <= MOST:
        return f"there are {len(labels)} labels, and {FEWEST} to {MOST} are possible"
    for number, label in enumerate(labels):
        if not re.fullmatch(LABEL, label):
            return f"{label[:40]!r} is no label: use up to 32 of a-z, 0-9, - and _, and begin with a letter"
        if label in RESERVED:
            return f"{label!r} is no label: this word is reserved for faces without an expression"
        if label in labels[:number]:
            return f"the label {label!r} is there twice"
    return ""
