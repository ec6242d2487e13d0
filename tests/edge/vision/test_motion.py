import numpy as np
import pytest
from numpy.typing import NDArray

from edge.records import Gray, Square
from edge.vision.motion import MotionDetector
from edge.vision.pyramid import Pyramid

WHOLE = [(0, 0, 640, 480)]


@pytest.fixture(scope="module")
def room() -> NDArray[np.float64]:
    rng = np.random.default_rng(3)
    coarse = rng.uniform(60, 180, (30, 40))
    return np.kron(coarse, np.ones((16, 16)))


def shot(room: NDArray[np.float64], seed: int, noise: float = 5.0) -> Gray:
    rng = np.random.default_rng(seed)
    return np.clip(room + rng.normal(0, noise, room.shape), 0, 255).astype(np.uint8)


def changed(motion: MotionDetector, picture: Gray, *known: Square) -> list[tuple[int, int, int, int]]:
    motion.update(Pyramid(picture))
    return motion.changed(known)


def watching(room: NDArray[np.float64]) -> MotionDetector:
    motion = MotionDetector()
    assert changed(motion, shot(room, 0)) == WHOLE, "nothing has been searched yet"
    motion.mark_searched(WHOLE)
    return motion


@pytest.mark.parametrize("noise", [0.0, 5.0, 12.0])
def test_sensor_noise_is_no_change(room: NDArray[np.float64], noise: float) -> None:
    motion = watching(room)
    assert [changed(motion, shot(room, seed, noise)) for seed in range(1, 10)] == [[]] * 9


def test_flicker_and_exposure_are_no_change(room: NDArray[np.float64]) -> None:
    motion = watching(room)
    for seed in range(1, 10):
        bands = 1 + 0.06 * np.sin(2 * np.pi * (np.arange(480) / 240 + seed / 7))
        assert changed(motion, shot(room * bands[:, None], seed)) == []
    assert changed(motion, shot(room * 0.75, 1)) == []


def test_a_visitor_is_a_change_until_the_area_was_searched(room: NDArray[np.float64]) -> None:
    motion = watching(room)
    with_visitor = room.copy()
    with_visitor[200:300, 400:480] = np.kron([[90, 200], [40, 120]], np.ones((50, 40)))
    [area] = changed(motion, shot(with_visitor, 1))
    left, top, right, bottom = area
    assert left <= 400
    assert top <= 200
    assert right >= 480
    assert bottom >= 300
    motion.mark_searched([area])
    assert changed(motion, shot(with_visitor, 2)) == []
    assert len(changed(motion, shot(room, 3))) == 1, "leaving is a change too"


def test_a_known_face_and_its_body_are_expected_to_move(room: NDArray[np.float64]) -> None:
    motion = watching(room)
    with_visitor = room.copy()
    with_visitor[100:460, 300:440] = np.kron(np.eye(2) * 150, np.ones((180, 70)))
    assert changed(motion, shot(with_visitor, 1), Square(370, 160, 100)) == []


def test_another_size_of_picture_is_a_change(room: NDArray[np.float64]) -> None:
    motion = watching(room)
    assert changed(motion, shot(room[:240, :320], 1)) == [(0, 0, 320, 240)]


def test_so_is_a_size_that_differs_by_a_few_pixels(room: NDArray[np.float64]) -> None:
    """What is planned for the old size is given up (edge.vision.search), so none of it counts as searched."""
    motion = watching(room)
    assert changed(motion, shot(np.pad(room, ((0, 1), (0, 3)), "edge"), 1)) == WHOLE
