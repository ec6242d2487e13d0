import numpy as np
import pytest

from edge.records import Gray, Square
from edge.settings import DetectSettings
from edge.vision.pyramid import Pyramid
from edge.vision.search import WINDOW, SearchRegion, SearchScheduler

FULL_SCAN_SECONDS = 2.0


def still(seed: int) -> Gray:
    rng = np.random.default_rng(seed)
    return np.clip(rng.normal(0, 3, (480, 640)) + np.linspace(60, 180, 640), 0, 255).astype(np.uint8)


PICTURES = [still(seed) for seed in range(3)]


def watch(
    search: SearchScheduler, fps: float, seconds: float, begin: float = 0.0
) -> list[tuple[float, list[SearchRegion]]]:
    frames = range(round(seconds * fps))
    return [(begin + n / fps, list(search.regions(Pyramid(PICTURES[n % 3]), begin + n / fps, ()))) for n in frames]


def holds(region: SearchRegion, face: Square) -> bool:
    """Whether the strip has a window on the face: near it in size and place."""
    alike = 0.85 < region.side / face.side < 1.18
    inside = [
        first <= middle - face.side / 2 + 1 and middle + face.side / 2 - 1 <= last
        for middle, (first, last) in ((face.x, region.columns), (face.y, region.rows))
    ]
    return alike and all(inside)


PLACES = [
    Square(x, y, side)
    for side in (62.0, 90.0, 150.0, 300.0)
    for x in (side / 2, 320.0, 640 - side / 2)
    for y in (side / 2, 240.0, 480 - side / 2)
]


@pytest.mark.parametrize("fps", [1.0, 5.0, 30.0])
def test_each_place_is_looked_at_every_two_seconds_though_nothing_moves(fps: float) -> None:
    looked = watch(SearchScheduler(DetectSettings()), fps, 7)
    for face in PLACES:
        times = [time for time, regions in looked if any(holds(region, face) for region in regions)]
        gaps = np.diff([0.0, *times, 7.0 - 1 / fps])
        assert max(gaps) <= FULL_SCAN_SECONDS, face


def test_a_room_in_which_nothing_moves_costs_a_fiftieth_of_one_scan_a_frame() -> None:
    looked = watch(SearchScheduler(DetectSettings()), 30, 10)
    scan = sum(region.windows for region in looked[0][1])
    rest = [sum(region.windows for region in regions) for time, regions in looked if time > 2]
    assert scan > 20_000, "the first frame is looked at as a whole"
    assert np.mean(rest) < scan / 30
    assert max(rest) < scan / 5, "and the sweep is spread"


def test_what_is_spent_stays_within_the_budget_while_everything_moves() -> None:
    search = SearchScheduler(DetectSettings(budget_ms=6.0))
    rng = np.random.default_rng(1)
    spent = []
    for n in range(60):
        picture = np.kron(rng.integers(0, 256, (30, 40), np.uint8), np.ones((16, 16), np.uint8))
        spent.append(sum(region.windows for region in search.regions(Pyramid(picture), n / 30, ())))
    assert np.mean(spent[10:]) == pytest.approx(6000, rel=0.25)


def test_what_a_proposal_costs_is_taken_from_the_budget() -> None:
    costly, cheap = SearchScheduler(DetectSettings()), SearchScheduler(DetectSettings())
    rng = np.random.default_rng(1)
    counts = [0, 0]
    for n in range(30):
        picture = np.kron(rng.integers(0, 256, (30, 40), np.uint8), np.ones((16, 16), np.uint8))
        for index, search in enumerate((costly, cheap)):
            counts[index] += len(list(search.regions(Pyramid(picture), n / 30, ())))
        costly.spend(10_000)
    assert counts[0] < 0.7 * counts[1]


def test_the_same_frames_are_looked_at_in_the_same_places() -> None:
    assert watch(SearchScheduler(DetectSettings()), 10, 3) == watch(SearchScheduler(DetectSettings()), 10, 3)


def test_strips_are_within_the_frame_and_hold_a_window() -> None:
    for _, regions in watch(SearchScheduler(DetectSettings(min_face=0.05, width=640)), 10, 3):
        for region in regions:
            assert 0 <= region.rows[0] < region.rows[1] <= 480
            assert 0 <= region.columns[0] < region.columns[1] <= 640
            assert region.windows > 0
            assert region.side >= WINDOW
