"""``fer-export robustness``: how accurate bundles are on degraded faces.

Every kind of train.data.degradations is applied to the measured faces at fixed levels, drawn from a fixed seed. As in
ImageNet-C (Hendrycks and Dietterich 2019, arXiv 1903.12261), the figures of a kind are the means over its levels, and
those of the whole table are the means over the kinds.
"""

import json
import sys
import zlib
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from edge.evaluation.fer2013 import LabelledFaces, measured_split, read_faces
from edge.evaluation.metrics import measure, reliability_diagram
from edge.labels import FER2013_LABELS
from edge.model.bundle import find_bundle, open_bundle
from edge.model.classifier import Classifier
from edge.model.preprocessing import softmax
from train.data.degradations import DEGRADATIONS, Faces
from train.outputs import check_output, replacing
from train.report import draw_svg

CLEAN: Final = "clean"
LEVELS: Final[Mapping[str, Sequence[float]]] = {
    "defocus blur": (1.0, 2.0),
    "motion blur": (4.0, 7.0),
    "sensor noise": (10.0, 20.0),
    "JPEG": (30.0, 10.0),
    "low resolution": (32.0, 24.0, 16.0),
    "dark": (0.5, 0.25),
    "bright": (1.5, 2.25),
    "backlight": (0.4, 0.7),
    "low contrast": (0.5, 0.25),
    "roll": (15.0, 30.0),
    "box": (0.08, 0.16),
    "mouth covered": (0.3, 0.45),
    "eyes covered": (0.18, 0.28),
    "half covered": (0.3, 0.5),
}
"""The levels of each kind in the unit of train.data.degradations, from mild to severe."""

_SEED: Final = 24
_NAME_WIDTH: Final = 38

BatchLogits = Callable[[Faces], NDArray[np.float64]]
"""Calibrated logits, ``(n, 7)``, of a batch of faces."""


@dataclass(frozen=True)
class RobustnessRow:
    """The figures of one network for one kind and level of degradation, or their means over several.

    ``ece`` is the expected calibration error over ten bins. ``coverage`` is the share of the faces that get a label
    rather than ``uncertain``, and ``covered_accuracy`` the accuracy on these; it is 0 when there are none.
    ``error_shares`` says for each label how many faces get it wrongly, as a share of all faces.
    """

    kind: str
    level: str
    accuracy: float
    macro_f1: float
    ece: float
    coverage: float
    covered_accuracy: float
    error_shares: Mapping[str, float]

    @property
    def title(self) -> str:
        """Kind and level."""
        return f"{self.kind:16} {self.level}".strip()

    @property
    def top_error(self) -> tuple[str, float]:
        """The wrong label that is predicted most often, and how often, as a share of all faces."""
        return max(self.error_shares.items(), key=lambda error: error[1])

    def as_json(self) -> dict[str, Any]:
        """The row as JSON values, rounded."""
        rounded = {name: round(value, 5) if isinstance(value, float) else value for name, value in asdict(self).items()}
        return {**rounded, "error_shares": {label: round(share, 5) for label, share in self.error_shares.items()}}


@dataclass(frozen=True)
class RobustnessTable:
    """The rows of one network: on clean faces, and on degraded ones. ``sha256`` is that of the bundle's network."""

    name: str
    sha256: str
    clean: RobustnessRow
    degraded: tuple[RobustnessRow, ...]

    def kind_means(self) -> tuple[RobustnessRow, ...]:
        """For each kind the means over its levels."""
        kinds = dict.fromkeys(row.kind for row in self.degraded)
        return tuple(_mean(kind, [row for row in self.degraded if row.kind == kind]) for kind in kinds)

    def mean(self) -> RobustnessRow:
        """The means over the kinds; each kind has the same weight, however many levels it has."""
        return _mean("mean", self.kind_means())

    def as_json(self) -> dict[str, Any]:
        """The table as JSON values, rounded."""
        return {
            "bundle": self.name,
            "sha256": self.sha256,
            "clean": self.clean.as_json(),
            "mean": self.mean().as_json(),
            "kinds": [row.as_json() for row in self.kind_means()],
            "levels": [row.as_json() for row in self.degraded],
        }


def robustness_command(arguments: Namespace) -> int:
    """``fer-export robustness``; returns the exit code."""
    if arguments.out:
        check_output(arguments.out, arguments.data)
    bundles = [open_bundle(find_bundle(name), FER2013_LABELS) for name in arguments.bundles]
    faces = read_faces(arguments.data, measured_split(arguments.data))
    tables = []
    for argument, bundle in zip(arguments.bundles, bundles, strict=True):
        name = Path(argument).resolve().name  # of several bundles of one network, the folders tell them apart
        rows = measure_robustness(_batch_logits(Classifier(bundle)), bundle.card.abstention.threshold, faces)
        clean, *degraded = _with_progress(name, rows)
        tables.append(RobustnessTable(name, bundle.card.sha256, clean, tuple(degraded)))
    if arguments.json:
        print(json.dumps({"split": faces.split, "faces": len(faces), "bundles": [t.as_json() for t in tables]}))
    else:
        print("\n\n".join(format_robustness(table, faces) for table in tables))
        if len(tables) > 1:
            print(f"\n{format_differences(tables)}")
    if arguments.out:  # last, so that the tables are not lost when the disk is full
        with replacing(arguments.out) as target:
            target.write(draw_robustness(tables, str(faces.split or "the faces")).encode())
    return 0


def measure_robustness(logits: BatchLogits, threshold: float, faces: LabelledFaces) -> Iterator[RobustnessRow]:
    """Measure on the clean faces, then on every degraded form; below ``threshold`` a face is ``uncertain``."""
    for kind, level, pixels in degraded_faces(faces.pixels):
        yield _row(kind, level, softmax(logits(pixels)), threshold, faces.labels)


def degraded_faces(pixels: Faces, levels: Mapping[str, Sequence[float]] = LEVELS) -> Iterator[tuple[str, str, Faces]]:
    """Yield kind, level with unit, and faces: the clean ones first.

    Each level has random draws of its own, so the same faces always give the same pictures.
    """
    yield CLEAN, "", pixels
    for kind, of_kind in levels.items():
        for level in of_kind:
            rng = np.random.default_rng([_SEED, zlib.crc32(f"{kind} {level:g}".encode())])
            yield kind, f"{level:g} {DEGRADATIONS[kind].unit}", DEGRADATIONS[kind].apply(pixels, level, rng)


def format_robustness(table: RobustnessTable, faces: LabelledFaces) -> str:
    """One network's table as text: clean faces, every kind and level, and the means."""
    split = f" of {faces.split}" if faces.split else ""
    lines = [
        f"{table.name}: {len(faces)} faces{split}, int8, single crop",
        f"{'':{_NAME_WIDTH}}  accuracy  macro-F1    ECE  coverage  covered accuracy  most frequent wrong label",
        *map(_line, (table.clean, *table.degraded)),
        "",
        "means over the levels of each kind, and over all kinds:",
        *map(_line, (*table.kind_means(), table.mean())),
    ]
    return "\n".join(lines)


def format_differences(tables: list[RobustnessTable]) -> str:
    """The accuracies of several networks as text, in columns; from the second on with the difference to the first."""
    width = max(16, *(len(table.name) for table in tables))
    lines = [" ".join([f"{'accuracy':{_NAME_WIDTH}}", *(f"{table.name:>{width}}" for table in tables)])]
    columns = [(table.clean, *table.degraded, *table.kind_means(), table.mean()) for table in tables]
    for first, *others in zip(*columns, strict=True):
        cells = [f"{first.accuracy:.2%}"]
        cells += [f"{row.accuracy:.2%} {100 * (row.accuracy - first.accuracy):+6.2f}" for row in others]
        lines.append(" ".join([f"{first.title:{_NAME_WIDTH}}", *(f"{cell:>{width}}" for cell in cells)]))
    return "\n".join(lines)


def draw_robustness(tables: list[RobustnessTable], split: str) -> str:
    """An SVG of the accuracies: a row per kind and level, a colour per network; a dashed line is its clean accuracy."""
    return draw_svg(lambda figure: _dots(figure, tables, split), 7, 7.5)


def _batch_logits(classifier: Classifier) -> BatchLogits:
    return lambda faces: np.array([classifier.read(face) for face in faces], np.float64)


def _row(
    kind: str, level: str, probabilities: NDArray[np.float64], threshold: float, labels: NDArray[np.int64]
) -> RobustnessRow:
    predicted = probabilities.argmax(axis=1)
    right, covered = predicted == labels, probabilities.max(axis=1) >= threshold
    errors = np.bincount(predicted[~right], minlength=len(FER2013_LABELS))
    figures = measure(labels, predicted, FER2013_LABELS)
    return RobustnessRow(
        kind=kind,
        level=level,
        accuracy=figures.accuracy,
        macro_f1=figures.macro_f1,
        ece=reliability_diagram(labels, probabilities).ece,
        coverage=float(covered.mean()),
        covered_accuracy=float(right[covered].mean()) if covered.any() else 0.0,
        error_shares={label: float(n / len(labels)) for label, n in zip(FER2013_LABELS, errors, strict=True)},
    )


def _mean(kind: str, rows: Iterable[RobustnessRow]) -> RobustnessRow:
    """The mean of each figure."""
    several = list(rows)
    figures = ("accuracy", "macro_f1", "ece", "coverage", "covered_accuracy")
    means = {figure: float(np.mean([getattr(row, figure) for row in several])) for figure in figures}
    errors = {label: float(np.mean([row.error_shares[label] for row in several])) for label in FER2013_LABELS}
    return RobustnessRow(kind=kind, level="", error_shares=errors, **means)


def _with_progress(name: str, rows: Iterator[RobustnessRow]) -> Iterator[RobustnessRow]:
    for row in rows:
        yield row
        if sys.stderr.isatty():
            print(f"\r{name}: {row.title:{_NAME_WIDTH}}", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)


def _line(row: RobustnessRow) -> str:
    label, share = row.top_error
    return (
        f"{row.title:{_NAME_WIDTH}}  {row.accuracy:8.2%}  {row.macro_f1:8.2%}  {row.ece:5.3f}  {row.coverage:8.1%}  "
        f"{row.covered_accuracy:16.2%}  {label} {share:.1%}"
    )


def _dots(figure: Figure, tables: list[RobustnessTable], split: str) -> None:
    axes: Any = figure.subplots()
    titles = [" ".join(row.title.split()) for row in tables[0].degraded]
    for number, table in enumerate(tables):
        accuracies = [100 * row.accuracy for row in table.degraded]
        axes.axvline(100 * table.clean.accuracy, color=f"C{number}", linestyle="--", linewidth=0.8)
        axes.plot(accuracies, range(len(titles)), "o", color=f"C{number}", alpha=0.7, label=table.name)
    axes.set_yticks(range(len(titles)), titles)
    axes.invert_yaxis()
    axes.set(xlabel=f"accuracy on {split}, % (dashed line: clean faces)")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left")
