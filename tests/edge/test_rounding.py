"""Processors round differently, and a detector must not owe its few false boxes to one of them.

Here a little noise stands for another rounding: it changes one pixel in 32 by one grey level.
"""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.bench.annotations import read_annotations
from edge.bench.size_recall import SizeRecall
from edge.camera.sources import open_source
from edge.model.loader import open_deployed
from edge.pipeline import make_pipeline
from edge.records import Frame, Gray
from edge.settings import CameraSettings, ModelSettings, Settings


def otherwise_rounded(gray: Gray, rng: np.random.Generator) -> Gray:
    """The picture with noise of one grey level, up or down."""
    drawn = rng.integers(0, 64, gray.shape, np.uint8)  # a power of two, which numpy draws quickly
    brighter, darker = ((drawn == value).astype(np.uint8) for value in (0, 1))
    return np.asarray(cv2.subtract(cv2.add(gray, brighter), darker), np.uint8)


def last_frames(video: Path, first: int) -> list[Frame]:
    source = open_source(CameraSettings(source=str(video)))
    frames = [frame for number, frame in enumerate(source.frames()) if number >= first]
    source.close()
    return frames


@pytest.mark.slow
@pytest.mark.parametrize(("name", "first"), [("lp_s20", 180), ("facenet_video", 75)])
def test_hardly_any_box_is_false_however_the_processor_rounds(real_clips: Path, name: str, first: int) -> None:
    truth = read_annotations(real_clips / "gt" / f"{name}.json")
    frames = last_frames(real_clips / "videos" / f"{name}.mp4", first)
    settings, recall = Settings(model=ModelSettings(rate=1)), SizeRecall()
    for seed in range(2):
        rng = np.random.default_rng(seed)
        pipeline = make_pipeline(settings, open_deployed(settings, {})[0])
        noisy = (replace(frame, gray=otherwise_rounded(frame.gray, rng)) for frame in frames)
        for number, result in enumerate(pipeline.run(noisy), first):
            if number in truth.frames:
                recall.add(truth.frames[number], [track.box for track in result.tracks], min(truth.size))
    assert recall.boxes > 100
    assert recall.false <= 0.01 * recall.boxes
