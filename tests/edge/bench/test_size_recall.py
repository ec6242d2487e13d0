"""Recall by size and pose: what counts as found, as false, and as neither; and the files it is counted against."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edge.bench.annotations import AnnotatedFace, read_annotations
from edge.bench.size_recall import SizeRecall
from edge.errors import DataError
from edge.records import Box
from tests.conftest import PORTRAIT

FER_EDGE = Path(sys.executable).parent / "fer-edge"
FACE = AnnotatedFace((100.0, 100.0, 40.0, 40.0), agreed=True, pose="frontal")


def counts(face: AnnotatedFace, *boxes: Box) -> dict[str, Any]:
    recall = SizeRecall()
    recall.add([face], boxes, shorter=400)
    result = recall.as_json()
    result["found"] = {(band["pose"], band["size"]): band["found"] for band in result.pop("bands") if band["faces"]}
    return result


def test_a_face_is_found_by_a_box_of_about_its_place_and_size() -> None:
    assert counts(FACE, Box(95, 95, 50, 50)) == {"frames": 1, "boxes": 1, "false": 0, "found": {("frontal", 0.08): 1}}


@pytest.mark.parametrize("box", [Box(119, 100, 40, 40), Box(80, 80, 80, 80), Box(110, 110, 20, 20)])
def test_a_box_elsewhere_or_of_another_size_is_false(box: Box) -> None:
    assert counts(FACE, box) == {"frames": 1, "boxes": 1, "false": 1, "found": {("frontal", 0.08): 0}}


def test_a_doubtful_face_is_neither_missed_nor_false() -> None:
    doubtful = AnnotatedFace(FACE.box, agreed=False, pose="frontal")
    assert counts(doubtful, Box(100, 100, 40, 40)) == {"frames": 1, "boxes": 1, "false": 0, "found": {}}


@pytest.mark.parametrize(("side", "pose", "band"), [(48, "half", ("turned", 0.12)), (20, "profile", ("turned", 0.05))])
def test_faces_are_counted_by_size_and_pose(side: int, pose: str, band: tuple[str, float]) -> None:
    face = AnnotatedFace((0.0, 0.0, side, side), agreed=True, pose=pose)  # type: ignore[arg-type]
    assert counts(face)["found"] == {band: 0}


def test_faces_below_the_smallest_band_are_not_counted() -> None:
    assert counts(AnnotatedFace((0.0, 0.0, 11.0, 11.0), agreed=True, pose="frontal"))["found"] == {}


def write(folder: Path, frames: object, meta: object = {"size": [640, 480]}) -> Path:
    (folder / "v.meta.json").write_text(json.dumps(meta))
    (folder / "v.json").write_text(json.dumps(frames))
    return folder / "v.json"


def test_other_keys_are_ignored(tmp_path: Path) -> None:
    face = {"box": [1, 2, 3.5, 4], "agreed": True, "pose": "half", "score": 0.9}
    read = read_annotations(write(tmp_path, {"7": [face]}, {"size": [640, 480], "step": 5}))
    assert read.size == (640, 480)
    assert read.frames == {7: (AnnotatedFace((1.0, 2.0, 3.5, 4.0), agreed=True, pose="half"),)}


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ({"7": [{"box": [1, 2, 0, 4], "agreed": True, "pose": "half"}]}, "`float` > 0"),
        ({"7": [{"box": [1, 2, 3, 4], "agreed": True, "pose": "up"}]}, "Invalid enum value 'up'"),
        ({"first": []}, "Expected `int`"),
        ([], "Expected `object`"),
    ],
)
def test_what_is_no_annotation_is_refused(tmp_path: Path, frames: object, words: str) -> None:
    with pytest.raises(DataError, match=r"v\.json: not the ground truth of a video") as refused:
        read_annotations(write(tmp_path, frames))
    assert words in str(refused.value)


def test_a_missing_half_is_named(tmp_path: Path) -> None:
    file = write(tmp_path, {})
    file.with_suffix(".meta.json").unlink()
    with pytest.raises(DataError, match=r"v\.meta\.json: cannot be read: No such file"):
        read_annotations(file)


def test_bench_prints_the_table_and_refuses_the_annotations_of_another_video(tmp_path: Path) -> None:
    folder = tmp_path / "v"
    folder.mkdir()
    (folder / "1.jpg").symlink_to(PORTRAIT)
    face = {"box": [0, 0, 500, 500], "agreed": True, "pose": "frontal"}
    write(tmp_path, {"0": [face]}, {"size": [1, 1]})
    command = [FER_EDGE, "bench", "--source", folder, "--truth", tmp_path, "--starts", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, "it is for another video" in done.stderr) == (7, True), done.stderr
    size = done.stderr.partition("video is ")[2].partition(" ")[0].split("x")
    write(tmp_path, {"0": [face]}, {"size": [int(side) for side in size]})
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    row = next(line for line in done.stdout.splitlines() if line.startswith("frontal, from 12 %"))
    assert "0 of 1    0.00%" in row, row


@pytest.mark.slow
def test_a_real_video_is_counted(real_clips: Path) -> None:
    command = [FER_EDGE, "bench", "--source", real_clips / "videos" / "pyfeat_single.mp4", "--truth", real_clips / "gt"]
    done = subprocess.run(
        [*command, "--starts", "1", "--json"], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    total = json.loads(done.stdout)["total"]["recall_by_size"]["fer_edge"]
    band = total["bands"][0]
    assert (band["pose"], band["size"], total["false"]) == ("frontal", 0.12, 0)
    assert band["faces"] > 0
    assert band["found"] >= 0.9 * band["faces"]


def test_annotations_that_never_end_or_nest_are_refused(tmp_path: Path) -> None:
    (tmp_path / "v.json").write_bytes(b'{"7":' + b"[" * 100_000)
    with pytest.raises(DataError, match=r"v\.json: not the ground truth of a video"):
        read_annotations(tmp_path / "v.json")
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(DataError, match=r"pipe\.json: cannot be read: this is a named pipe"):
        read_annotations(tmp_path / "pipe.json")
