"""The frozen records that flow through the device, from frame to event. No logic, no imports of other rooms."""

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

Gray: TypeAlias = NDArray[np.uint8]
"""A grey picture, ``(height, width)`` uint8, full-range luma 0..255."""

Logits: TypeAlias = tuple[float, ...]
"""Calibrated logits of a face in the order of edge.model.preprocessing.LABELS: their softmax is its probabilities."""

Flaw: TypeAlias = Literal["small", "blurred", "low contrast"]
"""Why a face is not worth classifying."""

Reading: TypeAlias = Logits | Flaw
"""What one look at one face gave."""

Reason: TypeAlias = Flaw | Literal["low margin"]
"""Why it cannot be said what a face shows; ``low margin``: no expression is likely enough."""

EventKind: TypeAlias = Literal["appeared", "changed", "uncertain", "preset", "left"]


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of a source; ``time`` is in seconds since the source's start, never decreasing."""

    gray: Gray
    time: float


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels: left edge, top edge, width, height."""

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
    """Where a face is, finer than a pixel: centre and side in pixels of the frame; pixel (0, 0) covers 0..1."""

    x: float
    y: float
    side: float

    @property
    def box(self) -> Box:
        """The nearest whole pixels."""
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
        """Whether the other one covers the middle of this one, and this one is not much larger."""
        return max(abs(self.x - other.x), abs(self.y - other.y)) < other.side / 2 and self.side < 1.5 * other.side


@dataclass(frozen=True, slots=True)
class Track:
    """One person's face while it stays in view. ``box`` is where it is; it was last recognised there at ``seen``."""

    id: int
    box: Box
    seen: float


class Expression(msgspec.Struct, frozen=True):
    """What a face shows: the likeliest label, its probability, and the probability of every label."""

    label: str
    confidence: float
    scores: dict[str, float]


class EventTuning(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How one model's answers are smoothed; it stands in the card, because it was tuned for that model's noise.

    ``smoothing`` is the time constant in seconds of the averaging of logits. An expression is told once it has led for
    ``dwell`` seconds, against the one told before by at least ``hysteresis`` in probability.
    """

    smoothing: Annotated[float, Meta(gt=0)]
    dwell: Annotated[float, Meta(ge=0)]
    hysteresis: Annotated[float, Meta(ge=0, lt=1)]


class Episode(msgspec.Struct, frozen=True):
    """A stretch of time in which one face showed one expression.

    ``start`` is RFC 3339 with zone, ``duration`` in seconds; ``peak`` and ``mean`` are of its confidence.
    """

    expression: str
    start: str
    duration: float
    peak: float
    mean: float


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something worth telling the world about one track.

    ``id`` is ``<run id>-<sequence>`` and never repeats, so that a consumer can drop a message that comes twice.
    ``time`` is when it happened (RFC 3339, with zone); ``clock_synced`` says whether the device's clock was set by
    a time server then. Each track is told by ``appeared``, then any number of ``changed`` (it now shows
    ``expression``), ``uncertain`` (that cannot be said any more) and ``preset`` (``name`` is the preset's), then
    ``left``. ``expression`` is the one now shown, of ``left`` the last one; it is null while it cannot be said, and
    ``reason`` says why. ``episode`` is the stretch that has ended with this event; of ``preset`` the one so far.
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
    """Why the service ended: the exit code, a sentence that says what to do, and when (RFC 3339, with zone)."""

    code: int
    sentence: str
    time: str


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """``…/verification``, retained: whether the deployed model does on this device what it did where it was made.

    Of ``n`` golden inputs the largest difference of an int8 logit is ``largest_lsb`` quantization steps, and
    ``allowed_lsb`` is rounding on this runtime; ``top1`` is the share with the same expression. ``luma_levels`` and
    ``crop_levels`` are the largest differences, in grey levels, of a decoded picture and of the faces cut out of it.
    """

    time: str
    ok: bool
    sentence: str
    model: str
    sha256: str
    runtime: str
    accelerator: str
    n: int
    largest_lsb: int
    allowed_lsb: int
    top1: float
    luma_levels: int
    crop_levels: int


class Accuracy(msgspec.Struct, frozen=True, kw_only=True):
    """``…/accuracy``, retained: what ``fer-edge verify --data … --publish`` measured last.

    ``promised`` is the card's accuracy, and less than ``lowest`` fails; ``same_faces`` when it was measured on the very
    faces of the card. ``recalls`` has the share that was recognized of each label. ``ece`` is the expected calibration
    error, ``nll`` the mean negative log-likelihood in nats; times are milliseconds of one face.
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
    recalls: dict[str, float]
    ece: float
    nll: float
    ms_p50: float
    ms_p99: float
