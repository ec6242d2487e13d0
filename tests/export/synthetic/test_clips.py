"""Clips: the same seed gives the same frames, and the ground truth is where the faces are."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.bench.ground_truth import read_truth, truth_beside
from edge.errors import UsageError
from edge.records import Box, Square
from edge.settings import DetectSettings
from edge.vision.cascades import FaceCascades
from edge.vision.pyramid import Pyramid
from export.cli import _main
from export.synthetic.clips import make_clips, make_scene, scene_names

CASCADE = cv2.CascadeClassifier(str(Path(cv2.__file__).parent / "data" / "haarcascade_frontalface_default.xml"))


def found_in(picture: np.ndarray) -> list[Box]:
    return [Box(*map(int, face)) for face in CASCADE.detectMultiScale(picture, 1.1, 5)]


@pytest.mark.parametrize(
    ("scene", "frame", "people"),
    [("visit", 260, 2), ("crossing", 20, 2), ("group", 10, 4), ("blur", 30, 1), ("light", 100, 1), ("edge", 10, 1)],
)
def test_the_cascade_detects_everybody_where_the_ground_truth_is(scene: str, frame: int, people: int) -> None:
    picture, faces = make_scene(scene, seed=1).draw(frame)
    assert len(faces) == people
    boxes = found_in(picture)
    for face in faces:
        assert max(face.place.overlap(box) for box in boxes) >= 0.7


def test_an_empty_room_is_empty_and_only_its_noise_moves() -> None:
    scene = make_scene("empty", seed=1)
    (first, faces), (second, _) = scene.draw(0), scene.draw(1)
    assert faces == ()
    difference = first.astype(np.float32) - second
    assert 3.0 < difference.std() < 4.0  # 2.5 in each of two pictures
    assert abs(difference.mean()) < 0.05


@pytest.mark.parametrize("seed", [1, 2])
def test_what_one_cascade_takes_for_faces_all_together_do_not(seed: int) -> None:
    picture, faces = make_scene("clutter", seed=seed).draw(0)
    assert faces == ()
    found = found_in(picture)
    assert len(found) >= 3
    cascades = FaceCascades(DetectSettings())
    places = [Square(box.x + box.w / 2, box.y + box.h / 2, box.w) for box in found]
    assert not any(cascades.confirm_proposal(Pyramid(picture), place)[0] for place in places)


def test_who_stands_still_does_not_move() -> None:
    scene = make_scene("still", seed=1)
    assert scene.draw(0)[1] == scene.draw(200)[1]


def test_who_steps_out_is_less_visible_and_then_gone() -> None:
    scene = make_scene("edge", seed=1)
    visible = [faces[0].visible if (faces := scene.draw(number)[1]) else 0.0 for number in (50, 100, 130, 249)]
    assert visible[0] == 1.0
    assert 0.2 < visible[1] < 0.75
    assert visible[2] == 1.0
    assert visible[3] == 0.0


def test_the_nearer_one_covers_the_other() -> None:
    scene = make_scene("crossing", seed=1)
    by_person = {face.person: face.visible for face in scene.draw(87)[1]}
    assert by_person[1] == 1.0
    assert by_person.get(2, 0.0) < 0.3


def test_motion_blurs() -> None:
    scene = make_scene("blur", seed=1)

    def sharpness(number: int) -> float:
        picture, [face] = scene.draw(number)
        x, y, w, h = face.box
        return float(cv2.Laplacian(cv2.GaussianBlur(picture[y : y + h, x : x + w], (0, 0), 1.5), cv2.CV_64F).var())

    assert sharpness(44) < 0.75 * sharpness(30)


def test_the_same_seed_gives_the_same_bytes_of_truth_and_the_same_frames(still_clip: Path, tmp_path: Path) -> None:
    [again] = make_clips(tmp_path / "again", seed=1, names=["still"], seconds=1.0, data=None)
    assert truth_beside(again).read_bytes() == truth_beside(still_clip).read_bytes()
    [other] = make_clips(tmp_path / "other", seed=2, names=["still"], seconds=0.04, data=None)
    frames = {clip: cv2.VideoCapture(str(clip)).read()[1] for clip in (still_clip, again, other)}
    assert np.array_equal(frames[again], frames[still_clip])
    assert not np.array_equal(frames[other], frames[still_clip])


def test_the_clip_holds_exactly_what_was_drawn(still_clip: Path) -> None:
    truth = read_truth(truth_beside(still_clip))
    scene = make_scene("still", seed=1)
    capture = cv2.VideoCapture(str(still_clip))
    ok, picture = capture.read()
    drawn, faces = scene.draw(0)
    assert ok
    assert np.array_equal(picture[:, :, 0], drawn)
    assert truth.frames[0].faces == faces
    assert truth.header.frames == len(truth.frames) == capture.get(cv2.CAP_PROP_FRAME_COUNT) == 25


def test_a_full_disk_leaves_the_earlier_clip_and_nothing_of_the_new_one(small_disk: Path) -> None:
    [clip] = make_clips(small_disk, 1, ["still"], 0.01, None)
    before = clip.read_bytes(), truth_beside(clip).read_bytes()
    with pytest.raises(UsageError, match="No space left on device"):
        make_clips(small_disk, 1, ["still"], 4.0, None)
    assert (clip.read_bytes(), truth_beside(clip).read_bytes()) == before
    assert sorted(small_disk.iterdir()) == sorted((clip, truth_beside(clip)))


@pytest.mark.parametrize(
    "option",
    [["clips", "--seconds", "inf"], ["bundle", "run", "--coverage", "most"], ["bundle", "run", "--margin", "x"]],
)
def test_what_is_no_number_of_the_range_is_told_as_it_is(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        _main([*option, "--out", "made", "--data", "none.csv"])
    assert f"{option[-1]!r}: must be a number" in capsys.readouterr().err


def test_unknown_scenes_are_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean crossing"):
        make_clips(tmp_path, 1, ["crosing"], None, None)
    with pytest.raises(UsageError, match="needs --data"):
        make_clips(tmp_path, 1, ["faces"], None, None)
    assert "faces" in scene_names(with_data=True)


def test_faces_of_a_data_set_come_one_after_the_other(blobs: Path, tmp_path: Path) -> None:
    [clip] = make_clips(tmp_path, 1, ["faces"], 0.08, blobs)
    first = read_truth(truth_beside(clip)).frames[0].faces
    assert [face.person for face in first] == [1, 2, 3]
    assert all(face.expression for face in first)
