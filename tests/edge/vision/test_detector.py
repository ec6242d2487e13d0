from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.errors import SettingsError
from edge.records import Square
from edge.settings import DetectSettings
from edge.vision.detector import FaceDetector
from edge.vision.pyramid import Pyramid
from edge.vision.search import SearchRegion
from tests.edge.stage import Actor, film, walk

FACE = Square(300, 220, 100)


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector(DetectSettings())


@pytest.fixture(scope="module")
def scene() -> Pyramid:
    [frame] = film([Actor(walk((FACE.x, FACE.y, FACE.side), (FACE.x, FACE.y, FACE.side), 1))], 0.04)
    return Pyramid(frame.gray)


def test_a_scan_for_faces_of_one_size_proposes_the_one_that_is_there(detector: FaceDetector, scene: Pyramid) -> None:
    places = detector.propose(scene, SearchRegion(98, (0, 480), (0, 640), 0), ())
    assert max(place.overlap(FACE) for place in places) > 0.6
    others = detector.propose(scene, SearchRegion(250, (0, 480), (0, 640), 0), ())
    assert all(place.overlap(FACE) < 0.3 for place in others)


def test_known_faces_are_not_proposed_again(detector: FaceDetector, scene: Pyramid) -> None:
    places = detector.propose(scene, SearchRegion(98, (0, 480), (0, 640), 0), [FACE])
    assert all(place.overlap(FACE) < 0.3 for place in places)


@pytest.mark.parametrize("place", [FACE, Square(292, 228, 88), Square(309, 213, 118)])
def test_a_rough_place_is_judged_to_be_the_face(detector: FaceDetector, scene: Pyramid, place: Square) -> None:
    found, windows = detector.judge(scene, place)
    assert found
    assert found.clear
    assert found.square.overlap(FACE) > 0.75
    assert windows > 0


@pytest.mark.parametrize("first", [90.0, 110.0, 120.0])
def test_how_large_a_face_is_does_not_depend_on_how_large_the_scan_took_it_for(
    detector: FaceDetector, scene: Pyramid, first: float
) -> None:
    found, _ = detector.judge(scene, Square(FACE.x, FACE.y, first))
    exact, _ = detector.judge(scene, FACE)
    assert found
    assert exact
    assert found.square.side == pytest.approx(exact.square.side, rel=0.05)


def test_what_is_smaller_than_the_smallest_face_is_none(scene: Pyramid) -> None:
    assert FaceDetector(DetectSettings(min_face=110 / 480)).judge(scene, FACE)[0]
    assert FaceDetector(DetectSettings(min_face=125 / 480)).judge(scene, FACE)[0] is None


def test_eyes_and_mouth_tell_where_the_other_cascade_is_in_doubt() -> None:
    [frame] = film([Actor(walk((300, 220, 64), (300, 220, 64), 1))], 0.04)
    blurred = Pyramid(np.asarray(cv2.GaussianBlur(frame.gray, (0, 0), 3), np.uint8))
    with_parts, without = FaceDetector(DetectSettings()), FaceDetector(DetectSettings())
    without._parts = []
    place = Square(300, 220, 64)
    found, doubtful = (detector.judge(blurred, place)[0] for detector in (with_parts, without))
    assert found
    assert doubtful
    assert (found.clear, doubtful.clear) == (True, False)
    assert found.hits > doubtful.hits


def test_a_known_face_is_checked_for_less(detector: FaceDetector, scene: Pyramid) -> None:
    found, windows = detector.check(scene, Square(296, 224, 94))
    assert found
    assert found.square.overlap(FACE) > 0.75
    assert windows < detector.judge(scene, FACE)[1] / 5


def test_where_no_face_is_nothing_is_found(detector: FaceDetector, scene: Pyramid) -> None:
    for place in (Square(100, 100, 90), Square(550, 350, 120), Square(300, 330, 100)):
        assert detector.judge(scene, place)[0] is None
        assert detector.check(scene, place)[0] is None


def test_a_face_that_is_not_believed_yet_is_confirmed_for_less(detector: FaceDetector, scene: Pyramid) -> None:
    found, windows = detector.confirm(scene, FACE)
    assert found
    assert found.square.overlap(FACE) > 0.75
    assert windows < detector.judge(scene, FACE)[1]
    assert detector.confirm(scene, Square(100, 100, 90))[0] is None


def test_another_cascade_can_be_named(scene: Pyramid) -> None:
    other = Path(cv2.__file__).parent / "data" / "haarcascade_frontalface_alt2.xml"
    detector = FaceDetector(DetectSettings(cascade=str(other)))
    for found, _ in (detector.check(scene, FACE), detector.judge(scene, FACE)):
        assert found
        assert found.square.overlap(FACE) > 0.7


def test_a_cascade_that_cannot_be_read_is_named_in_the_error(tmp_path: Path) -> None:
    for name, text in (
        ("empty.xml", ""),
        ("other.xml", "<opencv_storage><a>1</a></opencv_storage>"),
        ("absent.xml", None),
    ):
        file = tmp_path / name
        if text is not None:
            file.write_text(text)
        with pytest.raises(SettingsError, match=name):
            FaceDetector(DetectSettings(cascade=str(file)))


def test_a_plain_scan_of_a_still_finds_the_face_too(detector: FaceDetector, scene: Pyramid) -> None:
    [box] = detector.detect(np.asarray(scene.halved(1)[0], np.uint8))
    assert box.overlap(FACE.box) > 0.7
