import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.app.summary import ContactSheet, Summary
from edge.errors import SourceError
from edge.events.episodes import Change
from edge.model.bundle import find_bundle, open_bundle
from edge.model.classifier import Classifier
from edge.monitoring.observer import LoopStatus
from edge.pipeline import FrameResult, Pipeline, make_pipeline
from edge.records import Box, Frame, Track
from edge.settings import Settings

FRAME = Frame(np.zeros((2, 2), np.uint8), 0.0)


def seen(shown: Sequence[int], hidden: Sequence[int] = (), left: Sequence[int] = ()) -> FrameResult:
    tracks = [Track(track, Box(0, 0, 1, 1), 0.0) for track in shown]
    return FrameResult(FRAME, tracks, list(hidden), {}, [Change(track, "left", None, 0.0) for track in left])


def pipeline() -> Pipeline:
    return make_pipeline(Settings(), Classifier(open_bundle(find_bundle("student-small"))))


STATUS = LoopStatus(pipeline().classifier, {}, 0)


def test_each_face_that_was_followed_counts_once() -> None:
    summary = Summary()
    for one in (seen([1]), seen([1, 2]), seen([2], hidden=[1]), seen([1, 2]), seen([2], left=[1]), seen([3], left=[2])):
        summary.frame(one, STATUS)
    assert "faces        3 followed; one in view in 6 frames" in summary.text(pipeline(), 0)


def test_after_a_pause_the_ids_begin_anew_and_so_does_the_counting() -> None:
    summary = Summary()
    summary.frame(seen([1]), STATUS)
    summary.closed([Change(1, "left", None, 0.0)])
    summary.frame(seen([1]), STATUS)
    assert "2 followed" in summary.text(pipeline(), 0)


def test_a_face_that_a_pause_cut_short_before_its_first_event_counts_too() -> None:
    summary = Summary()
    for _ in range(2):
        summary.frame(seen([1]), STATUS)
        summary.closed([])
    assert "2 followed" in summary.text(pipeline(), 0)


def test_the_video_before_and_after_a_pause_counts() -> None:
    summary = Summary()
    for seconds in (2.0, 3.5):
        summary.frame(FrameResult(Frame(FRAME.gray, seconds), [], [], {}, []), STATUS)
        summary.closed([])
    summary.frame(FrameResult(Frame(FRAME.gray, 1.0), [], [], {}, []), STATUS)
    assert "frames       3 (6.5 s of video)" in summary.text(pipeline(), 0)


def test_a_sheet_that_cannot_be_written_is_refused_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"sheet\.png: cannot be written: No such file"):
        ContactSheet(tmp_path / "absent" / "sheet.png")
    ContactSheet(tmp_path / "sheet.png")
    assert not (tmp_path / "sheet.png").exists(), "it is only tried"


def test_a_service_does_not_remember_everybody_it_ever_saw() -> None:
    summary = Summary()
    for track in range(10_000):
        summary.frame(seen([track], left=[track - 1]), STATUS)
    assert sum(sys.getsizeof(value) for value in vars(summary).values()) < 5_000


@pytest.mark.parametrize(("width", "height"), [(320, 240), (180, 320), (320, 180), (200, 200), (1000, 300)])
def test_a_contact_sheet_shows_whole_frames_of_any_format(tmp_path: Path, width: int, height: int) -> None:
    gray = np.zeros((height, width), np.uint8)
    edge = max(4, 4 * width // 320)
    gray[:, :edge], gray[:, -edge:], gray[:edge], gray[-edge:] = 255, 255, 255, 255  # a bright edge on each side
    side = min(width, height) // 2
    box = Box((width - side) // 2, height - side, side, side)
    sheet = ContactSheet(tmp_path / "sheet.png")
    sheet.frame(FrameResult(Frame(gray, 0.0), [Track(1, box, 0.0)], [], {}, []), STATUS)
    sheet.write()
    picture = cv2.imread(str(tmp_path / "sheet.png"))
    assert picture is not None
    tile = picture[:240, :320].astype(int)
    scale = min(320 / width, 240 / height)
    left = top = 0.0
    middle = round(top + height * scale / 4), round(left + width * scale / 4)
    for x in (left + 1, left + width * scale - 2):
        assert tile[middle[0], round(x)].max() > 100
    for y in (top + 1, top + height * scale - 2):
        assert tile[round(y), middle[1]].max() > 100
    green = np.argwhere((tile[..., 1] > 150) & (tile[..., 0] < 120))  # the face's box is where the frame is
    assert green[:, 1].min() == pytest.approx(left + box.x * scale, abs=2)
    assert green[:, 1].max() == pytest.approx(left + (box.x + box.w) * scale, abs=2)
