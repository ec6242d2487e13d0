from edge.records import Box
from edge.settings import Track
from edge.tracks import Tracker


def ids(tracker: Tracker, boxes: list[Box], now: float) -> list[int]:
    return [track.id for track in tracker.update(boxes, now)]


LEFT, RIGHT = Box(10, 10, 50, 50), Box(200, 10, 60, 60)


def test_a_face_is_a_track_only_when_found_in_a_row() -> None:
    tracker = Tracker(Track(min_hits=3))
    found = [ids(tracker, [LEFT], 0.0), ids(tracker, [LEFT], 0.1), ids(tracker, [], 0.2)]
    found += [ids(tracker, [LEFT], 0.3 + 0.1 * n) for n in range(3)]
    assert found == [[], [], [], [], [], [1]]


def test_a_moving_face_keeps_its_id_and_a_second_one_gets_another() -> None:
    tracker = Tracker(Track(min_hits=1))
    for step in range(20):
        boxes = [Box(10 + 8 * step, 10, 50, 50)]
        assert ids(tracker, boxes, step / 10) == [1]
    assert ids(tracker, [Box(160, 10, 50, 50), Box(400, 10, 50, 50)], 2.0) == [1, 2]


def test_a_face_survives_missed_detections_but_not_longer_than_lost_after() -> None:
    tracker = Tracker(Track(min_hits=1, lost_after=1.0))
    assert ids(tracker, [LEFT], 0.0) == [1]
    [kept] = tracker.update([], 0.9)
    assert (kept.id, kept.seen) == (1, 0.0)
    assert ids(tracker, [], 1.0) == []
    assert ids(tracker, [LEFT], 1.1) == [2]


def test_each_face_takes_the_box_that_overlaps_it_most() -> None:
    tracker = Tracker(Track(min_hits=1))
    tracker.update([LEFT, RIGHT], 0.0)
    shifted = [Box(195, 12, 60, 60), Box(20, 12, 50, 50)]
    assert {track.id: track.box.x for track in tracker.update(shifted, 0.1)} == {1: 20, 2: 195}


def test_at_most_max_faces_are_followed() -> None:
    tracker = Tracker(Track(min_hits=1, max_faces=2))
    boxes = [Box(100 * n, 0, 50, 50) for n in range(4)]
    assert ids(tracker, boxes, 0.0) == [1, 2]


def test_overlap_is_intersection_over_union() -> None:
    assert Box(0, 0, 10, 10).overlap(Box(5, 0, 10, 10)) == 50 / 150
    assert Box(0, 0, 10, 10).overlap(Box(10, 0, 10, 10)) == 0.0
