"""Frames for the preview's tests: the demo's portrait, with a track where its face is."""

from functools import cache

import cv2
import numpy as np

from edge.model.bundle import Card, find_bundle, open_bundle
from edge.pipeline import FrameResult
from edge.preview.newest_frame import SeenFrame
from edge.records import Box, Frame, Gray, Reading, Track
from tests.conftest import PORTRAIT

FACE = Box(116, 66, 96, 90)


def portrait() -> Gray:
    return np.asarray(cv2.imread(str(PORTRAIT), cv2.IMREAD_GRAYSCALE), np.uint8)


@cache
def card() -> Card:
    return open_bundle(find_bundle("student-small")).card


def result(gray: Gray, box: Box = FACE, readings: dict[int, Reading] | None = None) -> FrameResult:
    return FrameResult(Frame(gray, 0.0), [Track(1, box, 0.0)], [], readings or {}, [])


def seen(gray: Gray, reading: Reading | None = None, box: Box = FACE) -> SeenFrame:
    return SeenFrame(7, result(gray, box), {} if reading is None else {1: reading}, 25.0)
