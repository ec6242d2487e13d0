from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.evaluation.fer2013 import Split, read_faces
from edge.model.preprocessing import crop
from edge.records import Box, Gray
from edge.settings import QualitySettings
from edge.vision.quality import contrast, flaw, sharpness
from tests.conftest import PORTRAIT

BOX = Box(116, 66, 96, 96)


@pytest.fixture(scope="module")
def portrait() -> Gray:
    return np.asarray(cv2.imread(str(PORTRAIT), cv2.IMREAD_GRAYSCALE), np.uint8)


def judged(picture: Gray, box: Box = BOX) -> str | None:
    return flaw(box, crop(picture, box, 0.0), QualitySettings())


def test_a_head_that_is_turned_too_far_is_not_classified() -> None:
    face = crop(np.asarray(cv2.imread(str(PORTRAIT), cv2.IMREAD_GRAYSCALE), np.uint8), BOX, 0.0)
    assert flaw(BOX, face, QualitySettings(max_yaw=50), yaw=51) == "turned"
    assert flaw(BOX, face, QualitySettings(max_yaw=50), yaw=49) is None
    assert flaw(BOX, face, QualitySettings(max_yaw=90), yaw=90) is None


def test_a_good_photograph_has_no_flaw(portrait: Gray) -> None:
    assert judged(portrait) is None


def test_each_flaw_is_named(portrait: Gray) -> None:
    assert judged(cv2.GaussianBlur(portrait, (0, 0), 5.0)) == "blurred"  # type: ignore[arg-type]
    assert judged((100 + 0.1 * portrait).astype(np.uint8)) == "low contrast"
    assert judged(portrait[::4, ::4], Box(29, 16, 24, 24)) == "small"
    assert judged(np.full_like(portrait, 128)) == "low contrast"


def test_what_reaches_every_limit_exactly_is_classified(portrait: Gray) -> None:
    face = crop(portrait, BOX, 0.0)
    limits = QualitySettings(min_size=96, max_yaw=40, min_contrast=contrast(face), min_sharpness=sharpness(face))
    assert flaw(BOX, face, limits, yaw=40) is None
    assert flaw(Box(116, 66, 96, 95), face, limits) == "small", "the shorter side counts"


def test_noise_does_not_make_a_blurred_face_sharp(portrait: Gray) -> None:
    blurred = cv2.GaussianBlur(portrait, (0, 0), 6.0).astype(np.float64)
    noisy = np.clip(blurred + np.random.default_rng(2).normal(0, 10, blurred.shape), 0, 255).astype(np.uint8)
    assert judged(noisy) == "blurred"


def test_a_face_that_is_a_little_soft_is_classified(portrait: Gray) -> None:
    assert judged(cv2.GaussianBlur(portrait, (0, 0), 3.0)) is None  # type: ignore[arg-type]


def test_sharpness_does_not_depend_on_contrast(portrait: Gray) -> None:
    face = crop(portrait, BOX, 0.0)
    flat = (60 + 0.5 * face).astype(np.uint8)
    assert contrast(flat) == pytest.approx(contrast(face) / 2, rel=0.05)
    assert sharpness(flat) == pytest.approx(sharpness(face), rel=0.1)
    assert sharpness(np.zeros((48, 48), np.uint8)) == 0.0


@pytest.mark.slow
def test_hardly_any_face_of_fer2013_has_a_flaw(public_test: Path) -> None:
    faces = read_faces(public_test, Split.PUBLIC)
    whole = Box(0, 0, 48, 48)
    assert np.mean([flaw(whole, face, QualitySettings()) is not None for face in faces.pixels]) < 0.01
