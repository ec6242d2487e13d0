"""The frozen records that flow through the device, from frame to event. No logic; they import only names of labels."""

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from edge.labels import ShownLabel

Gray: TypeAlias = NDArray[np.uint8]
"""A grey picture, ``(height, width)`` uint8, full-range luma 0..255."""

Logits: TypeAlias = tuple[float, ...]
"""Calibrated logits of a face, in the order of the card's labels; their softmax are probabilities."""

Flaw: TypeAlias = Literal["small", "turned", "blurred", "low contrast", "still"]
"""Why a face is not worth classifying."""

Reading: TypeAlias = Logits | Flaw
"""The result for one face in one frame: its logits, or why it was not classified."""

Reason: TypeAlias = Flaw | Literal["low margin"]
"""Why the expression of a face is uncertain; ``low margin``: no expression is likely enough."""

EventKind: TypeAlias = Literal["appeared", "changed", "uncertain", "preset", "left"]


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of a source; ``time`` is in seconds since the start of the source, and never decreases."""

    gray: Gray
    time: float


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in whole pixels: left edge, top edge, width, height."""

    x: int
    y: int
    w: int
    h: int

    def overlap(self, other: "Box") -> float:
        """Intersection over union, 0..1."""
        width = min(self.x + self.w, other.x + other.w) - max(self.x, other.x)
        height = min(self.y + self.h, other.y + other.h) - max(self.y, other.y)
        if width <= 0 or height <= 0:
            return 0.0
        return width * height / (self.w * self.h + other.w * other.h - width * height)


@dataclass(frozen=True, slots=True)
class Square:
    """A square with subpixel precision: centre and side in pixels of the frame. Pixel (0, 0) covers 0..1.

    ``roll`` says by how many degrees the face in it is turned clockwise. `box`, `overlap` and `within` ignore it.
    """

    x: float
    y: float
    side: float
    roll: float = 0.0

    @property
    def box(self) -> Box:
        """The square in whole pixels, rounded."""
        side = round(self.side)
        return Box(round(self.x - side / 2), round(self.y - side / 2), side, side)

    def overlap(self, other: "Square") -> float:
        """Intersection over union, 0..1."""
        reach = (self.side + other.side) / 2
        width = min(reach - abs(self.x - other.x), self.side, other.side)
        height = min(reach - abs(self.y - other.y), self.side, other.side)
        if width <= 0 or height <= 0:
            return 0.0
        return width * height / (self.side**2 + other.side**2 - width * height)

    def within(self, other: "Square") -> bool:
        """Whether ``other`` covers the centre of this square, and this square is not much larger."""
        return max(abs(self.x - other.x), abs(self.y - other.y)) < other.side / 2 and self.side < 1.5 * other.side


@dataclass(frozen=True, slots=True)
class Pose:
    """How a head is held, in degrees: leaning clockwise in the picture by ``roll``, turned to a side by ``yaw``."""

    roll: float = 0.0
    yaw: float = 0.0


@dataclass(frozen=True, slots=True)
class Track:
    """One person's face while it stays in view, at ``box``; its last detection was at the time ``seen``, in seconds.

    ``still`` says that it has not moved for so long that it must be a picture.
    """

    id: int
    box: Box
    seen: float
    still: bool = False


class Expression(msgspec.Struct, frozen=True):
    """The expression of a face: the likeliest label, its probability, and the probability of every label."""

    label: ShownLabel
    confidence: float
    scores: dict[ShownLabel, float]


class EventTuning(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the readings of one model are smoothed into events; the card has it, since it is tuned for that model.

    ``smoothing`` is the time constant of the smoothing of logits, in seconds. An expression is published once it has
    led for ``dwell`` seconds, over the last one published by at least ``hysteresis`` in probability.
    """

    smoothing: Annotated[float, Meta(gt=0)]
    dwell: Annotated[float, Meta(ge=0)]
    hysteresis: Annotated[float, Meta(ge=0, lt=1)]


class Episode(msgspec.Struct, frozen=True):
    """A period in which one face showed one expression.

    ``start`` is RFC 3339 with zone, ``duration`` in seconds. ``peak`` and ``mean`` are those of the confidence.
    """

    expression: ShownLabel
    start: str
    duration: float
    peak: float
    mean: float


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """An event of one track.

    ``id`` is ``<run id>-<sequence>`` and unique, so that a consumer can drop a message that comes twice. ``time`` is
    when the event happened (RFC 3339, with zone); ``clock_synced`` says whether a time server had set the device's
    clock by then. A track begins with ``appeared`` and ends with ``left``. In between there are any number of
    ``changed`` (it shows another expression), ``uncertain`` (the expression is no longer certain) and ``preset``
    (``name`` is the preset's). ``expression`` is the current one, in ``left`` the last one; it is null while it is
    uncertain, and ``reason`` says why. ``episode`` is the one that has just ended, in ``preset`` the current one.
    """

    schema_version: Literal[2] = 2
    id: str
    time: str
    clock_synced: bool
    track: int
    kind: EventKind
    expression: Expression | None
    reason: Reason | None = None
    episode: Episode | None = None
    name: str | None = None


class Fault(msgspec.Struct, frozen=True):
    """Why the service ended or is degraded: exit code, a sentence that says what to do, time (RFC 3339 with zone)."""

    code: int
    sentence: str
    time: str


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """``…/verification``, retained: whether the deployed model gives its golden outputs on this device.

    ``labels`` are the expressions that the model knows, in the order of its card. ``largest_lsb`` is the largest
    difference of an int8 logit over ``n`` golden inputs, in quantization steps; rounding on this runtime explains up to
    ``allowed_lsb``. ``top1`` is the share with the same expression. ``luma_levels`` and ``crop_levels`` are the largest
    differences, in grey levels, of a decoded picture and of the faces cropped from it.
    """

    time: str
    ok: bool
    sentence: str
    model: str
    sha256: str
    labels: tuple[ShownLabel, ...]
    runtime: str
    accelerator: str
    n: int
    largest_lsb: int
    allowed_lsb: int
    top1: float
    luma_levels: int
    crop_levels: int


class Accuracy(msgspec.Struct, frozen=True, kw_only=True):
    """``…/accuracy``, retained: the last result of ``fer-edge verify --data … --publish``.

    ``promised`` is the card's accuracy; an accuracy below ``lowest`` fails. ``same_faces`` says whether it was measured
    on the card's own faces. ``recalls`` has the recall of each label that some face has. ``ece`` is the expected
    calibration error, ``nll`` the mean negative log-likelihood in nats. ``ms_p50`` and ``ms_p99`` are milliseconds per
    face.
    """

    time: str
    ok: bool
    sentence: str
    model: str
    sha256: str
    runtime: str
    accelerator: str
    split: str | None
    n: int
    accuracy: float
    macro_f1: float
    promised: float
    lowest: float
    same_faces: bool
    recalls: dict[ShownLabel, float]
    ece: float
    nll: float
    ms_p50: float
    ms_p99: float
