import pytest

from edge.records import Square
from edge.settings import Ignore
from edge.vision.ignore import is_ignored

POSTER = Ignore(left=0.5, top=0.0, width=0.25, height=0.5)


@pytest.mark.parametrize(
    ("x", "y", "ignored"), [(400, 100, True), (300, 100, False), (490, 100, False), (400, 300, False), (320, 0, True)]
)
def test_a_face_whose_middle_is_in_an_ignored_part_is_ignored(x: float, y: float, ignored: bool) -> None:
    assert is_ignored(Square(x, y, 80), (640, 480), [POSTER]) is ignored


def test_without_ignored_parts_no_face_is_ignored() -> None:
    assert not is_ignored(Square(0, 0, 80), (640, 480), [])
