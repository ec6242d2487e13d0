import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edge.errors import SettingsError
from edge.records import Gray, Square
from edge.settings import DetectSettings
from edge.vision.detection import Detector
from edge.vision.detectors import open_detector
from edge.vision.pyramid import Pyramid
from edge.vision.yunet import Network, YuNetDetector
from tests.edge.stage import Actor, film, walk

FACE = Square(300, 220, 100)
EMPTY = np.full((480, 640), 110, np.uint8)


def settings(model: str) -> DetectSettings:
    return DetectSettings(detector="yunet", model=model, min_face=0.05)


@pytest.fixture(scope="module")
def model() -> str:
    file = os.environ.get("YUNET")
    if not file:
        pytest.skip("YUNET is not set to the path of the network YuNet")
    return file


@pytest.fixture(scope="module")
def detector(model: str) -> Detector:
    return open_detector(settings(model))


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def test_pictures_of_many_sizes_take_no_more_memory_than_some(model: str) -> None:
    """A folder has pictures of all sizes, and each size had a network of 6 MB."""
    network = Network(model)
    sizes = [(32 * high, 32 * wide) for high in range(4, 17) for wide in range(4, 17) if 64 <= high * wide <= 80]
    grown = []
    for size in sizes:
        network.faces(np.zeros(size, np.uint8), 0.5)
        grown.append(resident_mb())
    assert len(sizes) >= 20
    assert grown[-1] - grown[9] < 15, grown


def test_padding_changes_no_result(model: str, scene: Gray) -> None:
    network = Network(model)
    for width, height in ((640, 480), (421, 316), (333, 250), (255, 127)):
        picture = np.asarray(cv2.resize(scene, (width, height)), np.uint8)
        exact = cv2.FaceDetectorYN.create(model, "", (width, height), 0.4, 0.3, 100)
        found = exact.detect(cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR))[1]
        np.testing.assert_array_equal(network.faces(picture, 0.4), found)


@pytest.fixture(scope="module")
def scene() -> Gray:
    [frame] = film([Actor(walk((FACE.x, FACE.y, FACE.side), (FACE.x, FACE.y, FACE.side), 1))], 0.04)
    return frame.gray


def turned(picture: Gray, degrees: float) -> Gray:
    """The picture turned clockwise around the face."""
    matrix = cv2.getRotationMatrix2D((FACE.x, FACE.y), -degrees, 1)
    height, width = picture.shape
    return np.asarray(cv2.warpAffine(picture, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE), np.uint8)


class CountingNetwork(Network):
    """The network; it remembers the sides of the pictures that it got."""

    def __init__(self, file: str) -> None:
        super().__init__(file)
        self.sides: list[int] = []

    def faces(self, picture: Gray, score: float) -> list[NDArray[np.float32]]:
        if hasattr(self, "sides"):  # not while the file is tried
            self.sides.append(min(picture.shape))
        return super().faces(picture, score)


@pytest.fixture
def network(detector: Detector) -> CountingNetwork:
    return CountingNetwork(os.environ["YUNET"])


def frames_with_a_pass(detector: Detector, pictures: Iterable[tuple[Gray, float]]) -> list[float]:
    """The times at which the detector finds the face, which nobody remembers."""
    found = []
    for picture, now in pictures:
        pyramid = Pyramid(picture)
        detector.begin_frame(pyramid, now, ())
        if detector.search(pyramid):
            found.append(now)
    return found


def test_a_new_face_is_detected_in_the_first_frame(detector: Detector, scene: Gray) -> None:
    fresh, pyramid = detector.for_new_source(), Pyramid(scene)
    fresh.begin_frame(pyramid, 0.0, ())
    [found] = fresh.search(pyramid)
    assert found.clear
    assert found.square.overlap(FACE) > 0.65
    assert abs(found.square.roll) < 6


def test_a_known_face_is_not_reported_as_new(detector: Detector, scene: Gray) -> None:
    fresh, pyramid = detector.for_new_source(), Pyramid(scene)
    fresh.begin_frame(pyramid, 0.0, [FACE])
    assert fresh.search(pyramid) == []


def test_a_known_face_is_detected_again_near_where_it_was(detector: Detector, scene: Gray) -> None:
    found = detector.check(Pyramid(scene), Square(310, 212, 90), tentative=False, misses=0)
    assert found
    assert found.square.overlap(FACE) > 0.65
    assert detector.check(Pyramid(scene), Square(80, 80, 90), tentative=False, misses=0) is None


def test_a_known_face_costs_one_small_patch_and_a_missed_one_one_patch_a_check(
    network: CountingNetwork, scene: Gray
) -> None:
    detector = YuNetDetector(settings(os.environ["YUNET"]), network)
    there, empty = Pyramid(scene), Pyramid(EMPTY)
    assert detector.check(there, FACE, tentative=False, misses=0)
    assert network.sides == [64]
    assert detector.check(empty, FACE, tentative=False, misses=0) is None
    assert network.sides[1:] == [64, 96]
    for misses in range(1, 9):
        network.sides.clear()
        assert detector.check(empty, FACE, tentative=False, misses=misses) is None
        assert network.sides == [96]


@pytest.mark.parametrize("degrees", [-60.0, 60.0])
def test_a_known_head_that_suddenly_leans_is_found_within_four_checks(
    detector: Detector, scene: Gray, degrees: float
) -> None:
    pyramid = Pyramid(turned(scene, degrees))
    found = [detector.check(pyramid, FACE, tentative=False, misses=misses) for misses in range(4)]
    assert any(found)


@pytest.mark.parametrize("degrees", [-40.0, 40.0])
def test_a_leaning_head_is_found_by_one_turned_patch(network: CountingNetwork, scene: Gray, degrees: float) -> None:
    detector, pyramid = YuNetDetector(settings(os.environ["YUNET"]), network), Pyramid(turned(scene, degrees))
    detector.begin_frame(pyramid, 0.0, ())
    [found] = detector.search(pyramid)
    assert found.clear
    assert network.sides[1:] in ([96], [96, 96])


def test_a_doubtful_face_is_the_known_one_only_where_that_is_expected(
    model: str, detector: Detector, scene: Gray
) -> None:
    blurred = Pyramid(np.asarray(cv2.GaussianBlur(scene, (0, 0), 7.8), np.uint8))
    beside = replace(FACE, y=FACE.y - 35)
    for expected in (FACE, beside):
        patch = blurred.cut(replace(expected, side=2.3 * expected.side), 96)
        [face] = Network(model).faces(patch, 0.5)
        assert face[14] < 0.6, "the network doubts it, but not too much for a known face"
    found = detector.check(blurred, FACE, tentative=False, misses=0)
    assert found
    assert found.square.overlap(FACE) > 0.65
    assert detector.check(blurred, beside, tentative=False, misses=0) is None
    assert detector.check(Pyramid(scene), beside, tentative=False, misses=0), "a face without doubt is found there too"


@pytest.mark.parametrize("degrees", [-50.0, -20.0, 20.0, 50.0])
def test_a_leaning_head_is_detected(detector: Detector, scene: Gray, degrees: float) -> None:
    found = detector.check(Pyramid(turned(scene, degrees)), FACE, tentative=True, misses=0)
    assert found
    assert found.square.overlap(FACE) > 0.6
    assert -10 < found.square.roll * np.sign(degrees) < abs(degrees) + 12


def test_a_head_that_leans_far_is_found_because_the_patch_is_turned(detector: Detector, scene: Gray) -> None:
    found = detector.check(Pyramid(turned(scene, 65)), FACE, tentative=True, misses=0)
    assert found
    assert found.square.roll == pytest.approx(65, abs=35)


@pytest.mark.parametrize("degrees", [-45.0, -30.0, -15.0, 0.0, 15.0, 30.0, 45.0])
def test_the_roll_of_a_head_is_measured(detector: Detector, scene: Gray, degrees: float) -> None:
    pose = detector.pose(Pyramid(turned(scene, degrees)), FACE)
    assert pose
    assert pose.roll == pytest.approx(degrees, abs=10)
    assert pose.yaw < 40


def test_what_is_no_face_has_no_pose(detector: Detector, scene: Gray) -> None:
    assert detector.pose(Pyramid(scene), Square(80, 80, 90)) is None


def test_what_does_not_change_is_searched_every_two_seconds(detector: Detector, scene: Gray) -> None:
    found = frames_with_a_pass(detector.for_new_source(), ((scene, n / 25) for n in range(151)))
    assert found[0] == 0.0
    assert found[-1] >= 4.0
    assert max(np.diff(found)) <= 2.01
    assert sum(time > 2.5 for time in found) <= 3


def test_a_face_that_comes_is_searched_at_once(detector: Detector, scene: Gray) -> None:
    fresh = detector.for_new_source()
    found = frames_with_a_pass(fresh, ((EMPTY if n < 90 else scene, n / 25) for n in range(100)))
    assert found[0] == pytest.approx(90 / 25, abs=0.1)


def test_where_everything_changes_the_frame_is_searched_every_0_4_seconds(detector: Detector) -> None:
    actor = Actor(walk((FACE.x, FACE.y, FACE.side), (FACE.x, FACE.y, FACE.side), 1))
    [frame] = film([actor], 0.04)
    light = np.where(np.indices(frame.gray.shape).sum(axis=0) // 60 % 2, 1.0, 0.7)
    changing = [frame.gray, (frame.gray * light).astype(np.uint8), (frame.gray * light[:, ::-1]).astype(np.uint8)]
    found = frames_with_a_pass(detector.for_new_source(), ((changing[n % 3], n / 25) for n in range(50)))
    assert found[0] == 0.0
    assert np.diff(found) == pytest.approx(0.4, abs=0.001)


def test_a_face_that_comes_just_after_a_search_waits_for_the_next_one(detector: Detector, scene: Gray) -> None:
    fresh = detector.for_new_source()
    found = frames_with_a_pass(
        fresh, ((255 - EMPTY if n == 0 else EMPTY if n < 4 else scene, n / 25) for n in range(11))
    )
    assert found[0] == pytest.approx(0.4)


def test_an_empty_room_has_no_faces(detector: Detector) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (240, 320), np.uint8)
    assert detector.detect(EMPTY) == detector.detect(noise) == []


def test_a_frame_that_is_too_small_is_not_searched_and_the_next_one_is(detector: Detector, scene: Gray) -> None:
    fresh = detector.for_new_source()
    assert frames_with_a_pass(fresh, [(scene[:20, :40], 0.0), (scene[:27, :40], 0.5), (scene, 1.0)]) == [1.0]


def test_yunet_without_a_model_says_so() -> None:
    with pytest.raises(SettingsError, match=r"detect\.model is empty.*docs/detectors\.md"):
        open_detector(settings(""))


@pytest.mark.parametrize(
    "content", [b"", b"version https://git-lfs.github.com/spec/v1\n", b"\x08\x07\x12\x04none", None]
)
def test_a_model_that_is_none_says_so(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "yunet.onnx"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError, match=r"detect\.model: .*yunet\.onnx is (not YuNet|missing)"):
        open_detector(settings(str(file)))
