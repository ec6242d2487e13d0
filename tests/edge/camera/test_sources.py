import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.camera.picture_file import read_gray
from edge.camera.sources import DemoSource, FolderSource, MediaTime, RotatedSource, VideoSource, open_source, paced
from edge.errors import SettingsError, SourceError
from edge.model.preprocessing import crop
from edge.records import Frame, Gray
from edge.settings import CameraSettings, DetectSettings, load_settings
from edge.vision.detectors import open_detector
from tests.conftest import PORTRAIT

SMALL = np.arange(6, dtype=np.uint8).reshape(2, 3)
ROTATED = {
    (0, False): [[0, 1, 2], [3, 4, 5]],
    (90, False): [[3, 0], [4, 1], [5, 2]],
    (180, False): [[5, 4, 3], [2, 1, 0]],
    (270, False): [[2, 5], [1, 4], [0, 3]],
    (0, True): [[2, 1, 0], [5, 4, 3]],
    (90, True): [[0, 3], [1, 4], [2, 5]],
    (180, True): [[3, 4, 5], [0, 1, 2]],
    (270, True): [[5, 2], [4, 1], [3, 0]],
}


class Still:
    """A source of one picture."""

    live = False
    dropped = 0

    def __init__(self, gray: Gray) -> None:
        self.gray = gray
        self.closed = False

    def frames(self):  # noqa: ANN201
        yield Frame(self.gray, 0.5, self.gray + 10)

    def close(self) -> None:
        self.closed = True


def write_pictures(folder: Path, count: int) -> list[Gray]:
    pictures = [np.full((48, 64), 10 * number, np.uint8) for number in range(count)]
    for number, picture in enumerate(pictures):
        cv2.imwrite(str(folder / f"{number}.png"), picture)
    return pictures


def write_video(file: Path, count: int, fps: float) -> None:
    codec = "mp4v" if file.suffix == ".mp4" else "MJPG"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*codec), fps, (64, 48))
    assert writer.isOpened()
    for number in range(count):
        writer.write(np.full((48, 64, 3), 20 * number, np.uint8))
    writer.release()


def test_a_folder_gives_its_pictures_in_order_of_name_at_the_given_rate(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path, 3)
    (tmp_path / "notes.txt").write_text("not a picture")
    source = open_source(CameraSettings(source=str(tmp_path), folder_fps=10))
    frames = list(source.frames())
    source.close()
    assert [frame.time for frame in frames] == pytest.approx([0, 0.1, 0.2])
    assert all(np.array_equal(frame.gray, picture) for frame, picture in zip(frames, pictures, strict=True))
    assert (source.live, source.dropped) == (False, 0)


def test_a_picture_that_cannot_be_decoded_is_named_and_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_pictures(tmp_path, 2)
    (tmp_path / "0.png").write_bytes(b"")
    assert [frame.time for frame in FolderSource(tmp_path, 10).frames()] == [0.1]
    assert "0.png: not a picture" in caplog.text


def test_a_video_gives_its_frames_in_media_time(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.avi", 5, 10)
    source = open_source(CameraSettings(source=str(tmp_path / "clip.avi")))
    frames = list(source.frames())
    source.close()
    assert [frame.time for frame in frames] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4], abs=0.01)
    assert [round(float(frame.gray.mean())) for frame in frames] == pytest.approx([0, 20, 40, 60, 80], abs=3)
    assert frames[0].gray.shape == (48, 64)


def test_a_video_may_have_colons_in_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cameras name files by the time; FFmpeg takes what is before the first colon for a protocol."""
    write_video(tmp_path / "clip.mp4", 5, 10)
    monkeypatch.chdir(tmp_path)
    for name in ("10:00:05.mp4", "./file:a.mp4", "http:b.mp4", "pipe:0.mp4"):
        (tmp_path / "clip.mp4").rename(name)
        for source in (name, f"./{name}", str(tmp_path / name)):
            assert len(list(open_source(CameraSettings(source=source)).frames())) == 5, source
        Path(name).rename(tmp_path / "clip.mp4")


def test_joined_recordings_go_on_where_the_time_steps_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "one.ts"), cv2.VideoWriter_fourcc(*"mp4v"), 25, (320, 240))
    for _ in range(50):
        writer.write(np.zeros((240, 320, 3), np.uint8))
    writer.release()
    joined = tmp_path / "joined.ts"
    joined.write_bytes((tmp_path / "one.ts").read_bytes() * 2)
    source = VideoSource(joined)
    times = [frame.time for frame in source.frames()]
    source.close()
    assert np.diff(times) == pytest.approx(np.full(99, 0.04), abs=0.001)
    assert [message.partition(": ")[2] for message in caplog.messages] == [
        "its time steps back after 2.0 s; going on from there"
    ]


@pytest.mark.parametrize(("fps", "counted"), [(30.0, 30), (0.0, 25), (90_000.0, 25), (float("nan"), 25)])
def test_frames_without_a_time_are_counted_by_the_frame_rate(
    fps: float, counted: int, caplog: pytest.LogCaptureFixture
) -> None:
    clock = MediaTime(Path("x.h264"), fps)
    assert [clock.of_frame(0.0) for _ in range(150)] == pytest.approx([number / counted for number in range(150)])
    assert caplog.messages == [f"x.h264: its frames have no time; counting {counted} frames a second"]


def test_last_frames_without_a_time_and_frames_slightly_out_of_order_are_no_fault(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = MediaTime(Path("x.avi"), 25)
    stated = (0.0, 0.04, 0.12, 0.08, 0.16, 0.0, 0.0)
    assert [clock.of_frame(time) for time in stated] == pytest.approx([0, 0.04, 0.12, 0.12, 0.16, 0.2, 0.24])
    assert not caplog.messages


def test_a_time_that_steps_by_more_than_an_hour_is_counted_by_the_frame_rate(caplog: pytest.LogCaptureFixture) -> None:
    clock = MediaTime(Path("x.avi"), 25)
    stated = (4e9, 4e9 + 0.04, 8e9, 8e9 + 0.04, 8e9 + 3000)
    assert [clock.of_frame(time) for time in stated] == pytest.approx([0, 0.04, 0.08, 0.12, 3000.08])
    assert caplog.messages == ["x.avi: its time steps more than an hour forward after 0.1 s; going on from there"]


def test_a_stop_does_not_wait_for_the_time_of_the_next_frame() -> None:
    waits: list[float] = []
    frames = [Frame(SMALL, 0.0), Frame(SMALL, 3000.0)]
    assert list(paced(iter(frames), waits.append)) == frames
    assert waits == [0, pytest.approx(3000, abs=10)]


def test_a_video_of_one_repeated_picture_is_no_stall(tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "still.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for _ in range(40):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    source = open_source(CameraSettings(source=str(tmp_path / "still.avi"), stall_seconds=0.001))
    assert len(list(source.frames())) == 40
    source.close()


def test_the_demo_is_ten_seconds_of_video() -> None:
    frames = list(open_source(CameraSettings(source="demo", stall_seconds=0.001)).frames())
    assert len(frames) == 250
    assert frames[-1].time == pytest.approx(9.96)
    assert {frame.gray.shape for frame in frames} == {(480, 640)}


@pytest.mark.parametrize(("rotation", "mirror"), ROTATED)
def test_pictures_are_rotated_clockwise_then_mirrored(rotation: int, mirror: bool) -> None:
    still = Still(SMALL)
    rotated = RotatedSource(still, CameraSettings(rotation=rotation, mirror=mirror))
    [frame] = rotated.frames()
    assert frame.gray.tolist() == ROTATED[rotation, mirror]
    assert frame.time == 0.5
    assert frame.half is not None
    assert frame.half.tolist() == (np.array(ROTATED[rotation, mirror]) + 10).tolist()
    assert frame.gray.flags.c_contiguous, "OpenCV copies anything else in each call"
    rotated.close()
    assert still.closed


@pytest.mark.parametrize(("rotation", "mirror"), ROTATED)
def test_faces_and_crops_of_a_rotated_view_are_those_of_the_upright_picture(rotation: int, mirror: bool) -> None:
    upright = read_gray(PORTRAIT)
    hung = np.ascontiguousarray(np.rot90(upright[:, ::-1] if mirror else upright, rotation // 90))
    [frame] = RotatedSource(Still(hung), CameraSettings(rotation=rotation, mirror=mirror)).frames()
    detector = open_detector(DetectSettings())
    boxes = detector.detect(frame.gray)
    assert boxes
    assert boxes == detector.detect(upright)
    assert np.array_equal(crop(frame.gray, boxes[0], 0.1), crop(upright, boxes[0], 0.1))


def test_the_settings_rotate_any_source(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), SMALL)
    [frame] = open_source(CameraSettings(source=str(tmp_path), rotation=90, mirror=True)).frames()
    assert frame.gray.tolist() == ROTATED[90, True]


def test_a_rotation_that_is_no_quarter_turn_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[camera]\nrotation = 45\n")
    with pytest.raises(SettingsError, match=r"rotation"):
        load_settings(tmp_path / "c.toml")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.mp4", r"source 'nowhere.mp4': no such file, folder or device"),
        ("/dev/video99", r"/dev/video99: no such camera \(video devices here: .*\)\. Is it plugged in"),
        ("/dev/null", r"/dev/null: cannot be opened as a camera"),
        ("picamera2:front", r"source 'picamera2:front': give picamera2, or picamera2:1"),
    ],
)
def test_the_error_of_a_missing_source_says_what_to_do(name: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        open_source(CameraSettings(source=name))


@pytest.mark.skipif(importlib.util.find_spec("picamera2") is not None, reason="picamera2 is installed here")
def test_without_picamera2_the_error_says_how_to_install_it() -> None:
    with pytest.raises(SourceError, match=r"apt install -y .*python3-picamera2.*--system-site-packages"):
        open_source(CameraSettings(source="picamera2"))


def test_the_error_of_a_picamera2_for_another_numpy_says_what_to_do(tmp_path: Path) -> None:
    """As on Raspberry Pi OS Bookworm with numpy 2 in the virtual environment."""
    (tmp_path / "libcamera.py").touch()
    (tmp_path / "picamera2.py").write_text("raise ValueError('numpy.dtype size changed')")
    command = [Path(sys.executable).with_name("fer-edge"), "run", "--source", "picamera2"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 5
    assert "(numpy.dtype size changed)" in done.stderr
    assert "pip install 'numpy<2' 'opencv-python-headless<4.12'" in done.stderr


def test_a_file_that_is_no_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_text("text")
    with pytest.raises(SourceError, match="not a video that OpenCV can open"):
        VideoSource(tmp_path / "clip.mp4")


def test_an_empty_video_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").touch()
    with pytest.raises(SourceError, match="not a video that OpenCV can open"):
        VideoSource(tmp_path / "clip.mp4")


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no pictures in it"):
        open_source(CameraSettings(source=str(tmp_path)))


def test_a_folder_of_pictures_none_of_which_can_be_decoded_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    with pytest.raises(SourceError, match="none of its 1 pictures can be decoded"):
        list(FolderSource(tmp_path, 10).frames())


def test_an_empty_picture_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    with pytest.raises(SourceError, match=r"a\.jpg: not a picture that OpenCV can decode"):
        read_gray(tmp_path / "a.jpg")


def test_demo_pictures_have_full_contrast() -> None:
    middle = list(DemoSource().frames())[125].gray
    assert middle.min() < 40
    assert middle.max() > 200


@pytest.mark.parametrize(("name", "codec"), [("large.avi", "MJPG"), ("large.mp4", "mp4v")])
def test_of_a_large_video_the_luma_is_read_and_other_than_mjpeg_is_said(
    tmp_path: Path, name: str, codec: str, caplog: pytest.LogCaptureFixture
) -> None:
    writer = cv2.VideoWriter(str(tmp_path / name), cv2.VideoWriter_fourcc(*codec), 10, (2880, 1920))
    shades = np.repeat(np.linspace(0, 255, 2880).astype(np.uint8)[None, :, None], 3, axis=2)
    writer.write(np.repeat(shades, 1920, axis=0))
    writer.release()
    source = VideoSource(tmp_path / name)
    [frame] = source.frames()
    source.close()
    assert np.abs(frame.gray.astype(int) - shades[0, :, 0]).max() < 5, "it is full-range"
    assert ("its frames are larger than 2560x1440" in caplog.text) == (codec != "MJPG")
