"""The tracker on rendered frames with made-up detections: its behaviour does not depend on the cascade."""

from collections.abc import Sequence

import numpy as np
import pytest

from edge.records import Box, Frame, Square, Track
from edge.settings import TrackSettings as Settings
from edge.vision.detection import Detection
from edge.vision.pyramid import Pyramid
from edge.vision.tracker import Tracker
from tests.edge.stage import Actor, film, walk


def square(x: float, y: float, side: float) -> Square:
    return Square(x, y, side)


def step(tracker: Tracker, frame: Frame, *detections: Detection) -> list[Track]:
    """Process one frame: faces that are due are checked, and the detections are what the test says."""
    pyramid = Pyramid(frame.gray)
    tracker.follow(pyramid, frame.time)
    for face in tracker.due_for_check():
        tracker.mark_checked(face)
    tracker.update(detections, pyramid)
    return tracker.tracks(pyramid.size)


def clear(actor: Actor, time: float) -> Detection:
    place = actor.path(time)
    assert place
    return Detection(Square(*place), 20, clear=True)


def unclear(actor: Actor, time: float) -> Detection:
    return Detection(clear(actor, time).square, 6)


STANDING = Actor(walk((200, 200, 100), (200, 200, 100), 1))
WALKING = Actor(walk((120, 200, 100), (500, 210, 110), 3))


def test_a_clear_detection_is_a_track_at_once() -> None:
    [frame] = film([STANDING], 0.04)
    [track] = step(Tracker(Settings()), frame, clear(STANDING, 0))
    assert track == Track(1, Box(150, 150, 100, 100), 0.0)


def test_a_tentative_face_must_be_detected_in_most_frames_to_be_confirmed() -> None:
    frames = list(film([STANDING], 1))
    steady, flickering = Tracker(Settings(min_hits=3)), Tracker(Settings(min_hits=3))
    shown = {}
    for n, frame in enumerate(frames):
        due = n % 2 == 0
        shown["steady"] = step(steady, frame, *([unclear(STANDING, 0)] if due else []))
        if n in (0, 6, 12, 18):
            step(flickering, frame, unclear(STANDING, 0))
        else:
            assert step(flickering, frame) == []
    assert [track.id for track in shown["steady"]] == [1]


@pytest.mark.parametrize("fps", [12, 25])
@pytest.mark.parametrize(("interval", "confirmed"), [(3, True), (4, False)])
def test_a_tentative_face_is_dropped_after_three_misses_in_a_row(fps: float, interval: int, confirmed: bool) -> None:
    tracker = Tracker(Settings(min_hits=3))
    for n, frame in enumerate(film([STANDING], (2 * interval + 1) / fps, fps=fps)):
        tracks = step(tracker, frame, *([unclear(STANDING, 0)] if n % interval == 0 else []))
    assert bool(tracks) == confirmed


@pytest.mark.parametrize(("y", "as_clear", "as_doubtful"), [(420, 1, 3), (440, 2, 6), (40, 1, 3)])
def test_what_overlaps_the_lower_edge_must_be_detected_twice_as_often(y: int, as_clear: int, as_doubtful: int) -> None:
    actor = Actor(walk((200, y, 100), (200, y, 100), 1))
    for detect, needed in ((clear, as_clear), (unclear, as_doubtful)):
        tracker = Tracker(Settings(min_hits=3))
        shown = [bool(step(tracker, frame, detect(actor, 0))) for frame in film([actor], 0.3)]
        assert shown.index(True) + 1 == needed


def test_a_walking_face_is_followed_between_detections() -> None:
    tracker = Tracker(Settings())
    for n, frame in enumerate(film([WALKING], 2)):
        [track] = step(tracker, frame, *([clear(WALKING, frame.time)] if n < 8 or n % 8 == 0 else []))
        true = WALKING.box(frame.time)
        assert true
        assert track.id == 1
        assert track.box.overlap(true) > 0.75, frame.time


def test_checks_that_do_not_find_a_face_are_counted_until_it_is_detected() -> None:
    tracker, misses = Tracker(Settings()), []
    for n, frame in enumerate(film([STANDING], 0.8)):
        step(tracker, frame, *([clear(STANDING, 0)] if n in (0, 19) else []))
        misses.append(tracker.faces[0].misses)
    assert misses[:5] == [0] * 5, "the first check is due after 0.2 seconds"
    assert misses == [*sorted(misses[:19]), 0]
    assert misses[18] >= 3


def test_a_face_out_of_sight_is_checked_in_every_other_frame_for_a_while() -> None:
    tracker, checked = Tracker(Settings()), []
    for frame in film([away_between(0.4, 9.0)], 1.0):
        tracker.follow(Pyramid(frame.gray), frame.time)
        due = tracker.due_for_check()
        checked += [round(frame.time, 2)] * len(due)
        for face in due:
            tracker.mark_checked(face)
        tracker.update([clear(STANDING, 0)] if frame.time == 0 else [], Pyramid(frame.gray))
    assert [time for time in checked if 0.4 <= time < 0.66] == pytest.approx([0.4, 0.48, 0.56, 0.64])


def test_a_face_is_followed_without_detections_until_lost_after() -> None:
    assert shown_until(detected_until=1.2, lost_after=1.0) == pytest.approx(2.2, abs=0.05)


def shown_until(detected_until: float, lost_after: float) -> float:
    """When a face is last shown that is detected until then, and from then on looks as it did."""
    tracker = Tracker(Settings(lost_after=lost_after))
    times = []
    for frame in film([STANDING], detected_until + lost_after + 0.2):
        detections = [clear(STANDING, 0)] if frame.time < detected_until + 0.01 else []
        if step(tracker, frame, *detections):
            times.append(frame.time)
    return times[-1]


@pytest.mark.parametrize("seconds", [0.32, 0.6])
def test_a_face_is_shown_without_detections_no_longer_than_it_was_detected(seconds: float) -> None:
    assert shown_until(detected_until=seconds, lost_after=2.0) == pytest.approx(2 * seconds, abs=0.05)


def test_a_face_whose_place_holds_none_any_more_is_not_shown_and_keeps_its_id() -> None:
    tracker, shown = Tracker(Settings()), {}
    for n, frame in enumerate(film([STANDING], 1.2)):
        pyramid, away = Pyramid(frame.gray), 15 <= n < 25
        tracker.follow(pyramid, frame.time)
        for face in tracker.due_for_check():
            tracker.mark_checked(face, absent=away)
        tracker.update([] if away else [clear(STANDING, 0)], pyramid)
        shown[n] = [track.id for track in tracker.tracks(pyramid.size)]
    assert [n for n, ids in shown.items() if not ids] == list(range(15, 25))
    assert shown[29] == [1]


def away_between(begin: float, end: float) -> Actor:
    return Actor(lambda time: None if begin <= time < end else (200 + 20 * time, 200, 100))


@pytest.mark.parametrize(("away", "expected"), [(0.8, 1), (1.3, 2)])
def test_a_face_out_of_sight_is_not_shown_and_keeps_its_id_if_it_is_back_in_time(away: float, expected: int) -> None:
    actor = away_between(1.0, 1.0 + away)
    tracker = Tracker(Settings(lost_after=1.0))
    for n, frame in enumerate(film([actor], 2.8)):
        there = actor.path(frame.time) is not None
        tracks = step(tracker, frame, *([clear(actor, frame.time)] if there and n % 4 == 0 else []))
        if 1.0 <= frame.time < 1.0 + away:
            assert tracks == []
            assert tracker.ids == ([1] if frame.time < 1.95 else tracker.ids)
    assert [track.id for track in tracks] == [expected]


def test_a_walking_face_is_found_again_without_a_detection_where_its_way_leads() -> None:
    """Out of sight for a moment, as behind a pillar."""
    actor = Actor(lambda time: None if 0.8 <= time < 1.04 else (100 + 250 * time, 200, 100))
    tracker = Tracker(Settings())
    shown = {}
    for n, frame in enumerate(film([actor], 1.2)):
        tracks = step(tracker, frame, *([clear(actor, frame.time)] if frame.time < 0.8 and n % 2 == 0 else []))
        shown[round(frame.time, 2)] = [track.id for track in tracks]
    assert shown[0.92] == []
    assert shown[1.16] == [1]


def test_a_face_out_of_sight_does_not_hide_another() -> None:
    away, stays = away_between(0.4, 9.0), Actor(walk((480, 200, 100), (480, 200, 100), 1))
    tracker = Tracker(Settings(lost_after=5.0))
    for frame in film([away, stays], 1.0):
        found = [clear(actor, frame.time) for actor in (away, stays) if actor.path(frame.time)]
        tracks = step(tracker, frame, *found)
    assert ([track.id for track in tracks], tracker.ids) == ([2], [1, 2])


def test_a_face_that_leaves_the_picture_is_not_shown_and_can_come_back() -> None:
    actor = Actor(lambda time: (abs(200 * (time - 0.6)), 200, 100))
    tracker = Tracker(Settings())
    for n, frame in enumerate(film([actor], 1.2)):
        place = actor.path(frame.time)
        assert place
        visible = place[0] > 52
        tracks = step(tracker, frame, *([clear(actor, frame.time)] if visible and n % 3 == 0 else []))
        if place[0] < 20:
            assert tracks == [], frame.time
    assert [track.id for track in tracks] == [1]


def test_a_face_that_is_outside_when_frames_become_smaller_is_not_shown() -> None:
    """Outside a frame its border is repeated. Where that is striped, it may look like the face."""
    wide = np.repeat(np.arange(480) // 12 % 2 * 200, 640).reshape(480, 640).astype(np.uint8)
    tracker = Tracker(Settings())
    assert step(tracker, Frame(wide, 0.0), Detection(square(500, 200, 100), 20, clear=True))
    assert step(tracker, Frame(wide[:, :320].copy(), 1 / 30)) == []
    assert tracker.ids == [1], "it is out of sight"


def covered(frame: Frame, share: float) -> Frame:
    """The frame with a grey sheet over so much of the standing face, from its left edge on."""
    gray = frame.gray.copy()
    gray[150:250, 150 : 150 + round(share * 100)] = 110
    return Frame(gray, frame.time)


@pytest.mark.parametrize(("least_similarity", "shown"), [(0.6, [1]), (0.8, [])])
def test_what_the_detector_no_longer_finds_is_shown_as_long_as_it_looks_enough_like_the_face(
    least_similarity: float, shown: list[int]
) -> None:
    tracker = Tracker(Settings(), least_similarity)
    frames = list(film([STANDING], 1.0))
    for frame in frames[:12]:
        step(tracker, frame, clear(STANDING, 0))
    for frame in frames[12:16]:
        tracks = step(tracker, frame)
        assert [track.id for track in tracks] == [1], "it looks as it did when it was detected"
    for frame in frames[16:22]:
        tracks = step(tracker, covered(frame, 0.3))
    assert 0.6 < tracker.faces[0].similarity < 0.8
    assert [track.id for track in tracks] == shown
    assert tracker.ids == [1]
    tracks = step(tracker, frames[22], clear(STANDING, 0))
    assert [track.id for track in tracks] == [1], "it keeps its id"


def crossing(seconds: float = 3.0) -> Sequence[Actor]:
    return (
        Actor(walk((120, 200, 95), (520, 205, 95), seconds), mirrored=True),
        Actor(walk((520, 215, 115), (120, 215, 115), seconds)),
    )


def test_faces_that_cross_keep_their_ids() -> None:
    actors = crossing()
    tracker = Tracker(Settings())
    for n, frame in enumerate(film(actors, 3.0)):
        behind, front = (clear(actor, frame.time) for actor in actors)
        apart = abs(behind.square.x - front.square.x) > 70
        found = [front, behind] if apart else [front]
        tracks = step(tracker, frame, *(found if n % 4 == 0 else []))
        if frame.time == 0:
            before = {track.box.w > 100: track.id for track in tracks}
    after = {track.box.w > 100: track.id for track in tracks}
    assert after == before
    assert len(after) == 2


def test_the_largest_faces_come_first_and_no_more_than_max_faces() -> None:
    [frame] = film([], 0.04)
    places = [square(60 + 120 * n, 240, 40 + 10 * n) for n in range(5)]
    tracks = step(Tracker(Settings(max_faces=2)), frame, *(Detection(place, 20, clear=True) for place in places))
    assert [(track.id, track.box.w) for track in tracks] == [(1, 80), (2, 70)]


def test_a_larger_face_replaces_the_smallest_when_there_are_too_many() -> None:
    frames = list(film([STANDING], 0.16))
    small, middle = Detection(square(60, 300, 50), 20, clear=True), Detection(square(500, 300, 70), 20, clear=True)
    tracker = Tracker(Settings(max_faces=2))
    step(tracker, frames[0], middle, small)
    slightly_larger = Detection(square(350, 400, 60), 20, clear=True)
    step(tracker, frames[1], small, middle, slightly_larger)
    step(tracker, frames[2], small, middle, unclear(STANDING, 0))
    assert tracker.ids == [1, 2], "neither a hardly larger face nor an unclear one replaces it"
    step(tracker, frames[3], small, middle, clear(STANDING, 0))
    assert tracker.ids == [1, 3]


def test_two_detections_of_one_face_are_one_track() -> None:
    [frame] = film([STANDING], 0.04)
    found = [Detection(square(200, 200, 100), 20, clear=True), Detection(square(206, 197, 92), 12, clear=True)]
    assert len(step(Tracker(Settings()), frame, *found)) == 1


def test_overlap_is_intersection_over_union() -> None:
    assert Box(0, 0, 10, 10).overlap(Box(5, 0, 10, 10)) == 50 / 150
    assert Box(0, 0, 10, 10).overlap(Box(10, 0, 10, 10)) == 0.0
    assert square(5, 5, 10).overlap(square(10, 5, 10)) == 50 / 150
    assert square(5, 5, 10).overlap(square(5, 5, 5)) == 0.25
    assert square(5, 5, 10).overlap(square(16, 5, 10)) == 0.0


@pytest.mark.parametrize(("pixels", "still"), [(0.0, True), (1.5, True), (6.0, False)])
def test_a_face_that_does_not_move_is_still(pixels: float, still: bool) -> None:
    tracker = Tracker(Settings(still_seconds=2.0))
    shown = []
    for number in range(60):
        place = (300 + pixels * (number // 10 % 2), 220, 100)
        actor = Actor(walk(place, place, 1))
        [frame] = film([actor], 0.04)
        frame = Frame(frame.gray, number / 20)
        [track] = step(tracker, frame, Detection(square(*place), 20, clear=True))
        shown.append(track.still)
    assert not any(shown[:39])
    assert all(shown[42:]) is still
    assert any(shown) is still
