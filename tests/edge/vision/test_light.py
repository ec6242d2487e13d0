"""Dark and backlit frames are stretched, all others stay as they are."""

import numpy as np
import pytest

from edge.records import Gray
from edge.settings import DetectSettings
from edge.vision.light import level_frame
from edge.vision.pyramid import Pyramid
from tests.edge.stage import Actor, film, walk

SETTINGS = DetectSettings()


def scene() -> Gray:
    return next(iter(film((Actor(walk((320, 210, 120), (320, 210, 120), 1.0)),), 0.1))).gray


def noisy(light: np.ndarray) -> Gray:  # type: ignore[type-arg]
    """What a sensor makes of so much light: shot noise and read noise, rounded to grey levels and cut off at white."""
    noise = np.random.default_rng(1).standard_normal(light.shape) * np.sqrt(0.64 + 0.05 * light)
    return np.clip(np.rint(light + noise), 0, 255).astype(np.uint8)


def backlit(picture: Gray) -> Gray:
    """A dark person, the middle third of the picture, before a bright wall."""
    light = np.full(picture.shape, 270.0)
    light[:, 210:430] = 0.12 * picture[:, 210:430]
    return noisy(light)


def test_a_frame_in_normal_light_is_not_touched() -> None:
    picture = scene()
    levelled = level_frame(Pyramid(picture), SETTINGS)
    assert levelled.levels is None
    assert levelled.pyramid.halved(1.0)[0] is picture
    assert not levelled.too_dark


@pytest.mark.parametrize("share", [0.04, 0.08, 0.3])
def test_a_dark_frame_is_as_bright_as_a_lit_one(share: float) -> None:
    levelled = level_frame(Pyramid(noisy(share * scene().astype(float))), SETTINGS)
    assert 80 < levelled.pyramid.halved(1.0)[0].mean() < 140
    assert not levelled.too_dark


def test_the_dark_part_of_a_backlit_frame_is_bright_and_the_rest_is_not_cut_off() -> None:
    levelled = level_frame(Pyramid(backlit(scene())), SETTINGS)
    assert 80 < levelled.pyramid.halved(1.0)[0][:, 210:430].mean() < 140
    assert levelled.levels is not None
    assert (np.diff(levelled.levels.astype(int))[64:] >= 0).all()
    assert len(set(levelled.levels[64:].tolist())) >= 75


def test_a_pedestal_of_black_does_not_hide_how_dark_it_is() -> None:
    dark = noisy(0.08 * scene().astype(float) + 16)
    assert 60 < level_frame(Pyramid(dark), SETTINGS).pyramid.halved(1.0)[0].mean() < 140


@pytest.mark.parametrize("pedestal", [0, 16])
def test_a_frame_of_noise_alone_is_too_dark(pedestal: int) -> None:
    levelled = level_frame(Pyramid(noisy(0.01 * scene().astype(float) + pedestal)), SETTINGS)
    assert levelled.too_dark
    assert levelled.levels is None


def test_a_white_wall_is_not_too_dark() -> None:
    assert level_frame(Pyramid(np.full((480, 640), 255, np.uint8)), SETTINGS)[1:] == (None, False)


def test_large_frames_are_stretched_as_they_are_searched() -> None:
    dark = np.repeat(np.repeat(noisy(0.08 * scene().astype(float)), 3, axis=0), 3, axis=1)
    pyramid = level_frame(Pyramid(dark), SETTINGS).pyramid
    assert pyramid.size == (1920, 1440)
    picture, by = pyramid.halved(1.0)
    assert (picture.shape, by) == ((720, 960), 2)
