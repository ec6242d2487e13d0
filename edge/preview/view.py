"""What the page shows of a frame: its picture, its faces, and what quality measures in them."""

from typing import Final, Literal, TypeAlias

import cv2
import msgspec
import numpy as np

from edge.events.episodes import episode_settings
from edge.model.bundle import Card
from edge.model.preprocessing import expression, softmax
from edge.pipeline import FrameResult
from edge.preview.newest_frame import SeenFrame
from edge.records import Flaw, Gray, Reading, Track
from edge.settings import Settings
from edge.vision.face_size import smallest_face
from edge.vision.quality import contrast, sharpness

_WIDEST: Final = 960  # pixels; a larger picture shows no more on a page, and takes longer to send
_JPEG_QUALITY: Final = 80

Verdict: TypeAlias = Literal["expression", "uncertain", "waiting", "hidden"] | Flaw


class Limits(msgspec.Struct, frozen=True):
    """What a face must reach: ``[quality]``, the confidence below which an expression is uncertain, and its side.

    ``searched`` is the side in pixels of the smallest face that the detector searches for.
    """

    size: int
    sharpness: float
    contrast: float
    confidence: float
    searched: float


class FaceView(msgspec.Struct, frozen=True, kw_only=True):
    """A face: ``box`` is left, top, width and height in pixels of the camera's picture.

    ``share`` is its shorter side as a share of the picture's, 0..1. ``brightness`` is the mean of the crop's grey
    values, 0..255; contrast and sharpness are those that quality judges. ``verdict`` is the flaw of a face that is
    refused; ``waiting`` means not classified yet. ``label`` and ``confidence`` are of its last reading; ``""`` and 0
    when it has none, or when expressions are ``hidden``.
    """

    track: int
    box: tuple[int, int, int, int]
    share: float
    brightness: float
    contrast: float
    sharpness: float
    verdict: Verdict
    label: str = ""
    confidence: float = 0.0


class FrameView(msgspec.Struct, frozen=True, kw_only=True):
    """A frame for the page: ``size`` is width and height in pixels of the camera's picture, ``picture`` a JPEG."""

    number: int
    size: tuple[int, int]
    fps: float
    brightness: float
    limits: Limits
    faces: list[FaceView]
    picture: bytes


class Viewer:
    """Makes views of frames, in the thread of whoever asks for one.

    With ``privacy.aggregate_only``, no view says what a single face shows.
    """

    def __init__(self, settings: Settings, card: Card) -> None:
        self._quality, self._detect = settings.quality, settings.detect
        self._hides_expressions = settings.privacy.aggregate_only
        self._margin, self._labels = card.crop_margin, card.labels
        episodes = episode_settings(
            settings.events, settings.preset, card.labels, card.events, card.abstention.threshold
        )
        self._threshold = episodes.threshold

    def view(self, seen: SeenFrame) -> FrameView:
        """The view of a frame."""
        gray = seen.result.frame.gray
        height, width = gray.shape
        return FrameView(
            number=seen.number,
            size=(width, height),
            fps=round(seen.fps, 1),
            brightness=_brightness(gray),
            limits=self._limits((width, height)),
            faces=[self._face(seen.result, track, seen.readings.get(track.id)) for track in seen.result.tracks],
            picture=_jpeg(gray),
        )

    def _limits(self, size: tuple[int, int]) -> Limits:
        quality = self._quality
        searched = round(smallest_face(self._detect, size), 1)
        return Limits(quality.min_size, quality.min_sharpness, quality.min_contrast, self._threshold, searched)

    def _face(self, result: FrameResult, track: Track, reading: Reading | None) -> FaceView:
        gray, box = result.frame.gray, track.box
        face = result.face(track, self._margin)
        verdict, label, confidence = self._verdict(reading)
        return FaceView(
            track=track.id,
            box=(box.x, box.y, box.w, box.h),
            share=round(min(box.w, box.h) / min(gray.shape), 3),
            brightness=_brightness(result.face(track, self._margin, levelled=False)),
            contrast=round(contrast(face), 1),
            sharpness=round(sharpness(face), 2),
            verdict=verdict,
            label=label,
            confidence=confidence,
        )

    def _verdict(self, reading: Reading | None) -> tuple[Verdict, str, float]:
        if reading is None:
            return "waiting", "", 0.0
        if isinstance(reading, str):
            return reading, "", 0.0
        if self._hides_expressions:
            return "hidden", "", 0.0
        shown = expression(softmax(reading), self._labels)
        return "uncertain" if shown.confidence < self._threshold else "expression", shown.label, shown.confidence


def _brightness(gray: Gray) -> float:
    return round(float(cv2.mean(gray)[0]), 1)


def _jpeg(gray: Gray) -> bytes:
    factor = min(1.0, _WIDEST / max(gray.shape))
    picture = np.ascontiguousarray(gray)  # a rotated frame is a view
    if factor < 1:
        picture = np.asarray(cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA), np.uint8)
    return cv2.imencode(".jpg", picture, (cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY))[1].tobytes()
