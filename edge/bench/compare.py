"""Measures what a frame costs and which faces are detected, by fer-edge and by the baseline (OpenCV's tutorial loop).

Both get the same decoded frames, in turn, in one thread. docs/performance-method.md defines each figure.
"""

import cProfile
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from edge.bench.annotations import Annotations
from edge.bench.baseline import BYTES_A_PIXEL, BaselineLoop
from edge.bench.ground_truth import FrameTruth, GroundTruth
from edge.bench.results import ClipResult, Cost
from edge.bench.scoring import Scorer, is_at
from edge.bench.size_recall import SizeRecall
from edge.camera.sources import open_source
from edge.errors import DataError
from edge.model.loader import open_deployed
from edge.pipeline import FrameResult, make_pipeline
from edge.records import Box, Frame
from edge.settings import Settings

_PROGRESS_SECONDS: Final = 10.0
_Result = TypeVar("_Result")


def bench_clip(
    settings: Settings, clip: Path, truth: GroundTruth | Annotations | None, environ: Mapping[str, str]
) -> ClipResult:
    """Run fer-edge and the baseline on every frame of a clip. Raises DataError when the truth is for another clip.

    ``environ`` says where the models of the device are.
    """
    synthetic = truth if isinstance(truth, GroundTruth) else None
    annotations = truth if isinstance(truth, Annotations) else None
    settings = msgspec.structs.replace(
        settings,
        camera=msgspec.structs.replace(settings.camera, source=str(clip)),
        model=msgspec.structs.replace(settings.model, threads=1),
    )
    comparison = _Comparison(settings, annotations, environ)
    source = open_source(settings.camera, bytes_a_pixel=BYTES_A_PIXEL)
    progress_due = time.monotonic() + _PROGRESS_SECONDS
    try:
        for number, frame in enumerate(source.frames()):
            comparison.step(number, frame, _frame_truth(synthetic, clip, number, frame))
            if time.monotonic() > progress_due:
                print(f"{clip}: {number + 1} frames", file=sys.stderr, flush=True)
                progress_due = time.monotonic() + _PROGRESS_SECONDS
    finally:
        source.close()
    result = comparison.result()
    if synthetic:
        if result.frames != synthetic.header.frames:
            expected = f"{synthetic.file} describes {synthetic.header.frames}"
            raise DataError(f"{clip} has {result.frames} frames, but {expected}: it is for another clip")
        result.counts = comparison.scorer.counts()
    return result


class _Comparison:
    """Both sides on one clip.

    fer-edge processes each frame twice: once to measure its cost, and once under a profiler, which tells how much of
    that is the detector and the network. The baseline does so little in Python that the profiler costs it nothing. The
    sides take turns in being first, because the first one warms the caches.
    """

    def __init__(self, settings: Settings, annotations: Annotations | None, environ: Mapping[str, str]) -> None:
        self.scorer = Scorer()
        self._annotations = annotations
        self._result = ClipResult(recall=(SizeRecall(), SizeRecall()) if annotations else None)
        baseline, *ours = (open_deployed(settings, environ)[0] for _ in range(3))
        self._baseline = BaselineLoop(baseline)
        self._pipeline, self._profiled = (make_pipeline(settings, classifier) for classifier in ours)
        self._baseline_profile, self._pipeline_profile = (cProfile.Profile(time.thread_time) for _ in range(2))

    def step(self, number: int, frame: Frame, truth: FrameTruth | None) -> None:
        """Take one frame through both sides, and count what they detect."""
        if number % 2:
            boxes = self._step_baseline(frame)
            seen = self._step_pipeline(frame)
        else:
            seen = self._step_pipeline(frame)
            boxes = self._step_baseline(frame)
        self._pipeline_profile.runcall(self._profiled.step, frame)
        self._result.frames += 1
        if seen.changes and self._result.first_event is None:
            self._result.first_event = number
        if self._annotations:
            self._count_by_size(self._annotations, number, frame, boxes, seen)
        self._count(boxes, seen, truth)

    def result(self) -> ClipResult:
        """What was measured, once all frames are done."""
        _add_profile(self._result.baseline, self._baseline_profile)
        _add_profile(self._result.fer_edge, self._pipeline_profile)
        return self._result

    def _step_baseline(self, frame: Frame) -> list[Box]:
        step = partial(self._baseline_profile.runcall, self._baseline.step, frame.gray)
        return _timed(self._result.baseline, step)

    def _step_pipeline(self, frame: Frame) -> FrameResult:
        cost, stages = self._result.fer_edge, dict(self._pipeline.stage_seconds)
        wall, cpu = cost.wall, cost.cpu
        seen = _timed(cost, partial(self._pipeline.step, frame))
        spent = {name: seconds - stages[name] for name, seconds in self._pipeline.stage_seconds.items()}
        self._result.add_stages(spent, cost.wall - wall, cost.cpu - cpu)
        return seen

    def _count_by_size(
        self, annotations: Annotations, number: int, frame: Frame, boxes: Sequence[Box], seen: FrameResult
    ) -> None:
        height, width = frame.gray.shape
        if (width, height) != annotations.size:
            expected = "{}x{}".format(*annotations.size)
            raise DataError(
                f"the video is {width}x{height} pixels, but {annotations.file} describes {expected}: it is for another"
                " video"
            )
        faces = annotations.frames.get(number)
        if faces is not None and self._result.recall:
            for recall, found in zip(self._result.recall, (boxes, [track.box for track in seen.tracks]), strict=True):
                recall.add(faces, found, min(width, height))

    def _count(self, boxes: Sequence[Box], seen: FrameResult, truth: FrameTruth | None) -> None:
        result = self._result
        if truth:
            places = [face.place for face in truth.faces]
            true = [box for box in boxes if is_at(box, places)]
            result.baseline_false += len(boxes) - len(true)
            result.baseline_found += sum(face.counts and is_at(face.place, boxes) for face in truth.faces)
            self.scorer.add(seen.tracks, truth.faces)
            boxes = true
        tracks = [track.box for track in seen.tracks]
        result.baseline_faces += len(boxes)
        result.covered += sum(is_at(box, tracks) for box in boxes)


def _frame_truth(truth: GroundTruth | None, clip: Path, number: int, frame: Frame) -> FrameTruth | None:
    """The ground truth of a frame. Raises DataError when it cannot be of this clip."""
    if truth is None:
        return None
    height, width = frame.gray.shape
    if (width, height) != (truth.header.width, truth.header.height):
        raise DataError(
            f"{clip} is {width}x{height} pixels, but {truth.file} describes {truth.header.width}x{truth.header.height}:"
            " it is for another clip"
        )
    if number >= len(truth.frames):
        raise DataError(f"{clip} has more frames than the {len(truth.frames)} of {truth.file}: it is for another clip")
    return truth.frames[number]


def _timed(cost: Cost, action: Callable[[], _Result]) -> _Result:
    wall, cpu = time.perf_counter(), time.thread_time()
    result = action()
    cost.cpu += time.thread_time() - cpu
    cost.wall += time.perf_counter() - wall
    return result


def _add_profile(cost: Cost, profile: cProfile.Profile) -> None:
    """Add the time and the calls of the face detector and the interpreter that a profile has."""
    for entry in profile.getstats():
        if isinstance(entry.code, str):
            if "detectMultiScale" in entry.code or "FaceDetectorYN" in entry.code:
                cost.cascade += entry.totaltime
                cost.scans += entry.callcount
        elif entry.code.co_name == "invoke":
            cost.network += entry.totaltime
            cost.inferences += entry.callcount
