"""The whole pipeline with the bundled network, against a baseline that scans every frame."""

from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from edge.camera.picture_file import read_gray
from edge.model.loader import open_deployed
from edge.model.preprocessing import crop
from edge.pipeline import STAGES, FrameResult, Pipeline, make_pipeline
from edge.records import Box, Frame, Pose, Square
from edge.settings import DetectSettings, Ignore, QualitySettings, Settings, TrackSettings
from edge.vision.detection import Absence, Detection
from edge.vision.haar import HaarDetector
from edge.vision.pyramid import Pyramid
from tests.conftest import PORTRAIT
from tests.edge.stage import FPS, Actor, film, walk

PEOPLE = (
    Actor(walk((130, 210, 120), (330, 230, 130), 1.6), light=0.9),
    Actor(walk((520, 160, 85), (480, 165, 90), 1.6), mirrored=True),
)


def run(frames: Iterable[Frame], settings: Settings | None = None) -> tuple[Pipeline, list[FrameResult]]:
    pipeline = make_pipeline(settings or Settings(), open_deployed(settings or Settings(), {})[0])
    return pipeline, list(pipeline.run(frames))


@cache
def visit() -> tuple[Frame, ...]:
    return tuple(film(PEOPLE, 1.6))


@cache
def visit_results() -> tuple[Pipeline, list[FrameResult]]:
    return run(visit())


def test_faces_that_the_baseline_detects_have_a_track() -> None:
    cascade = cv2.CascadeClassifier(str(Path(cv2.__file__).parent / "data" / "haarcascade_frontalface_default.xml"))
    found = covered = tracks = false = 0
    for result in visit_results()[1]:
        true = [box for actor in PEOPLE if (box := actor.box(result.frame.time))]
        boxes = [track.box for track in result.tracks]
        tracks += len(boxes)
        false += sum(max(box.overlap(face) for face in true) < 0.5 for box in boxes)
        if round(result.frame.time * FPS) % 4 == 0:
            scanned = [Box(*map(int, face)) for face in cascade.detectMultiScale(result.frame.gray, 1.1, 5)]
            faces = [box for box in scanned if max(box.overlap(face) for face in true) >= 0.5]
            found += len(faces)
            covered += sum(any(box.overlap(face) >= 0.5 for box in boxes) for face in faces)
    assert found >= 16
    assert covered >= 0.97 * found
    assert false <= 0.02 * tracks


def test_the_same_frames_give_the_same_ids_boxes_and_readings() -> None:
    again = run(visit())[1]
    assert [(result.tracks, result.readings) for result in again] == [
        (result.tracks, result.readings) for result in visit_results()[1]
    ]
    assert {track.id for result in again for track in result.tracks} == {1, 2}


def test_everybody_leaves_at_the_last_frame_that_was_seen_whole() -> None:
    pipeline = make_pipeline(Settings(), open_deployed(Settings(), {})[0])
    broken = Frame(np.zeros((480, 640, 3), np.uint8), 9.0)  # in colour
    with pytest.raises(ValueError, match="unpack"):
        list(pipeline.run([*visit(), broken]))
    left = pipeline.finish()
    assert [(change.kind, change.time) for change in left] == [("left", visit()[-1].time)] * 2


def test_each_face_is_classified_at_the_rate_and_faces_take_turns() -> None:
    results = visit_results()[1]
    for face in (1, 2):
        assert sum(face in result.readings for result in results) == pytest.approx(1.6 * 12.5, abs=2)
    assert np.mean([len(result.readings) for result in results]) == pytest.approx(1.0, abs=0.1)


def test_every_stage_has_its_time() -> None:
    pipeline, _ = visit_results()
    assert tuple(pipeline.stage_seconds) == STAGES
    assert all(seconds > 0 for seconds in pipeline.stage_seconds.values())


def test_a_flawed_face_is_followed_and_not_classified() -> None:
    strict = msgspec.structs.replace(Settings(), quality=QualitySettings(min_size=500))
    _, results = run(visit()[:5], strict)
    assert {track.id for track in results[-1].tracks} == {1, 2}
    assert {reading for result in results for reading in result.readings.values()} == {"small"}


def test_a_face_that_comes_where_motion_is_expected_is_detected_within_two_seconds() -> None:
    """A child in front of an adult's body, whose motion is not searched."""
    adult = Actor(walk((320, 120, 90), (320, 120, 90), 1))
    child = Actor(lambda time: (330, 330, 66) if time >= 0.6 else None, mirrored=True)
    _, results = run(film([adult, child], 2.7))
    assert any(track.box.overlap(Box(297, 297, 66, 66)) > 0.5 for track in results[-1].tracks)


def test_an_empty_room_has_no_tracks() -> None:
    _, results = run(film([], 1.0))
    assert all(not result.tracks and not result.readings for result in results)


class ForgetfulDetector(HaarDetector):
    """Sees no face any more where one was, once it is ``forgetful``."""

    forgetful = False

    def check(self, pyramid: Pyramid, square: Square, *, tentative: bool, misses: int) -> Detection | Absence | None:
        return Absence() if self.forgetful else super().check(pyramid, square, tentative=tentative, misses=misses)


def test_where_the_detector_sees_no_face_any_more_none_is_shown() -> None:
    detector = ForgetfulDetector(DetectSettings())
    pipeline = replace(make_pipeline(Settings(), open_deployed(Settings(), {})[0]), detector=detector)
    results = []
    for number, frame in enumerate(film([Actor(walk((300, 220, 100), (300, 220, 100), 1))], 1.2)):
        detector.forgetful = number >= 20
        results.append(pipeline.step(frame))
    assert [len(result.tracks) for result in results[10:20]] == [1] * 10
    assert [(result.tracks, result.hidden) for result in results[-4:]] == [([], [1])] * 4


def test_a_new_source_begins_without_known_faces() -> None:
    pipeline, _ = run(visit()[:3])
    restarted = pipeline.for_new_source(Settings())
    [first, *_] = restarted.run(visit()[:1])
    assert [track.id for track in first.tracks] == [1, 2]
    assert restarted.classifier is pipeline.classifier


@pytest.mark.parametrize("sizes", [((1280, 960), (640, 480)), ((480, 640), (640, 480))])
def test_frames_may_change_their_size(sizes: tuple[tuple[int, int], ...]) -> None:
    """As in a folder of pictures, or when somebody changes a camera's resolution. Each size is watched for a second."""
    portrait = read_gray(PORTRAIT)
    frames = [Frame(np.asarray(cv2.resize(portrait, sizes[n // 15 % 2]), np.uint8), n / 15) for n in range(60)]
    for result in run(frames)[1][10::15]:
        assert len(result.tracks) == 1
    alternating = [Frame(np.asarray(cv2.resize(portrait, sizes[n % 2]), np.uint8), n / 15) for n in range(30)]
    run(alternating)


def test_who_stands_in_an_ignored_part_is_not_tracked_and_the_others_are() -> None:
    left_half = Ignore(left=0.0, top=0.0, width=0.5, height=1.0)
    results = run(visit()[:12], Settings(detect=DetectSettings(ignore=(left_half,))))[1]
    middles = {track.id: track.box.x + track.box.w / 2 for result in results for track in result.tracks}
    assert len(middles) == 1
    assert all(middle > 320 for middle in middles.values())


class LeaningHeads(HaarDetector):
    """A detector for which every head leans."""

    def pose(self, pyramid: Pyramid, square: Square) -> Pose | None:
        return Pose(roll=20.0)


def test_how_a_head_is_held_is_known_from_one_measurement_to_the_next() -> None:
    made = make_pipeline(Settings(), open_deployed(Settings(), {})[0])
    pipeline = replace(made, detector=LeaningHeads(DetectSettings()))
    for frame in list(visit())[:12]:
        first, *_ = pipeline.step(frame).tracks
        assert pipeline.poses.of(first) == Pose(roll=20.0), frame.time


@pytest.mark.parametrize("degrees", [-28.0, 28.0])
def test_a_head_that_leans_is_turned_upright_before_it_is_read(degrees: float) -> None:
    place = (320, 240, 120)

    def leaning(frame: Frame) -> Frame:
        roll = degrees * np.clip((frame.time - 0.2) / 0.6, 0, 1)
        matrix = cv2.getRotationMatrix2D(place[:2], -roll, 1)
        return Frame(np.asarray(cv2.warpAffine(frame.gray, matrix, (640, 480)), np.uint8), frame.time)

    pipeline, results = run(leaning(frame) for frame in film([Actor(walk(place, place, 1))], 1.2))
    [track] = results[-1].tracks
    assert pipeline.poses.of(track).roll == pytest.approx(degrees, abs=12)
    assert results[-1].rolls == {track.id: pipeline.poses.of(track).roll}
    upright, *_, turned = [reading for result in results for reading in result.readings.values()]
    as_it_is = pipeline.classifier.read(crop(results[-1].frame.gray, track.box, pipeline.classifier.card.crop_margin))
    from_turned, from_as_it_is = (np.abs(np.subtract(logits, upright)).max() for logits in (turned, as_it_is))
    assert from_turned < 0.6 * from_as_it_is


def test_a_face_that_does_not_move_is_not_classified() -> None:
    place = (320, 240, 120)
    frames = film([Actor(walk(place, place, 1))], 1.2)
    results = run(frames, Settings(track=TrackSettings(still_seconds=0.4)))[1]
    readings = [(result.frame.time, reading) for result in results for reading in result.readings.values()]
    assert {reading for time, reading in readings if time > 1.0} == {"still"}
    assert not any(reading == "still" for time, reading in readings if time < 0.4)


def test_in_the_dark_faces_are_found_and_read_as_in_the_light() -> None:
    rng = np.random.default_rng(3)
    dark = [
        Frame(np.rint(0.08 * frame.gray + 0.8 * rng.standard_normal(frame.gray.shape)).clip(0).astype(np.uint8), at)
        for frame in visit()[:20]
        for at in [frame.time]
    ]
    results, lit = run(dark)[1], visit_results()[1]
    assert {track.id for track in results[-1].tracks} == {1, 2}
    read = [reading for result in results for reading in result.readings.values()]
    assert not any(isinstance(reading, str) for reading in read)
    likeliest = {int(np.argmax(reading)) for reading in read}
    assert likeliest == {int(np.argmax(reading)) for result in lit for reading in result.readings.values()}
    assert not any(result.too_dark for result in results)


def test_where_noise_is_all_there_is_no_face_and_it_is_too_dark() -> None:
    rng = np.random.default_rng(3)
    black = [Frame(rng.normal(0.5, 0.8, (480, 640)).clip(0).round().astype(np.uint8), n / 25) for n in range(10)]
    results = run(black)[1]
    assert all(result.too_dark and not result.tracks for result in results)
