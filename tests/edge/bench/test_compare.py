"""The bench on a real clip: every figure is there and plausible, and a wrong ground truth is refused."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest

from edge.bench.compare import bench_clip
from edge.bench.ground_truth import FaceTruth, FrameTruth, GroundTruth, read_truth, truth_beside
from edge.bench.report import report_text
from edge.bench.results import ClipResult
from edge.bench.startup import measure_starts
from edge.errors import DataError
from edge.settings import DetectSettings, Settings

PROGRAM = Path(sys.executable).with_name("fer-edge")


def bench(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [PROGRAM, "bench", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=cwd, check=False)


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench") / "bench.png"


@pytest.fixture(scope="module")
def report(still_clip: Path, picture: Path) -> dict[str, Any]:
    done = bench("--source", still_clip, "--json", "--picture", picture, "--starts", 1)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.fixture
def short_clip(still_clip: Path, tmp_path: Path) -> Path:
    """Six frames of the clip as pictures, without a ground truth."""
    folder = tmp_path / "six"
    folder.mkdir()
    capture = cv2.VideoCapture(str(still_clip))
    for number in range(6):
        cv2.imwrite(str(folder / f"{number}.png"), capture.read()[1])
    capture.release()
    return folder


def first_six(truth: GroundTruth, faces: tuple[FaceTruth, ...]) -> GroundTruth:
    frames = tuple(FrameTruth(number, faces) for number in range(6))
    return GroundTruth(truth.file, msgspec.structs.replace(truth.header, frames=6), frames)


def test_the_parts_of_a_frame_add_up_and_each_takes_time(report: dict[str, Any]) -> None:
    for side in (report["total"]["tutorial"], report["total"]["fer_edge"]):
        parts = side["parts_cpu_ms"]
        assert sum(parts.values()) == pytest.approx(side["cpu_ms"], abs=0.001)
        assert parts["cascade"] > 0
        assert parts["network"] > 0
        assert side["fps"] == pytest.approx(1000 / side["cpu_ms"], rel=0.01)
        assert side["wall_ms"] >= 0.9 * side["cpu_ms"]
    assert report["total"]["tutorial"]["parts_cpu_ms"]["rest"] > 0


def test_the_baseline_scans_every_frame_and_classifies_every_face(report: dict[str, Any]) -> None:
    baseline = report["total"]["tutorial"]
    assert (baseline["scans_per_frame"], baseline["recall"]) == (1.0, 1.0)
    assert baseline["inferences_per_frame"] >= 1.0


def test_fer_edge_is_cheaper_and_follows_the_same_face(report: dict[str, Any]) -> None:
    total = report["total"]
    assert total["frames"] == 25
    assert total["ratio"] == pytest.approx(total["tutorial"]["cpu_ms"] / total["fer_edge"]["cpu_ms"], rel=0.01)
    assert total["ratio"] > 1.5
    assert total["fer_edge"]["recall"] > 0.8
    assert total["covered"]["share"] > 0.8
    assert total["fer_edge"]["counts"]["faces"] == 25
    assert total["fer_edge"]["counts"]["switches"] == 0


def test_each_stage_of_the_pipeline_has_its_cpu_and_wall_time(report: dict[str, Any]) -> None:
    edge = report["total"]["fer_edge"]
    assert len(edge["stages_ms"]) >= 3
    assert sum(stage["cpu"] for stage in edge["stages_ms"].values()) <= 1.01 * edge["cpu_ms"]
    assert sum(stage["wall"] for stage in edge["stages_ms"].values()) <= 1.01 * edge["wall_ms"]


def test_the_start_of_the_real_program_is_measured(report: dict[str, Any]) -> None:
    start = report["start"]
    assert 30 < start["peak_mb"] < 400
    assert start["cpu_seconds"] > 0
    assert start["seconds"] > 0
    assert report["total"]["first_event_frame"] is None  # of several clips there is no such frame
    assert 2 <= report["clips"][0]["first_event_frame"] < 25


def test_starts_are_measured_beside_a_service_that_serves_its_metrics(short_clip: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    with socket.create_server(("127.0.0.1", 0)) as service:
        config.write_text(f"[metrics]\nenabled = true\nport = {service.getsockname()[1]}\n")
        assert measure_starts(short_clip, config, None, 1).peak_mb > 30


def test_the_report_for_a_person_has_a_row_for_the_clip(report: dict[str, Any]) -> None:
    assert any(
        line.startswith("still.avi") and line.rstrip().endswith(" 0") for line in report_text(report).splitlines()
    )


def test_the_picture_shows_the_cascades_bars(report: dict[str, Any], picture: Path) -> None:
    drawn = cv2.imread(str(picture))
    assert drawn is not None
    assert drawn.shape == (760, 1200, 3)
    cascade = (drawn == (172, 116, 43)).all(axis=2)
    baseline, edge = cascade[150:560, 60:370].sum(), cascade[150:560, 370:640].sum()
    ratio = (
        report["total"]["tutorial"]["parts_cpu_ms"]["cascade"] / report["total"]["fer_edge"]["parts_cpu_ms"]["cascade"]
    )
    assert baseline / max(1, edge) == pytest.approx(ratio, rel=0.3)


def test_without_a_ground_truth_there_are_only_costs_and_coverage(short_clip: Path) -> None:
    result = bench_clip(Settings(), short_clip, None, {}).as_json("six")
    assert result["fer_edge"]["recall"] is None
    assert result["fer_edge"]["counts"] is None
    assert result["covered"]["faces"] == 6
    assert result["ratio"] > 0


def test_a_wrong_ground_truth_gives_no_recall_and_makes_every_track_false(short_clip: Path, still_clip: Path) -> None:
    wrong = first_six(read_truth(truth_beside(still_clip)), (FaceTruth(1, (0, 0, 60, 60), 1.0),))
    result = bench_clip(Settings(), short_clip, wrong, {}).as_json("six")
    assert (result["fer_edge"]["recall"], result["tutorial"]["recall"]) == (0.0, 0.0)
    assert (result["fer_edge"]["false_tracks"], result["tutorial"]["false_faces"]) == (1.0, 1.0)
    assert result["fer_edge"]["counts"]["phantoms"] == result["fer_edge"]["counts"]["tracks"] == 1


@pytest.mark.parametrize("order", [1, -1])
def test_the_faces_of_a_total_are_those_of_clips_with_a_ground_truth(
    short_clip: Path, still_clip: Path, order: int
) -> None:
    wrong = first_six(read_truth(truth_beside(still_clip)), (FaceTruth(1, (0, 0, 60, 60), 1.0),))
    clips = [bench_clip(Settings(), short_clip, truth, {}) for truth in (wrong, None)]
    total = ClipResult()
    for clip in clips[::order]:
        total += clip
    figures = total.as_json("total")
    assert (figures["frames"], figures["tutorial"]["false_faces"]) == (12, 1.0)
    assert figures["covered"] == {"faces": 0, "share": None}, "the other clip's faces may be false ones too"


def test_a_total_of_clips_with_and_without_a_ground_truth_says_so(still_clip: Path, tmp_path: Path) -> None:
    lonely = tmp_path / "lonely.avi"
    shutil.copy(still_clip, lonely)
    done = bench("--source", still_clip, lonely, "--starts", 1)
    assert "faces of the total: those of the 1 of 2 clips with a ground truth" in done.stdout


def test_the_ground_truth_of_another_clip_is_refused(short_clip: Path, still_clip: Path) -> None:
    truth = read_truth(truth_beside(still_clip))
    with pytest.raises(DataError, match=r"has 6 frames, but .* describes 25: it is for another clip"):
        bench_clip(Settings(), short_clip, truth, {})
    with pytest.raises(DataError, match="has more frames than the 2"):
        bench_clip(Settings(), short_clip, GroundTruth(truth.file, truth.header, truth.frames[:2]), {})
    other = GroundTruth(truth.file, msgspec.structs.replace(truth.header, width=320), truth.frames)
    with pytest.raises(DataError, match=r"is 640x480 pixels, but .* describes 320x480"):
        bench_clip(Settings(), short_clip, other, {})


def test_unusable_sources_and_ground_truths_have_their_own_errors(still_clip: Path, tmp_path: Path) -> None:
    lonely = tmp_path / "lonely.avi"
    shutil.copy(still_clip, lonely)
    broken = tmp_path / "broken.truth.jsonl"
    broken.write_text("nonsense\n")
    for arguments, code, sentence in (
        (("--source", "missing.avi"), 5, "no such file, folder or device"),
        (("--source", "/dev/video0"), 2, "whose frames it can read again"),
        (("--source", "rtsp://kiosk/live"), 2, "rtsp://kiosk/live: bench needs a video"),
        (("--source", lonely, "--bundle", os.fsdecode(b"b\xfcndel")), 2, "this name is not UTF-8"),
        (("--source", lonely, "--truth", broken), 7, "line 1: not a line of a clip's ground truth"),
        (("--source", lonely, still_clip, "--truth", broken), 2, f"--truth {broken}: no folder. For several"),
        (("--source", still_clip, "missing.avi"), 5, "no such file, folder or device"),
        (("--source", still_clip, "--picture", still_clip), 2, "this is a source, which would be lost"),
        (("--source", still_clip, "--picture", tmp_path), 5, "cannot be written: Is a directory"),
        (("--source", still_clip, "--bundle", ""), 2, "--bundle: it is empty: give a name, or leave out"),
    ):
        done = bench(*arguments)
        assert done.returncode == code, done.stderr
        assert sentence in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", [".", "./demo", "./-n", "n" * 250, os.fsdecode(b"b\xfcro")])
def test_a_clip_may_have_any_name(tmp_path: Path, name: str) -> None:
    """The folder here has no name of its own, the built-in demo has this one, an option begins like that, a
    ground truth's name would be too long, and OpenCV crashed with the last one, which is not UTF-8."""
    folder = tmp_path / "here"
    for pictures in dict.fromkeys((folder, folder / name)):
        pictures.mkdir()
        (pictures / "0.pgm").write_bytes(b"P5 160 120 255 " + b"n" * 160 * 120)
    done = bench("--source", name, "--starts", 1, "--json", "--picture", "costs.png", cwd=folder)
    assert done.returncode == 0, done.stderr
    [clip] = json.loads(done.stdout)["clips"]
    assert (clip["clip"], clip["frames"]) == ((folder / name).name, 1)


def test_a_large_video_is_measured_though_the_baseline_takes_much_memory_for_a_frame(tmp_path: Path) -> None:
    video = tmp_path / "large.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"MJPG"), 25, (2560, 1440))
    writer.write(np.full((1440, 2560, 3), 110, np.uint8))
    writer.release()
    done = bench("--source", video, "--json", "--starts", 1)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["total"]["frames"] == 1


def test_the_time_of_yunet_counts_as_face_detection(short_clip: Path) -> None:
    model = os.environ.get("YUNET")
    if not model:
        pytest.skip("YUNET is not set to the path of the network YuNet")
    settings = msgspec.structs.replace(Settings(), detect=DetectSettings(detector="yunet", model=model))
    result = bench_clip(settings, short_clip, None, {})
    assert result.fer_edge.scans > 0
    assert 0.2 * result.fer_edge.cpu < result.fer_edge.cascade
