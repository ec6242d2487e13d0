import pytest

from edge.settings import DetectSettings
from edge.vision.face_size import pixel_shortage, smallest_face


def test_the_smallest_face_is_the_same_in_a_portrait_and_in_a_landscape_picture() -> None:
    settings = DetectSettings(min_face=0.1)
    assert smallest_face(settings, (640, 480)) == smallest_face(settings, (480, 640)) == pytest.approx(48)


@pytest.mark.parametrize(("detector", "pixels"), [("haar", 24), ("yunet", 10)])
def test_no_face_is_smaller_than_what_the_detector_can_find(detector: str, pixels: int) -> None:
    settings = DetectSettings(detector=detector, min_face=0.01)
    assert smallest_face(settings, (640, 480)) == pixels


@pytest.mark.parametrize("size", [(640, 360), (360, 640), (333, 487), (25, 25)])
def test_the_share_that_is_named_can_be_found(size: tuple[int, int]) -> None:
    shortage = pixel_shortage(DetectSettings(min_face=0.01), size)
    assert shortage
    named = float(shortage.remedy.rpartition(" = ")[2])
    assert pixel_shortage(DetectSettings(min_face=named), size) is None
    assert smallest_face(DetectSettings(min_face=named), size) == pytest.approx(24, abs=0.5)


@pytest.mark.parametrize(("detector", "side"), [("haar", 24), ("yunet", 27)])
@pytest.mark.parametrize("min_face", [0.05, 0.9])
def test_in_a_picture_that_is_too_small_for_the_detector_no_share_helps(
    detector: str, side: int, min_face: float
) -> None:
    settings = DetectSettings(detector=detector, min_face=min_face)
    shortage = pixel_shortage(settings, (side, 100))
    assert shortage
    assert shortage.problem.endswith(f"no face can be found in {side}x100")
    assert "min_face" not in shortage.remedy
    at_least = pixel_shortage(settings, (side + 1, 100))
    assert at_least is None or "min_face" in at_least.remedy


def test_what_can_be_found_is_no_shortage() -> None:
    assert pixel_shortage(DetectSettings(min_face=0.05), (640, 480)) is None
