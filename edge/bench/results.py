"""What is measured on a clip: cost of the baseline and of fer-edge, and how well each detects faces."""

from dataclasses import asdict, dataclass, field
from typing import Any

from edge.bench.scoring import DetectionCounts
from edge.bench.size_recall import SizeRecall


@dataclass
class Cost:
    """What one side spent, in seconds, and how often it did the two expensive things.

    ``cpu`` is the CPU time of its thread, ``wall`` the wall time. ``cascade`` and ``network`` are the parts of ``cpu``
    inside OpenCV's face detector and the interpreter's invoke; ``scans`` and ``inferences`` count these calls.
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
        """The cost a frame, in milliseconds."""
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
    """Everything that is measured on one clip, or on several together.

    Of several, costs are those of all; faces are those of the clips with a ground truth, if there are any.
    ``stages`` are fer-edge's wall and CPU seconds by the stage's name. ``baseline_faces`` counts the baseline's
    detections, with a ground truth only the true ones; ``covered`` counts those where fer-edge has a track in the same
    frame. ``baseline_false`` counts its false detections, ``baseline_found`` the faces of the ground truth that it
    detects. ``counts`` are fer-edge's, and None without a ground truth. ``recall`` is the baseline's and fer-edge's
    against the annotations of a real video, if there are any. ``first_event`` is the number of the frame with
    fer-edge's first event.
    """

    frames: int = 0
    baseline: Cost = field(default_factory=Cost)
    fer_edge: Cost = field(default_factory=Cost)
    stages: dict[str, tuple[float, float]] = field(default_factory=dict)
    baseline_faces: int = 0
    covered: int = 0
    baseline_false: int = 0
    baseline_found: int = 0
    counts: DetectionCounts | None = None
    recall: tuple[SizeRecall, SizeRecall] | None = None
    first_event: int | None = None

    def __iadd__(self, other: "ClipResult") -> "ClipResult":
        self.frames += other.frames
        self.baseline += other.baseline
        self.fer_edge += other.fer_edge
        for name, (wall, cpu) in other.stages.items():
            self._add_stage(name, wall, cpu)
        self._add_faces(other)
        self.baseline_false += other.baseline_false
        self.baseline_found += other.baseline_found
        if other.counts:
            self.counts = (self.counts or DetectionCounts()) + other.counts
        if other.recall:
            self.recall = self.recall or (SizeRecall(), SizeRecall())
            for total, clip in zip(self.recall, other.recall, strict=True):
                total += clip  # noqa: PLW2901  the total's own object
        return self

    def _add_faces(self, other: "ClipResult") -> None:
        """Add the baseline's faces: only those of clips with a ground truth if there are any; others may be false."""
        if other.counts and not self.counts:
            self.baseline_faces = self.covered = 0
        if other.counts or not self.counts:
            self.baseline_faces += other.baseline_faces
            self.covered += other.covered

    def add_stages(self, stage_seconds: dict[str, float], wall: float, cpu: float) -> None:
        """Add one frame's stages: their wall seconds. A stage's share of the frame's CPU time is that of its wall time.

        ``wall`` and ``cpu`` are the seconds of the whole frame.
        """
        for name, seconds in stage_seconds.items():
            self._add_stage(name, seconds, seconds * cpu / wall if wall else 0.0)

    def as_json(self, name: str) -> dict[str, Any]:
        """The figures for a machine; None where there is no ground truth, or nothing to divide by."""
        return {
            "clip": name,
            "frames": self.frames,
            "ratio": round(self.baseline.cpu / self.fer_edge.cpu, 2),
            "tutorial": self._baseline_as_json(),
            "fer_edge": self._fer_edge_as_json(),
            "covered": {"faces": self.baseline_faces, "share": _share(self.covered, self.baseline_faces)},
            "first_event_frame": self.first_event,
            "recall_by_size": (
                {"tutorial": self.recall[0].as_json(), "fer_edge": self.recall[1].as_json()} if self.recall else None
            ),
        }

    def _baseline_as_json(self) -> dict[str, Any]:
        detections = self.baseline_false + self.baseline_faces
        return {
            **self.baseline.as_json(self.frames),
            "recall": _share(self.baseline_found, self.counts.faces) if self.counts else None,
            "false_faces": _share(self.baseline_false, detections) or 0.0 if self.counts else None,
        }

    def _fer_edge_as_json(self) -> dict[str, Any]:
        counts = self.counts
        return {
            **self.fer_edge.as_json(self.frames),
            "stages_ms": {
                stage: {"cpu": round(1000 * cpu / self.frames, 4), "wall": round(1000 * wall / self.frames, 4)}
                for stage, (wall, cpu) in self.stages.items()
            },
            "recall": _share(counts.found, counts.faces) if counts else None,
            "false_tracks": round(counts.false_share, 5) if counts else None,
            "lingering_tracks": (_share(counts.lingering, counts.tracked) or 0.0) if counts else None,
            "counts": asdict(counts) if counts else None,
        }

    def _add_stage(self, name: str, wall: float, cpu: float) -> None:
        before = self.stages.get(name, (0.0, 0.0))
        self.stages[name] = (before[0] + wall, before[1] + cpu)


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 5) if whole else None
