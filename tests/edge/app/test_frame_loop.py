import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Event

import cv2
import numpy as np
import pytest

from edge.app.frame_loop import FrameLoop, LoopControl
from edge.events.episodes import Change
from edge.model.bundle import find_bundle, open_bundle
from edge.model.classifier import Classifier
from edge.monitoring.observer import FrameObserver, LoopStatus
from edge.pipeline import FrameResult, make_pipeline
from edge.settings import CameraSettings, DetectSettings, Settings
from tests.edge.mjpeg import FPS, Mjpeg, noisy_pictures

SETTINGS = Settings(camera=CameraSettings(source="demo"), detect=DetectSettings(min_face=0.15))


class Stop(FrameObserver):
    """Stops after some frames."""

    def __init__(self, frames: int) -> None:
        self.stopping = Event()
        self._left = frames

    def frame(self, result: FrameResult, status: LoopStatus) -> None:
        self._left -= 1
        if not self._left:
            self.stopping.set()


class Visit(FrameObserver):
    """Notes its calls; pauses after 3 frames, goes on in the pause, and stops after 3 frames more.

    If it ``withdraws``, it goes on before the pause has begun: while the source is being closed.
    """

    def __init__(self, *, withdraws: bool = False) -> None:
        self.calls: list[str] = []
        self._withdraws = withdraws
        self.stopping = Event()
        self.pause_requested = False

    def frame(self, result: FrameResult, status: LoopStatus) -> None:
        self.calls.append("frame")
        self.pause_requested = self.calls.count("frame") == 3
        if self.calls.count("frame") == 6:
            self.stopping.set()

    def paused(self, status: LoopStatus) -> None:
        self.calls.append("paused")
        self.pause_requested = False

    def closed(self, changes: Sequence[Change]) -> None:
        self.calls.append("closed")
        if self._withdraws:
            self.pause_requested = False


class Reporter(FrameObserver):
    """Notes how many frames it took before the source was closed."""

    def __init__(self) -> None:
        self.frames = 0
        self.is_closed = False

    def frame(self, result: FrameResult, status: LoopStatus) -> None:
        assert not self.is_closed
        self.frames += 1

    def closed(self, changes: Sequence[Change]) -> None:
        self.is_closed = True


@pytest.mark.parametrize(("visit", "between"), [(Visit(), ["paused"]), (Visit(withdraws=True), [])])
def test_observers_are_called_for_frames_pauses_and_ends_and_each_opening_has_a_reporter(
    visit: Visit, between: list[str]
) -> None:
    reporters: list[Reporter] = []

    def open_reporter(_origin: object) -> Reporter:
        reporters.append(Reporter())
        return reporters[-1]

    pipeline = make_pipeline(SETTINGS, Classifier(open_bundle(find_bundle("student-small"))))
    control = LoopControl(visit.stopping, lambda: visit.pause_requested)
    FrameLoop(SETTINGS, pipeline, [visit], open_reporter, control, realtime=False).run()
    assert visit.calls == [*["frame"] * 3, "closed", *between, *["frame"] * 3, "closed"]
    assert [(reporter.frames, reporter.is_closed) for reporter in reporters] == [(3, True), (3, True)]


def follow(camera: Mjpeg, visit: Visit) -> None:
    """Run the loop on a camera until the visit ends it."""
    settings = Settings(camera=CameraSettings(source=camera.url))
    pipeline = make_pipeline(settings, Classifier(open_bundle(find_bundle("student-small"))))
    control = LoopControl(visit.stopping, lambda: visit.pause_requested)
    FrameLoop(settings, pipeline, [visit], lambda _: FrameObserver(), control, realtime=False).run()


def slow_pictures() -> Iterator[bytes]:
    """The portrait with noise: three times at once, and then seldom."""
    for number, picture in enumerate(noisy_pictures()):
        if number >= 3:
            time.sleep(2.0)
        yield picture


@pytest.mark.slow
def test_a_camera_that_gives_a_picture_every_two_seconds_can_be_paused() -> None:
    visit = Visit()
    with Mjpeg(slow_pictures) as camera:
        follow(camera, visit)
    assert visit.calls == [*["frame"] * 3, "closed", "paused", *["frame"] * 3, "closed"]


class SlowVisit(Visit):
    """A visit that takes longer for a frame than the camera does, and notes how many frames were dropped."""

    def __init__(self) -> None:
        super().__init__()
        self.dropped: list[int] = []

    def frame(self, result: FrameResult, status: LoopStatus) -> None:
        super().frame(result, status)
        self.dropped.append(status.frames_dropped)
        time.sleep(5 / FPS)

    def paused(self, status: LoopStatus) -> None:
        super().paused(status)
        self.dropped.append(status.frames_dropped)


def test_dropped_frames_are_counted_on_while_the_camera_is_paused_and_opened_again() -> None:
    visit = SlowVisit()
    with Mjpeg(noisy_pictures) as camera:
        follow(camera, visit)
    assert visit.calls.count("paused") == 1
    assert visit.dropped == sorted(visit.dropped)
    assert 0 < visit.dropped[2] <= visit.dropped[3] <= visit.dropped[4] < visit.dropped[-1]


@pytest.mark.parametrize(("min_face", "warnings"), [(0.05, 0), (0.04, 1)])
def test_faces_that_are_too_small_to_be_found_are_named_once(
    caplog: pytest.LogCaptureFixture, min_face: float, warnings: int
) -> None:
    settings = Settings(camera=CameraSettings(source="demo"), detect=DetectSettings(min_face=min_face))
    stop = Stop(frames=3)
    pipeline = make_pipeline(settings, Classifier(open_bundle(find_bundle("student-small"))))
    control = LoopControl(stop.stopping, lambda: False)
    FrameLoop(settings, pipeline, [stop], lambda _origin: FrameObserver(), control, realtime=False).run()
    assert [record.getMessage() for record in caplog.records] == warnings * [
        "detect.min_face is 0.04, but detector haar needs faces of 24 pixels: 0.05 of the shorter side of 640x480; "
        "choose larger pictures (camera.size, or a network camera's own settings), or set detect.min_face = 0.05"
    ]


def test_in_a_folder_of_many_sizes_only_smaller_pictures_are_named_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number, side in enumerate((200, 210, 190, 480, 200)):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((side, 640), 128, np.uint8))
    settings = Settings(camera=CameraSettings(source=str(tmp_path)))
    pipeline = make_pipeline(settings, Classifier(open_bundle(find_bundle("student-small"))))
    control = LoopControl(Event(), lambda: False)
    FrameLoop(settings, pipeline, [], lambda _origin: FrameObserver(), control, realtime=False).run()
    assert [record.getMessage().partition(";")[0][-7:] for record in caplog.records] == ["640x200", "640x190"]


class Light(FrameObserver):
    """Notes what the loop says of the light."""

    def __init__(self) -> None:
        self.too_dark: list[bool] = []

    def frame(self, result: FrameResult, status: LoopStatus) -> None:
        self.too_dark.append(status.too_dark)


def test_when_it_is_too_dark_observers_know_and_the_log_says_it_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rng = np.random.default_rng(1)
    for number in range(40):
        picture = rng.normal(100, 20, (96, 128)) if 15 <= number < 28 else rng.normal(1, 0.8, (96, 128))
        cv2.imwrite(str(tmp_path / f"{number:02}.png"), picture.clip(0, 255).astype(np.uint8))
    settings = Settings(
        camera=CameraSettings(source=str(tmp_path), folder_fps=1.0), detect=DetectSettings(min_face=0.3)
    )
    light, pipeline = Light(), make_pipeline(settings, Classifier(open_bundle(find_bundle("student-small"))))
    control = LoopControl(Event(), lambda: False)
    with caplog.at_level(logging.WARNING):
        FrameLoop(settings, pipeline, [light], lambda _: FrameObserver(), control, realtime=False).run()
    assert light.too_dark == [False] * 10 + [True] * 15 + [False] * 13 + [True] * 2
    said = [record.message for record in caplog.records if "bright" in record.message or "dark" in record.message]
    assert ["too dark" in one for one in said] == [True, False, True]
