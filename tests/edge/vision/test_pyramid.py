import cv2
import numpy as np
import pytest

from edge.records import Gray, Square
from edge.vision.pyramid import Pyramid
from tests.conftest import PORTRAIT


@pytest.fixture(scope="module")
def portrait() -> Gray:
    return np.asarray(cv2.imread(str(PORTRAIT), cv2.IMREAD_GRAYSCALE), np.uint8)


def test_a_cut_in_natural_size_is_the_picture_itself(portrait: Gray) -> None:
    cut = Pyramid(portrait).cut(Square(164, 114, 96), 96)
    assert np.array_equal(cut, portrait[66:162, 116:212])


@pytest.mark.parametrize("size", [16, 24, 40, 60])
def test_a_reduced_cut_is_nearly_what_averaging_gives(portrait: Gray, size: int) -> None:
    cut = Pyramid(portrait).cut(Square(164, 114, 96), size)
    averaged = cv2.resize(portrait[66:162, 116:212], (size, size), interpolation=cv2.INTER_AREA)
    assert np.corrcoef(cut.ravel(), averaged.ravel())[0, 1] > 0.99


def test_a_cut_beyond_the_border_repeats_it(portrait: Gray) -> None:
    cut = Pyramid(portrait).cut(Square(0, 50, 40), 40)
    assert np.array_equal(cut[:, :20], np.repeat(cut[:, 20:21], 20, axis=1))


def test_a_reduced_part_shows_the_same_places(portrait: Gray) -> None:
    pyramid = Pyramid(portrait)
    part = pyramid.reduced(3.0, (60, 180), (90, 240))
    assert part.shape == (40, 50)
    averaged = cv2.resize(portrait[60:180, 90:240], (50, 40), interpolation=cv2.INTER_AREA)
    assert np.corrcoef(part.ravel(), averaged.ravel())[0, 1] > 0.99


def test_a_half_that_the_camera_made_is_used_and_halved_further(portrait: Gray) -> None:
    height, width = portrait.shape
    half = np.full((height // 2, width // 2), 7, np.uint8)
    pyramid = Pyramid(portrait, half)
    assert pyramid.size == (width, height)
    assert pyramid.halved(1.9)[0] is portrait
    assert pyramid.halved(2.0) == (half, 2)
    assert (pyramid.halved(4.0)[0] == 7).all()


def test_a_tiny_frame_has_a_pyramid_too() -> None:
    pyramid = Pyramid(np.zeros((3, 5), np.uint8))
    assert pyramid.halved(64)[0].shape == (1, 2)
