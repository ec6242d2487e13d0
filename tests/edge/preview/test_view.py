from dataclasses import replace

import cv2
import numpy as np
import pytest

from edge.labels import FER2013_LABELS
from edge.model.preprocessing import crop
from edge.preview.view import FaceView, Viewer
from edge.records import Box, Flaw, Reading
from edge.settings import DetectSettings, EventSettings, PrivacySettings, QualitySettings, Settings
from edge.vision.light import level_frame
from edge.vision.pyramid import Pyramid
from edge.vision.quality import contrast, flaw, sharpness
from tests.edge.preview.frames import FACE, card, portrait, seen

HAPPY = tuple(5.0 if label == "happy" else 0.0 for label in FER2013_LABELS)
DOUBTFUL = tuple(0.1 if label == "happy" else 0.0 for label in FER2013_LABELS)


def viewer(settings: Settings = Settings()) -> Viewer:  # noqa: B008  settings cannot change
    return Viewer(settings, card())


def face(reading: Reading | None, settings: Settings = Settings()) -> FaceView:  # noqa: B008
    [one] = viewer(settings).view(seen(portrait(), reading)).faces
    return one


def test_a_face_has_its_size_and_what_quality_measures() -> None:
    shown, gray = face(HAPPY), portrait()
    cropped = crop(gray, FACE, card().crop_margin)
    assert shown.box == (116, 66, 96, 90)
    assert shown.share == pytest.approx(90 / min(gray.shape), abs=0.001)
    assert (shown.contrast, shown.sharpness) == pytest.approx((contrast(cropped), sharpness(cropped)), abs=0.06)
    assert shown.brightness == pytest.approx(cropped.mean(), abs=0.1)
    assert (shown.verdict, shown.label, shown.track) == ("expression", "happy", 1)
    assert 0.9 < shown.confidence < 1


def test_of_a_dark_face_the_contrast_is_that_of_the_stretched_picture_and_the_brightness_is_as_it_is() -> None:
    dark = (0.08 * portrait()).astype(np.uint8)
    levels = level_frame(Pyramid(dark), DetectSettings()).levels
    assert levels is not None
    frame = replace(seen(dark, HAPPY), result=replace(seen(dark).result, levels=levels))
    [shown] = viewer().view(frame).faces
    cropped = crop(dark, FACE, card().crop_margin)
    assert shown.contrast == pytest.approx(contrast(crop(dark, FACE, card().crop_margin, levels=levels)), abs=0.06)
    assert shown.contrast > 5 * contrast(cropped)
    assert shown.brightness == pytest.approx(cropped.mean(), abs=0.1)


def test_a_leaning_head_is_measured_upright_as_quality_judges_it_and_the_network_gets_it() -> None:
    gray = np.full((240, 320), 60, np.uint8)
    gray[:, 160:] = 180
    gray[100:] = 120
    box, margin = Box(100, 60, 96, 90), card().crop_margin
    leaning = replace(seen(gray, HAPPY, box).result, rolls={1: 30.0})
    [shown] = viewer().view(replace(seen(gray, HAPPY, box), result=leaning)).faces
    upright = crop(gray, box, margin, 30.0)
    assert not np.array_equal(upright, crop(gray, box, margin))
    assert shown.contrast == pytest.approx(contrast(upright), abs=0.06)
    assert shown.sharpness == pytest.approx(sharpness(upright), abs=0.006)
    assert shown.brightness == pytest.approx(upright.mean(), abs=0.1)


@pytest.mark.parametrize("reason", ["small", "blurred", "low contrast"])
def test_a_refused_face_has_the_reason_and_no_expression(reason: Flaw) -> None:
    shown = face(reason)
    assert (shown.verdict, shown.label, shown.confidence) == (reason, "", 0.0)


def test_a_doubtful_face_is_uncertain_by_the_threshold_of_the_settings() -> None:
    assert face(DOUBTFUL).verdict == "uncertain"
    assert face(DOUBTFUL, Settings(events=EventSettings(threshold=0.0))).verdict == "expression"
    assert face(None).verdict == "waiting"


def test_where_only_counts_are_published_no_expression_is_shown() -> None:
    settings = Settings(privacy=PrivacySettings(aggregate_only=True))
    shown = face(HAPPY, settings)
    assert (shown.verdict, shown.label, shown.confidence) == ("hidden", "", 0.0)
    assert face("blurred", settings).verdict == "blurred"


def test_the_limits_are_those_of_the_settings() -> None:
    quality = QualitySettings(min_size=40, min_sharpness=0.5, min_contrast=9.0)
    settings = Settings(quality=quality, detect=DetectSettings(min_face=0.5), events=EventSettings(threshold=0.7))
    gray = portrait()
    limits = viewer(settings).view(seen(gray)).limits
    assert (limits.size, limits.sharpness, limits.contrast, limits.confidence) == (40, 0.5, 9.0, 0.7)
    assert limits.searched == pytest.approx(0.5 * gray.shape[0])
    cropped = crop(gray, FACE, card().crop_margin)
    assert flaw(FACE, cropped, quality) is None


def test_a_large_or_rotated_picture_becomes_a_small_jpeg_and_keeps_its_size_in_pixels() -> None:
    large = np.rot90(cv2.resize(portrait(), (2304, 1296)))
    view = viewer().view(seen(large, box=Box(10, 10, 300, 300)))
    assert view.size == (1296, 2304)
    picture = cv2.imdecode(np.frombuffer(view.picture, np.uint8), cv2.IMREAD_UNCHANGED)
    assert picture is not None
    assert picture.shape == (960, 540)
    assert np.abs(picture.astype(int) - cv2.resize(large, (540, 960), interpolation=cv2.INTER_AREA)).mean() < 4
