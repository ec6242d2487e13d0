from collections.abc import Iterator

import numpy as np
import pytest

from edge.records import Gray, Square
from edge.settings import DetectSettings
from edge.vision.pyramid import Pyramid
from edge.vision.search import WINDOW, SearchRegion, SearchScheduler

FULL_SCAN_SECONDS, SMALL_SCAN_SECONDS = 2.0, 20.0


def still(seed: int) -> Gray:
    rng = np.random.default_rng(seed)
    return np.clip(rng.normal(0, 3, (480, 640)) + np.linspace(60, 180, 640), 0, 255).astype(np.uint8)


PICTURES = [still(seed) for seed in range(3)]


def regions_of_frame(search: SearchScheduler, picture: Gray, now: float) -> list[SearchRegion]:
    search.begin_frame(Pyramid(picture), now, ())
    return list(iter(search.next_region, None))


def search_still_scene(search: SearchScheduler, fps: float, seconds: float) -> list[tuple[float, list[SearchRegion]]]:
    """The time of each frame and the regions that are searched in it."""
    frames = range(round(seconds * fps))
    return [(n / fps, regions_of_frame(search, PICTURES[n % 3], n / fps)) for n in frames]


def moving_scene(frames: int) -> Iterator[tuple[Gray, float]]:
    """Pictures that change everywhere, at 30 frames a second."""
    rng = np.random.default_rng(1)
    for n in range(frames):
        yield np.kron(rng.integers(0, 256, (30, 40), np.uint8), np.ones((16, 16), np.uint8)), n / 30


def covers(region: SearchRegion, face: Square) -> bool:
    """Whether the region has a window on the face: near it in size and position."""
    same_size = 0.85 < region.side / face.side < 1.18
    inside = [
        first <= middle - face.side / 2 + 1 and middle + face.side / 2 - 1 <= last
        for middle, (first, last) in ((face.x, region.columns), (face.y, region.rows))
    ]
    return same_size and all(inside)


PLACES = [
    Square(x, y, side)
    for side in (62.0, 90.0, 150.0, 300.0)
    for x in (side / 2, 320.0, 640 - side / 2)
    for y in (side / 2, 240.0, 480 - side / 2)
]


@pytest.mark.parametrize("fps", [1.0, 5.0, 30.0])
def test_each_place_is_searched_every_two_seconds_though_nothing_moves(fps: float) -> None:
    frames = search_still_scene(SearchScheduler(DetectSettings()), fps, 7)
    for face in PLACES:
        times = [time for time, regions in frames if any(covers(region, face) for region in regions)]
        gaps = np.diff([0.0, *times, 7.0 - 1 / fps])
        assert max(gaps) <= FULL_SCAN_SECONDS, face


def test_small_faces_are_searched_every_twenty_seconds_though_nothing_moves() -> None:
    small = [Square(x, y, 30.0) for x in (15.0, 320.0, 625.0) for y in (15.0, 240.0, 465.0)]
    frames = search_still_scene(SearchScheduler(DetectSettings(min_face=0.05)), 5, 61)
    for face in small:
        times = [time for time, regions in frames if any(covers(region, face) for region in regions)]
        assert max(np.diff([*times, 61.0 - 1 / 5])) <= SMALL_SCAN_SECONDS, face
        assert sum(time > 10 for time in times) <= 9, "three scans, of which each has two or three sizes near enough"


def test_a_still_scene_costs_less_than_a_thirtieth_of_a_full_scan_a_frame() -> None:
    frames = search_still_scene(SearchScheduler(DetectSettings()), 30, 10)
    full_scan = sum(region.windows for region in frames[0][1])
    # Until then, what is searched again and again is the first frame, all of which was new.
    later = [sum(region.windows for region in regions) for time, regions in frames if time > 2.5]
    assert full_scan > 20_000, "the whole first frame is searched"
    assert np.mean(later) < full_scan / 30
    assert max(later) < full_scan / 5, "later full scans are spread over frames"


def test_the_cost_stays_within_the_budget_while_everything_moves() -> None:
    search = SearchScheduler(DetectSettings(budget_ms=6.0))
    spent = [
        sum(region.windows for region in regions_of_frame(search, picture, now)) for picture, now in moving_scene(60)
    ]
    assert np.mean(spent[10:]) == pytest.approx(6000, rel=0.25)


def test_large_faces_do_not_wait_for_the_search_for_small_ones() -> None:
    search, times = SearchScheduler(DetectSettings(min_face=0.05)), []
    for picture, now in moving_scene(60):
        if any(region.side > 100 for region in regions_of_frame(search, picture, now)):
            times.append(now)
    assert max(np.diff(times)) < 0.25
    sides = [region.side for picture, now in moving_scene(60) for region in regions_of_frame(search, picture, 2 + now)]
    assert min(sides) < 30, "and small ones are searched nevertheless"


def test_large_faces_leave_most_of_the_budget_to_small_ones_while_everything_moves() -> None:
    search, spent = SearchScheduler(DetectSettings(min_face=0.05)), {"large": 0, "small": 0}
    for picture, now in moving_scene(60):
        for region in regions_of_frame(search, picture, now):
            spent["large" if region.side >= 0.12 * 480 else "small"] += region.windows
    assert 0.15 < spent["large"] / sum(spent.values()) < 0.3


def test_after_much_movement_the_full_scan_begins_at_its_pace() -> None:
    search = SearchScheduler(DetectSettings())
    for picture, now in moving_scene(90):
        regions_of_frame(search, picture, now)
    search.spend(10_000_000)  # only the full scans go on
    later = [(3 + n / 30, regions_of_frame(search, PICTURES[n % 3], 3 + n / 30)) for n in range(150)]
    assert max(sum(region.windows for region in regions) for _, regions in later) < 12_000
    for face in PLACES:
        times = [time for time, regions in later if any(covers(region, face) for region in regions)]
        assert max(np.diff([3.5, *times, 8.0])) <= FULL_SCAN_SECONDS, face


def test_the_cost_of_proposals_is_taken_from_the_budget() -> None:
    costly, cheap = SearchScheduler(DetectSettings()), SearchScheduler(DetectSettings())
    counts = [0, 0]
    for picture, now in moving_scene(30):
        for index, search in enumerate((costly, cheap)):
            counts[index] += len(regions_of_frame(search, picture, now))
        costly.spend(10_000)
    assert counts[0] < 0.7 * counts[1]


def test_the_same_frames_are_searched_in_the_same_regions() -> None:
    first, second = (search_still_scene(SearchScheduler(DetectSettings()), 10, 3) for _ in range(2))
    assert first == second


def scene_of(size: tuple[int, int], seed: int) -> Gray:
    return np.random.default_rng(seed).integers(0, 256, size[::-1], np.uint8)


def test_frames_of_another_size_are_searched_within_their_own_edges() -> None:
    search = SearchScheduler(DetectSettings(min_face=0.05))
    pictures = (scene_of((1280, 960), 1), scene_of((640, 480), 2))
    for n, picture in enumerate(pictures * 10):
        regions = regions_of_frame(search, picture, n / 5)
        assert all(r.rows[1] <= picture.shape[0] and r.columns[1] <= picture.shape[1] for r in regions)
        assert any(r.side > 0.5 * min(picture.shape) for r in regions), (
            "a new size is searched at once, large faces first"
        )


def test_when_frames_become_larger_what_was_planned_for_small_ones_is_dropped() -> None:
    search = SearchScheduler(DetectSettings(min_face=0.05))
    small, large = scene_of((640, 480), 1), scene_of((1280, 960), 2)
    for n in range(10):
        regions_of_frame(search, small, n / 30)
    later = [region for n in range(10, 700) for region in regions_of_frame(search, large, n / 30)]
    assert min(region.side for region in later) >= 0.05 * 960
    assert max(region.columns[1] for region in later) == 1280


def test_a_new_size_does_not_hasten_the_full_scan() -> None:
    """Pictures of all sizes would else be searched as a whole, a second each."""
    search = SearchScheduler(DetectSettings(min_face=0.05))
    pictures = [scene_of((1280, 960), 1), scene_of((640, 480), 2)]
    spent = [
        sum(region.windows for region in regions_of_frame(search, pictures[n % 2], 60 + n / 15)) for n in range(40)
    ]
    assert np.mean(spent[10:]) < 1.25 * 15_500


def test_regions_are_within_the_frame_and_have_a_window() -> None:
    for _, regions in search_still_scene(SearchScheduler(DetectSettings(min_face=0.05)), 10, 3):
        for region in regions:
            assert 0 <= region.rows[0] < region.rows[1] <= 480
            assert 0 <= region.columns[0] < region.columns[1] <= 640
            assert region.windows > 0
            assert region.side >= WINDOW
