"""Counting tracks against the ground truth, on hand-made frames."""

from edge.bench.ground_truth import FaceTruth
from edge.bench.scoring import DetectionCounts, Scorer, assign
from edge.records import Box, Track

LEFT, RIGHT = (0, 0, 100, 100), (300, 0, 100, 100)


def face(person: int, box: tuple[int, int, int, int] = LEFT, visible: float = 1.0) -> FaceTruth:
    return FaceTruth(person, box, visible)


def track(number: int, box: tuple[int, int, int, int] = LEFT) -> Track:
    return Track(number, Box(*box), 0.0)


def count(*frames: tuple[list[Track], list[FaceTruth]]) -> DetectionCounts:
    scorer = Scorer()
    for tracks, faces in frames:
        scorer.add(tracks, faces)
    return scorer.counts()


def test_a_face_with_a_track_is_found_and_one_without_is_missed() -> None:
    counts = count(([track(1)], [face(1), face(2, RIGHT)]))
    assert (counts.faces, counts.found, counts.recall, counts.false) == (2, 1, 0.5, 0)


def test_a_track_that_overlaps_too_little_is_false_and_its_face_is_missed() -> None:
    counts = count(([track(1, (40, 0, 100, 100))], [face(1)]))  # IoU 60 / 140
    assert (counts.found, counts.false, counts.false_share) == (0, 1, 1.0)


def test_two_tracks_at_one_face_find_it_once_and_neither_is_false() -> None:
    counts = count(([track(1), track(2, (5, 0, 100, 100))], [face(1)]))
    assert (counts.found, counts.tracked, counts.false) == (1, 2, 0)


def test_a_face_that_is_hardly_visible_is_neither_missed_nor_false() -> None:
    assert count(([], [face(1, visible=0.4)])).faces == 0
    followed = count(([track(1)], [face(1, visible=0.4)]))
    assert (followed.faces, followed.found, followed.false) == (0, 0, 0)


def test_a_new_id_for_the_same_person_is_a_switch_even_after_a_gap() -> None:
    assert count(([track(1)], [face(1)]), ([], [face(1)]), ([track(2)], [face(1)])).switches == 1


def test_the_same_id_after_a_gap_is_no_switch() -> None:
    assert count(([track(1)], [face(1)]), ([], [face(1)]), ([track(1)], [face(1)])).switches == 0


def test_ids_that_change_places_are_two_switches() -> None:
    faces = [face(1, LEFT), face(2, RIGHT)]
    before, after = [track(1, LEFT), track(2, RIGHT)], [track(1, RIGHT), track(2, LEFT)]
    assert count((before, faces), (after, faces), (after, faces)).switches == 2


def test_an_id_that_moves_to_another_person_is_no_switch_of_hers() -> None:
    assert count(([track(1)], [face(1)]), ([track(1)], [face(2)])).switches == 0


def test_a_person_keeps_her_track_although_another_one_overlaps_more() -> None:
    faces = [face(1)]
    boxes = {1: Box(20, 0, 100, 100), 2: Box(0, 0, 100, 100)}
    assert assign(boxes, faces, {}) == {1: 2}
    assert assign(boxes, faces, {1: 1}) == {1: 1}
    assert count(([track(1)], faces), ([track(2), track(1, (20, 0, 100, 100))], faces)).switches == 0


def test_a_track_that_outlives_its_person_lingers_and_one_that_never_had_any_is_a_phantom() -> None:
    counts = count(([track(1), track(2, RIGHT)], [face(1)]), ([track(1), track(2, RIGHT)], []))
    assert (counts.false, counts.lingering) == (3, 1)
    assert (counts.tracks, counts.phantoms) == (2, 1)


def test_the_counts_of_two_clips_add_up() -> None:
    one = count(([track(1)], [face(1)]))
    assert one + one == DetectionCounts(faces=2, found=2, tracked=2, tracks=2)
