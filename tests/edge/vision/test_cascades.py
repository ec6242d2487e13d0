from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.errors import SettingsError
from edge.records import Gray, Square
from edge.settings import DetectSettings
from edge.vision.cascades import FaceCascades
from edge.vision.detection import Absence, Detection
from edge.vision.pyramid import Pyramid
from edge.vision.search import SearchRegion
from tests.edge.stage import Actor, film, walk

FACE = Square(300, 220, 100)


@pytest.fixture(scope="module")
def cascades() -> FaceCascades:
    return FaceCascades(DetectSettings())


@pytest.fixture(scope="module")
def scene() -> Pyramid:
    [frame] = film([Actor(walk((FACE.x, FACE.y, FACE.side), (FACE.x, FACE.y, FACE.side), 1))], 0.04)
    return Pyramid(frame.gray)


def test_a_scan_for_one_size_proposes_a_face_of_that_size(cascades: FaceCascades, scene: Pyramid) -> None:
    proposals = cascades.propose(scene, SearchRegion(98, (0, 480), (0, 640), 0), ())
    assert max(proposal.overlap(FACE) for proposal in proposals) > 0.6
    others = cascades.propose(scene, SearchRegion(250, (0, 480), (0, 640), 0), ())
    assert all(proposal.overlap(FACE) < 0.3 for proposal in others)


def test_known_faces_are_not_proposed_again(cascades: FaceCascades, scene: Pyramid) -> None:
    proposals = cascades.propose(scene, SearchRegion(98, (0, 480), (0, 640), 0), [FACE])
    assert all(proposal.overlap(FACE) < 0.3 for proposal in proposals)


@pytest.mark.parametrize("proposal", [FACE, Square(292, 228, 88), Square(309, 213, 118)])
def test_a_rough_proposal_is_confirmed_as_the_face(cascades: FaceCascades, scene: Pyramid, proposal: Square) -> None:
    detection, windows = cascades.confirm_proposal(scene, proposal)
    assert detection
    assert detection.clear
    assert detection.square.overlap(FACE) > 0.75
    assert windows > 0


@pytest.mark.parametrize("first", [90.0, 110.0, 120.0])
def test_the_size_of_a_face_does_not_depend_on_the_size_of_its_proposal(
    cascades: FaceCascades, scene: Pyramid, first: float
) -> None:
    detection, _ = cascades.confirm_proposal(scene, Square(FACE.x, FACE.y, first))
    exact, _ = cascades.confirm_proposal(scene, FACE)
    assert detection
    assert exact
    assert detection.square.side == pytest.approx(exact.square.side, rel=0.05)


def test_a_face_smaller_than_the_smallest_is_not_detected(scene: Pyramid) -> None:
    assert FaceCascades(DetectSettings(min_face=110 / 480)).confirm_proposal(scene, FACE)[0]
    assert FaceCascades(DetectSettings(min_face=125 / 480)).confirm_proposal(scene, FACE)[0] is None


def leaning(gray: Gray, degrees: float) -> Pyramid:
    """The picture turned clockwise around the face."""
    matrix = cv2.getRotationMatrix2D((FACE.x, FACE.y), -degrees, 1.0)
    return Pyramid(np.asarray(cv2.warpAffine(gray, matrix, (640, 480)), np.uint8))


@pytest.mark.parametrize("gain", [1.0, 0.25])
@pytest.mark.parametrize("degrees", [-25, 0, 25])
def test_a_dim_face_and_a_leaning_one_are_detected(
    cascades: FaceCascades, scene: Pyramid, gain: float, degrees: int
) -> None:
    detection, _ = cascades.confirm_proposal(leaning(np.asarray(scene.halved(1)[0] * gain, np.uint8), degrees), FACE)
    assert detection
    assert detection.square.overlap(FACE) > 0.7
    assert detection.square.roll == pytest.approx(degrees, abs=12)


@pytest.mark.parametrize("degrees", [-30.0, -15.0, 0.0, 15.0, 30.0])
def test_the_judge_says_how_a_head_leans(cascades: FaceCascades, scene: Pyramid, degrees: float) -> None:
    roll, windows = cascades.roll(leaning(scene.halved(1)[0], degrees), FACE)
    assert roll == pytest.approx(degrees, abs=10)
    assert windows > 0


def test_how_something_else_leans_cannot_be_told(cascades: FaceCascades, scene: Pyramid) -> None:
    assert cascades.roll(scene, Square(80, 80, 90))[0] is None


def test_judge_and_second_cascade_must_agree_on_a_new_face(scene: Pyramid) -> None:
    bodies = Path(cv2.__file__).parent / "data" / "haarcascade_fullbody.xml"
    blind = FaceCascades(DetectSettings(cascade=str(bodies)))
    assert blind.confirm_proposal(scene, FACE)[0] is None
    assert isinstance(blind.redetect(scene, FACE)[0], Detection), "for one that is known, the judge will do"


def test_more_neighbors_leave_more_doubt(cascades: FaceCascades, scene: Pyramid) -> None:
    strict = FaceCascades(DetectSettings(neighbors=1000))
    sure, doubtful = (these.confirm_proposal(scene, FACE)[0] for these in (cascades, strict))
    assert sure
    assert doubtful
    assert (sure.clear, doubtful.clear) == (True, False)


def test_the_smaller_a_face_is_in_the_picture_the_more_evidence_it_needs() -> None:
    place = Square(200, 220, 24)
    [frame] = film([Actor(walk((200, 220, 24), (200, 220, 24), 1))], 0.04)
    wide, close_up = Pyramid(frame.gray), Pyramid(frame.gray[120:320, 100:300].copy())
    in_close_up = Square(100, 100, place.side)
    sure, doubtful = (FaceCascades(DetectSettings(neighbors=neighbors)) for neighbors in (5, 1000))
    assert doubtful.confirm_proposal(close_up, in_close_up)[0]
    assert doubtful.confirm_proposal(wide, place)[0] is None
    small, large = sure.confirm_proposal(wide, place)[0], sure.confirm_proposal(close_up, in_close_up)[0]
    assert small
    assert large
    assert (small.clear, large.clear) == (False, True), "one frame is too little for a small face"


def test_a_face_that_is_half_covered_may_yet_be_there_and_one_that_is_covered_is_not(
    cascades: FaceCascades, scene: Pyramid
) -> None:
    found = []
    for columns in (20, 50, 80):
        picture = np.array(scene.halved(1)[0])
        picture[170:270, 250 : 250 + columns] = 110
        found.append(cascades.redetect(Pyramid(picture), FACE)[0])
    assert isinstance(found[0], Detection)
    assert found[1] is None
    assert isinstance(found[2], Absence)


def test_detecting_a_known_face_again_costs_less(cascades: FaceCascades, scene: Pyramid) -> None:
    detection, windows = cascades.redetect(scene, Square(296, 224, 94))
    assert isinstance(detection, Detection)
    assert detection.square.overlap(FACE) > 0.75
    assert windows < cascades.confirm_proposal(scene, FACE)[1] / 4


def test_nothing_is_detected_where_there_is_no_face(cascades: FaceCascades, scene: Pyramid) -> None:
    for place in (Square(100, 100, 90), Square(550, 350, 120), Square(300, 330, 100)):
        assert cascades.confirm_proposal(scene, place)[0] is None
        assert isinstance(cascades.redetect(scene, place)[0], Absence)


def test_confirming_a_tentative_face_again_costs_less(cascades: FaceCascades, scene: Pyramid) -> None:
    detection, windows = cascades.confirm_again(scene, FACE)
    assert detection
    assert detection.square.overlap(FACE) > 0.75
    assert windows < cascades.confirm_proposal(scene, FACE)[1]
    assert cascades.confirm_again(scene, Square(100, 100, 90))[0] is None


def test_a_custom_cascade_can_be_used(scene: Pyramid) -> None:
    custom = Path(cv2.__file__).parent / "data" / "haarcascade_frontalface_alt2.xml"
    cascades = FaceCascades(DetectSettings(cascade=str(custom)))
    for detection, _ in (cascades.redetect(scene, FACE), cascades.confirm_proposal(scene, FACE)):
        assert isinstance(detection, Detection)
        assert detection.square.overlap(FACE) > 0.7


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
            FaceCascades(DetectSettings(cascade=str(file)))


def test_a_plain_scan_of_a_picture_detects_the_face(cascades: FaceCascades, scene: Pyramid) -> None:
    [box] = cascades.detect(np.asarray(scene.halved(1)[0], np.uint8))
    assert box.overlap(FACE.box) > 0.7
