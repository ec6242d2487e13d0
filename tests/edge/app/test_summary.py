import sys
from collections.abc import Sequence

import numpy as np

from edge.app.summary import Summary
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


def test_a_service_does_not_remember_everybody_it_ever_saw() -> None:
    summary = Summary()
    for track in range(10_000):
        summary.frame(seen([track], left=[track - 1]), STATUS)
    assert sum(sys.getsizeof(value) for value in vars(summary).values()) < 5_000
