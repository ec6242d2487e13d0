import cv2
import numpy as np
import pytest

from edge.records import Gray, Square
from edge.vision.pyramid import Pyramid
from edge.vision.template import FaceTemplate
from tests.conftest import PORTRAIT

FACE = Square(164, 114, 96)


@pytest.fixture(scope="module")
def portrait() -> Gray:
    return np.asarray(cv2.imread(str(PORTRAIT), cv2.IMREAD_GRAYSCALE), np.uint8)


def moved(picture: Gray, x: float, y: float) -> Gray:
    matrix = np.array([[1, 0, x], [0, 1, y]], np.float64)
    return np.asarray(cv2.warpAffine(picture, matrix, picture.shape[::-1], borderMode=cv2.BORDER_REPLICATE), np.uint8)


@pytest.mark.parametrize(("x", "y"), [(0, 0), (5, -3), (-14.5, 9.5), (20, 20)])
def test_a_moved_face_is_found_to_a_few_percent_of_its_size(portrait: Gray, x: float, y: float) -> None:
    template = FaceTemplate(Pyramid(portrait), FACE)
    match, similarity = template.find(Pyramid(moved(portrait, x, y)), FACE, 0.3)
    assert similarity > 0.9
    assert abs(match.x - FACE.x - x) < 0.03 * FACE.side
    assert abs(match.y - FACE.y - y) < 0.03 * FACE.side


def test_brightness_and_contrast_do_not_matter(portrait: Gray) -> None:
    dim = np.asarray(20 + 0.4 * portrait, np.uint8)
    _, similarity = FaceTemplate(Pyramid(portrait), FACE).find(Pyramid(dim), FACE, 0.2)
    assert similarity > 0.95


def test_nothing_is_similar_when_the_face_is_gone(portrait: Gray) -> None:
    template = FaceTemplate(Pyramid(portrait), FACE)
    noise = np.random.default_rng(1).integers(0, 256, portrait.shape, np.uint8)
    assert template.find(Pyramid(noise), FACE, 0.4)[1] < 0.6
    assert template.find(Pyramid(np.full_like(portrait, 90)), FACE, 0.4)[1] < 0.6
