"""``fer-edge bench``: what a frame costs, and whom it finds, against the loop that every tutorial shows.

Both look at the same decoded frames, in turn, in one thread. The tutorial's loop runs OpenCV's frontal-face cascade
over the whole grey picture and classifies every face of every frame. docs/performance.md says what each figure means.
"""

import cProfile
import json
import os
import platform
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import cv2
import msgspec

from edge.bench.ground_truth import FrameTruth, GroundTruth, read_truth, truth_beside
from edge.bench.scoring import DetectionCounts, Scorer, is_at
from edge.bench.startup import Starts, measure_starts
from edge.camera.sources import is_live, open_source
from edge.errors import DataError, UsageError
from edge.model.classifier import Classifier
from edge.model.loader import open_deployed
from edge.model.preprocessing import crop
from edge.pipeline import FrameResult, Pipeline, make_pipeline
from edge.records import Box, Frame, Gray
from edge.settings import Settings, load_settings

_NEWS_SECONDS: Final = 10.0
_Result = TypeVar("_Result")


@dataclass
class Cost:
    """What one side spent, in seconds, and how often it did the two expensive things.

    ``cpu`` is the time that its thread really computed, ``wall`` what passed meanwhile. ``cascade`` and ``network`` are
    the parts of ``cpu`` inside detectMultiScale and the interpreter's invoke.
    """

    cpu: float = 0.0
    wall: float = 0.0
    cascade: float = 0.0
    network: float = 0.0
    scans: int = 0
    inferences: int = 0

    def __iadd__(self, other: "Cost") -> "Cost":
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)
        return self

    def as_json(self, frames: int) -> dict[str, Any]:
        """Milliseconds a frame."""
        ms = {name: 1000 * value / frames for name, value in asdict(self).items()}
        rest = ms["cpu"] - ms["cascade"] - ms["network"]
        return {
            "cpu_ms": round(ms["cpu"], 4),
            "wall_ms": round(ms["wall"], 4),
            "fps": round(1000 / ms["cpu"], 1),
            "parts_cpu_ms": {
                "cascade": round(ms["cascade"], 4),
                "network": round(ms["network"], 4),
                "rest": round(rest, 4),
            },
            "scans_per_frame": round(self.scans / frames, 4),
            "inferences_per_frame": round(self.inferences / frames, 4),
        }


@dataclass
class ClipResult:
    """Everything that is measured on one clip, or on several together; ``stages`` are wall and CPU seconds by name.

    ``hits`` are the faces that the tutorial's loop finds (with a truth, only those that are faces), ``covered`` those
    of them where a track of fer-edge is in the same frame; ``untrue_hits`` are its hits that are no faces.
    """

    frames: int = 0
    tutorial: Cost = field(default_factory=Cost)
    edge: Cost = field(default_factory=Cost)
    stages: dict[str, tuple[float, float]] = field(default_factory=dict)
    hits: int = 0
    covered: int = 0
    untrue_hits: int = 0
    tutorial_found: int = 0
    counts: DetectionCounts | None = None
    first_event: int | None = None

    def __iadd__(self, other: "ClipResult") -> "ClipResult":
        self.frames += other.frames
        self.tutorial += other.tutorial
        self.edge += other.edge
        for name, (wall, cpu) in other.stages.items():
            self._stage(name, wall, cpu)
        self.hits += other.hits
        self.covered += other.covered
        self.untrue_hits += other.untrue_hits
        self.tutorial_found += other.tutorial_found
        if other.counts:
            self.counts = (self.counts or DetectionCounts()) + other.counts
        return self

    def _stage(self, name: str, wall: float, cpu: float) -> None:
        before = self.stages.get(name, (0.0, 0.0))
        self.stages[name] = (before[0] + wall, before[1] + cpu)

    def stages_of(self, spent: dict[str, float], wall: float, cpu: float) -> None:
        """Add one frame's stages: ``spent`` are their wall seconds; of CPU each has its share of the whole frame's."""
        for name, seconds in spent.items():
            self._stage(name, seconds, seconds * cpu / wall if wall else 0.0)

    def as_json(self, name: str) -> dict[str, Any]:
        """The figures for a machine; None where there is no truth, or nothing to divide by."""
        tutorial, edge = self.tutorial.as_json(self.frames), self.edge.as_json(self.frames)
        counts = self.counts
        tutorial["recall"] = _share(self.tutorial_found, counts.faces) if counts else None
        tutorial["false_faces"] = _share(self.untrue_hits, self.untrue_hits + self.hits) or 0.0 if counts else None
        edge["stages_ms"] = {
            stage: {"cpu": round(1000 * cpu / self.frames, 4), "wall": round(1000 * wall / self.frames, 4)}
            for stage, (wall, cpu) in self.stages.items()
        }
        edge["recall"] = _share(counts.found, counts.faces) if counts else None
        edge["false_tracks"] = round(counts.false_share, 5) if counts else None
        edge["lingering_tracks"] = (_share(counts.lingering, counts.tracked) or 0.0) if counts else None
        edge["counts"] = asdict(counts) if counts else None
        return {
            "clip": name,
            "frames": self.frames,
            "ratio": round(self.tutorial.cpu / self.edge.cpu, 2),
            "tutorial": tutorial,
            "fer_edge": edge,
            "covered": {"faces": self.hits, "share": _share(self.covered, self.hits)},
            "first_event_frame": self.first_event,
        }


class BaselineLoop:
    """The loop that every tutorial shows: scan the whole picture, classify each face, every frame."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier
        file = Path(cv2.__file__).parent / "data" / "haarcascade_frontalface_default.xml"
        self._cascade = cv2.CascadeClassifier(str(file))

    def step(self, gray: Gray) -> list[Box]:
        """The faces of one picture, each of them classified."""
        found = [Box(*map(int, face)) for face in self._cascade.detectMultiScale(gray, 1.1, 5)]
        for box in found:
            self._classifier.classify(crop(gray, box, self._classifier.card.crop_margin))
        return found


def bench_clip(settings: Settings, clip: Path, truth: GroundTruth | None) -> ClipResult:
    """Take every frame of a clip through both, and count. Raises DataError when the truth is of another clip.

    fer-edge goes through it twice: once for its cost, and once under a profiler, which says how much of that is the
    cascade and the network. The tutorial's loop does so little in Python that the profiler costs it nothing. Each side
    comes first in every other frame, because whoever is first warms the caches.
    """
    settings = msgspec.structs.replace(
        settings,
        camera=msgspec.structs.replace(settings.camera, source=str(clip)),
        model=msgspec.structs.replace(settings.model, threads=1),
    )
    tutorial = BaselineLoop(_classifier(settings))
    pipeline, watched = (make_pipeline(settings, _classifier(settings)) for _ in range(2))
    of_tutorial, of_edge = (cProfile.Profile(time.thread_time) for _ in range(2))
    tally, scorer = ClipResult(), Scorer()
    source = open_source(settings.camera)
    news = time.monotonic() + _NEWS_SECONDS
    try:
        for number, frame in enumerate(source.frames()):
            shown = _frame_truth(truth, clip, number, frame)
            if number % 2:
                hits = _timed(tally.tutorial, partial(of_tutorial.runcall, tutorial.step, frame.gray))
                seen = _step(tally, pipeline, frame)
            else:
                seen = _step(tally, pipeline, frame)
                hits = _timed(tally.tutorial, partial(of_tutorial.runcall, tutorial.step, frame.gray))
            of_edge.runcall(watched.step, frame)
            tally.frames += 1
            if seen.changes and tally.first_event is None:
                tally.first_event = number
            _count(tally, scorer, hits, seen, shown)
            if time.monotonic() > news:
                print(f"{clip}: {tally.frames} frames", file=sys.stderr, flush=True)
                news = time.monotonic() + _NEWS_SECONDS
    finally:
        source.close()
    _split(tally.tutorial, of_tutorial)
    _split(tally.edge, of_edge)
    if truth:
        if tally.frames != truth.header.frames:
            told = f"{truth.file} tells of {truth.header.frames}"
            raise DataError(f"{clip} has {tally.frames} frames, and {told}: it is of another clip")
        tally.counts = scorer.counts()
    return tally


def _frame_truth(truth: GroundTruth | None, clip: Path, number: int, frame: Frame) -> FrameTruth | None:
    """What the truth says about a frame, once it is certain that it can be about this clip."""
    if truth is None:
        return None
    height, width = frame.gray.shape
    if (width, height) != (truth.header.width, truth.header.height):
        raise DataError(
            f"{clip} is {width}x{height}, and {truth.file} tells of {truth.header.width}x{truth.header.height} pixels: "
            "it is of another clip"
        )
    if number >= len(truth.frames):
        raise DataError(f"{clip} has more frames than the {len(truth.frames)} of {truth.file}: it is of another clip")
    return truth.frames[number]


def _timed(cost: Cost, action: Callable[[], _Result]) -> _Result:
    wall, cpu = time.perf_counter(), time.thread_time()
    result = action()
    cost.cpu += time.thread_time() - cpu
    cost.wall += time.perf_counter() - wall
    return result


def _step(tally: ClipResult, pipeline: Pipeline, frame: Frame) -> FrameResult:
    """One frame through fer-edge, with what it and each of its stages cost."""
    stages, before = dict(pipeline.stage_seconds), (tally.edge.wall, tally.edge.cpu)
    seen = _timed(tally.edge, partial(pipeline.step, frame))
    spent = {name: seconds - stages.get(name, 0.0) for name, seconds in pipeline.stage_seconds.items()}
    tally.stages_of(spent, tally.edge.wall - before[0], tally.edge.cpu - before[1])
    return seen


def _split(cost: Cost, profile: cProfile.Profile) -> None:
    """Take out of a profile what the cascade and the interpreter took."""
    for entry in profile.getstats():
        if isinstance(entry.code, str):
            if "detectMultiScale" in entry.code:
                cost.cascade += entry.totaltime
                cost.scans += entry.callcount
        elif entry.code.co_name == "invoke":
            cost.network += entry.totaltime
            cost.inferences += entry.callcount


def _count(tally: ClipResult, scorer: Scorer, hits: Sequence[Box], seen: FrameResult, shown: FrameTruth | None) -> None:
    """Count whom both found in one frame."""
    if shown:
        places = [face.place for face in shown.faces]
        true = [box for box in hits if is_at(box, places)]
        tally.untrue_hits += len(hits) - len(true)
        tally.tutorial_found += sum(face.counts and is_at(face.place, hits) for face in shown.faces)
        scorer.add(seen.tracks, shown.faces)
        hits = true
    tracks = [track.box for track in seen.tracks]
    tally.hits += len(hits)
    tally.covered += sum(is_at(box, tracks) for box in hits)


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 5) if whole else None


def command(arguments: Namespace) -> int:
    """Carry out ``fer-edge bench`` with its parsed arguments."""
    cv2.setNumThreads(1)
    settings = _settings(arguments)
    clips = [(clip, _truth_of(settings, clip, arguments.truth, len(arguments.source))) for clip in arguments.source]
    total, told, first = ClipResult(), [], None
    for clip, truth in clips:
        tally = bench_clip(settings, clip, truth)
        total += tally
        told.append(tally.as_json(clip.name))
        if first is None and tally.first_event is not None:
            first = clip
    starts = measure_starts(first or clips[0][0], arguments.config, arguments.bundle, arguments.starts)
    report = _report(settings, told, total, starts)
    print(json.dumps(report) if arguments.json else text(report))
    if arguments.picture:
        from edge.bench.plot import draw_costs  # noqa: PLC0415  only who asks for it waits for it

        draw_costs(report, arguments.picture)
    return 0


def _settings(arguments: Namespace) -> Settings:
    if arguments.bundle is None:
        return load_settings(arguments.config)
    if arguments.config:
        raise UsageError("give either --bundle or a --config whose [model] names the bundle")
    settings = Settings()
    return msgspec.structs.replace(settings, model=msgspec.structs.replace(settings.model, bundle=arguments.bundle))


def _truth_of(settings: Settings, clip: Path, given: Path | None, clips: int) -> GroundTruth | None:
    """The truth that was asked for, or else the one beside the clip, if there is one."""
    if is_live(msgspec.structs.replace(settings.camera, source=str(clip))):
        raise UsageError(f"{clip}: bench needs a video or a folder of pictures, to see the same frames again")
    if given:
        if clips > 1:
            raise UsageError("--truth is for one --source; for several, each has its own beside it")
        return read_truth(given)
    beside = truth_beside(clip)
    return read_truth(beside) if beside.is_file() else None


def _classifier(settings: Settings) -> Classifier:
    return open_deployed(settings, os.environ)[0]


def _report(settings: Settings, clips: list[dict[str, Any]], total: ClipResult, starts: Starts) -> dict[str, Any]:
    classifier = _classifier(settings)
    return {
        "machine": f"{platform.machine()}, {_processor()}",
        "opencv": cv2.__version__,
        "runtime": classifier.runtime,
        "model": classifier.card.name,
        "clips": clips,
        "total": total.as_json("total"),
        "start": {
            name: value if isinstance(value, str | int | None) else round(value, 3)
            for name, value in asdict(starts).items()
        },
    }


def _processor() -> str:
    """The processor as the kernel names it; boards without such a line have a model instead."""
    for file, key in ((Path("/proc/device-tree/model"), ""), (Path("/proc/cpuinfo"), "model name")):
        try:
            lines = file.read_text(errors="replace").rstrip("\0").splitlines()
        except OSError:
            continue
        for line in lines:
            if line.startswith(key):
                return line.partition(":")[2].strip() if key else line.strip()
    return "unknown processor"


def text(report: dict[str, Any]) -> str:
    """The report for a person."""
    total = report["total"]
    lines = [
        f"{report['model']} on {report['runtime']}, OpenCV {report['opencv']}, one thread; {report['machine']}",
        "",
        f"{'':12}{'CPU ms a frame':^26}      {'of the tutorial':^15}  {'against the truth':^57}",
        f"{'clip':10}{'frames':>7}{'tutorial':>10}{'fer-edge':>10}{'ratio':>8}{'faces covered':>18}"
        f"{'recall':>10}{'(tutorial)':>11}{'false tracks':>14}{'(lingering)':>12}{'switches':>10}",
    ]
    rows = [*report["clips"], total] if len(report["clips"]) > 1 else report["clips"]
    lines += [_row(row) for row in rows]
    tutorial, edge = total["tutorial"], total["fer_edge"]
    lines += [
        "",
        f"CPU ms a frame{'cascade':>12}{'network':>10}{'the rest':>10}{'sum':>10}{'wall':>10}{'fps':>8}"
        f"{'scans':>10}{'faces':>8}",
        *(_costs(name, side) for name, side in (("tutorial", tutorial), ("fer-edge", edge))),
        "",
        "fer-edge by stage, CPU (wall): "
        + ", ".join(f"{name} {ms['cpu']:.3f} ({ms['wall']:.3f})" for name, ms in edge["stages_ms"].items()),
        _start_line(report["start"]),
    ]
    return "\n".join(lines)


def _row(row: dict[str, Any]) -> str:
    tutorial, edge, covered = row["tutorial"], row["fer_edge"], row["covered"]
    switches = edge["counts"]["switches"] if edge["counts"] else "-"
    return (
        f"{row['clip'][:16]:<10}{row['frames']:>7}{tutorial['cpu_ms']:>10.2f}{edge['cpu_ms']:>10.3f}{row['ratio']:>7.1f}x"
        f"{_percent(covered['share']):>10} of {covered['faces']:<4}{_percent(edge['recall']):>10}"
        f"{_percent(tutorial['recall']):>11}{_percent(edge['false_tracks']):>14}"
        f"{_percent(edge['lingering_tracks']):>12}{switches:>10}"
    )


def _costs(name: str, side: dict[str, Any]) -> str:
    parts = side["parts_cpu_ms"]
    return (
        f"{name:14}{parts['cascade']:>12.3f}{parts['network']:>10.3f}{parts['rest']:>10.3f}{side['cpu_ms']:>10.3f}"
        f"{side['wall_ms']:>10.3f}{side['fps']:>8.0f}{side['scans_per_frame']:>10.3f}{side['inferences_per_frame']:>8.3f}"
    )


def _start_line(start: dict[str, Any]) -> str:
    memory = f"fer-edge run on {start['clip']}: peak of resident memory {start['peak_mb']:.0f} MB"
    if start["seconds"] is None:
        return f"{memory}; it told no event"
    return (
        f"{memory}; first event {start['seconds']:.2f} s after its start, {start['cpu_seconds']:.2f} s of CPU "
        f"(medians of {start['times']})"
    )


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"
