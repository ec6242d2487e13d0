import numpy as np

from edge.records import Box, Pose, Square, Track
from edge.settings import DetectSettings
from edge.vision.haar import HaarDetector
from edge.vision.poses import PoseKeeper
from edge.vision.pyramid import Pyramid

PICTURE = Pyramid(np.zeros((100, 300), np.uint8))
TRACKS = [Track(number, Box(100 * number, 10, 50, 50), 0.0) for number in range(3)]


class LeaningHeads(HaarDetector):
    """Each head leans by ten degrees more than when it was asked for before."""

    def __init__(self) -> None:
        super().__init__(DetectSettings())
        self.asked: list[float] = []

    def pose(self, pyramid: Pyramid, square: Square) -> Pose | None:
        self.asked.append(square.x)
        return Pose(square.roll + 10)


def test_one_head_a_second_is_measured_in_turn() -> None:
    poses, detector = PoseKeeper(), LeaningHeads()
    for n in range(81):
        poses.update(detector, PICTURE, TRACKS, n / 20)
    assert detector.asked == [25, 125, 225, 25, 125]
    assert [poses.of(track) for track in TRACKS] == [Pose(20), Pose(20), Pose(10)]


def test_who_leaves_is_forgotten_and_who_was_not_measured_is_upright() -> None:
    poses, detector = PoseKeeper(), LeaningHeads()
    poses.update(detector, PICTURE, TRACKS[:1], 0.0)
    assert poses.of(TRACKS[0]) == Pose(10)
    poses.update(detector, PICTURE, TRACKS[1:], 0.1)
    assert [poses.of(track) for track in TRACKS] == [Pose(), Pose(), Pose()]


def test_a_detector_that_cannot_tell_changes_nothing() -> None:
    poses = PoseKeeper()
    poses.update(HaarDetector(DetectSettings()), PICTURE, TRACKS, 0.0)
    assert poses.of(TRACKS[0]) == Pose()
