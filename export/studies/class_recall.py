"""``fer-export class-recall``: recall per class, and what adjusting the logits for rare classes would change.

Every method of export.studies.logit_adjustment is fitted on one half of the measured faces and applied to the other
half, both ways. So no face is measured with what it has taught.
"""

import json
from argparse import Namespace
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge.errors import DataError
from edge.evaluation.fer2013 import LabelledFaces, Split, measured_split, read_faces
from edge.evaluation.metrics import measure, reliability_diagram
from edge.labels import FER2013_LABELS
from edge.model.bundle import Bundle, find_bundle, open_bundle
from edge.model.classifier import Classifier
from edge.model.preprocessing import softmax
from export.studies.logit_adjustment import AS_IT_IS, adjustment_methods, cross_fit
from train.data.ferplus import read_votes
from train.evaluation.subsets import majority, subsets

_SEED: Final = 24
_NEUTRAL: Final = FER2013_LABELS.index("neutral")
_METHOD_WIDTH: Final = 15

Mask = NDArray[np.bool_]
"""``(n,)``: which of n faces."""


@dataclass(frozen=True)
class Change:
    """By how much a figure changed against the network as it is, in points, and the standard error of that."""

    points: float
    error: float

    def __str__(self) -> str:
        return f"{self.points:+6.2f} ± {self.error:5.2f}"


@dataclass(frozen=True)
class ClassRecallRow:
    """The figures of one method on one part of the faces.

    ``coverage`` is the share of the faces whose confidence reaches the card's threshold, and ``covered_accuracy`` the
    accuracy on these. ``recalls`` has the labels that occur, and ``mean_recall`` is their mean.
    """

    method: str
    accuracy: float
    macro_f1: float
    mean_recall: float
    ece: float
    coverage: float
    covered_accuracy: float
    recalls: dict[str, float]
    accuracy_change: Change
    mean_recall_change: Change


@dataclass(frozen=True)
class Part:
    """A part of the measured faces, and a row for each method."""

    name: str
    faces: int
    rows: tuple[ClassRecallRow, ...]


@dataclass(frozen=True)
class VotedRow:
    """Faces of one label, by what most of FERPlus's ten people saw: this label, ``neutral``, or something else.

    ``called_so`` is the share of the faces that the network calls by the label, ``called_neutral`` by neutral.
    """

    label: str
    people_saw: str
    faces: int
    called_so: float
    called_neutral: float


@dataclass(frozen=True)
class Shares:
    """The share of each label in Training, among the measured faces, and in the mean of the network's probabilities."""

    training: dict[str, float]
    measured: dict[str, float]
    predicted: dict[str, float]


def class_recall_command(arguments: Namespace) -> int:
    """``fer-export class-recall``; returns the exit code."""
    bundles = [open_bundle(find_bundle(name), FER2013_LABELS) for name in arguments.bundles]
    faces = read_faces(arguments.data, measured_split(arguments.data))
    if len(faces) < 2:
        raise DataError(f"{arguments.data}: it must have at least two faces: one for each half")
    counts = np.bincount(read_faces(arguments.data, Split.TRAINING).labels, minlength=len(FER2013_LABELS))
    seen = majority(read_votes(arguments.votes, faces)) if arguments.votes else None
    documents, texts = [], []
    for argument, bundle in zip(arguments.bundles, bundles, strict=True):
        name = Path(argument).resolve().name  # of several bundles of one network, the folders tell them apart
        logits = _read(bundle, faces)
        shares = label_shares(counts, faces.labels, softmax(logits))
        parts = measure_parts(logits, counts / counts.sum(), bundle.card.abstention.threshold, faces, arguments.votes)
        voted = [] if seen is None else list(voted_rows(logits.argmax(axis=1), faces.labels, seen))
        documents.append(_as_json(name, bundle.card.sha256, shares, parts, voted))
        title = f"{name}: {len(faces)} faces{f' of {faces.split}' if faces.split else ''}, int8, single crop"
        texts.append("\n\n".join([title, _format_shares(shares), *map(_format_part, parts), *_format_voted(voted)]))
    document = {"split": faces.split, "faces": len(faces), "bundles": documents}
    print(json.dumps(document) if arguments.json else "\n\n\n".join(texts))
    return 0


def measure_parts(
    logits: NDArray[np.float64],
    prior: NDArray[np.float64],
    threshold: float,
    faces: LabelledFaces,
    votes: Path | None,
) -> tuple[Part, ...]:
    """Measure every method on all faces, both halves, and the parts of train.evaluation.subsets.

    ``logits`` is ``(n, 7)``, calibrated. Below ``threshold`` a face is ``uncertain``. Raises DataError when the votes
    do not fit the faces.
    """
    first = np.random.default_rng(_SEED).permutation(len(faces)) % 2 == 0
    probabilities = {
        name: softmax(cross_fit(method, logits, faces.labels, first))
        for name, method in adjustment_methods(prior).items()
    }
    parts = [("all faces", np.ones(len(faces), bool)), ("the first half", first), ("the other half", ~first)]
    return tuple(
        Part(name, int(mask.sum()), _rows(probabilities, faces.labels, mask, threshold))
        for name, mask in [*parts, *subsets(faces, votes)]
        if mask.any()
    )


def label_shares(counts: NDArray[np.int64], labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> Shares:
    """The shares of the labels: ``counts`` is ``(7,)``, of Training."""
    measured = np.bincount(labels, minlength=len(FER2013_LABELS)) / len(labels)
    return Shares(*map(_by_label, (counts / counts.sum(), measured, probabilities.mean(axis=0))))


def voted_rows(predicted: NDArray[np.int64], labels: NDArray[np.int64], seen: NDArray[np.int64]) -> Iterator[VotedRow]:
    """For each label what the network calls the faces on which people agree with it, see neutral, or neither.

    All are ``(n,)`` classes; ``seen`` is what most people saw, and -1 where no expression has most votes.
    """
    for number, label in enumerate(FER2013_LABELS):
        agreed = seen == number
        neutral = (seen == _NEUTRAL) & ~agreed
        for people_saw, part in ((label, agreed), ("neutral", neutral), ("something else", ~agreed & ~neutral)):
            called = predicted[part & (labels == number)]
            if len(called):
                so, as_neutral = float((called == number).mean()), float((called == _NEUTRAL).mean())
                yield VotedRow(label, people_saw, len(called), so, as_neutral)


def _read(bundle: Bundle, faces: LabelledFaces) -> NDArray[np.float64]:
    classifier = Classifier(bundle)
    return np.array([classifier.read(face) for face in faces.pixels], np.float64)


def _rows(
    probabilities: dict[str, NDArray[np.float64]], labels: NDArray[np.int64], mask: Mask, threshold: float
) -> tuple[ClassRecallRow, ...]:
    before = probabilities[AS_IT_IS][mask].argmax(axis=1) == labels[mask]
    return tuple(_row(name, of_all[mask], labels[mask], before, threshold) for name, of_all in probabilities.items())


def _row(
    method: str, probabilities: NDArray[np.float64], labels: NDArray[np.int64], before: Mask, threshold: float
) -> ClassRecallRow:
    predicted = probabilities.argmax(axis=1)
    right, covered = predicted == labels, probabilities.max(axis=1) >= threshold
    figures = measure(labels, predicted, FER2013_LABELS)
    recalls = {label: of.recall for label, of in figures.per_class.items() if of.support}
    return ClassRecallRow(
        method=method,
        accuracy=figures.accuracy,
        macro_f1=figures.macro_f1,
        mean_recall=float(np.mean(list(recalls.values()))),
        ece=reliability_diagram(labels, probabilities).ece,
        coverage=float(covered.mean()),
        covered_accuracy=float(right[covered].mean()) if covered.any() else 0.0,
        recalls=recalls,
        accuracy_change=paired_change(before, right, np.zeros(len(labels), np.int64)),
        mean_recall_change=paired_change(before, right, labels),
    )


def paired_change(before: Mask, after: Mask, groups: NDArray[np.int64]) -> Change:
    """How the mean over the groups of the share that is right changed; each group, ``(n,)``, has the same weight."""
    gains = after.astype(np.float64) - before
    of_group = [gains[groups == group] for group in np.unique(groups)]
    variance = sum(one.var() / len(one) for one in of_group) / len(of_group) ** 2
    return Change(100 * float(np.mean([one.mean() for one in of_group])), 100 * float(np.sqrt(variance)))


def _by_label(values: NDArray[np.float64]) -> dict[str, float]:
    return dict(zip(FER2013_LABELS, values.tolist(), strict=True))


def _format_shares(shares: Shares) -> str:
    lines = [f"{'share of each label, %':36}" + _cells(label[:5] for label in FER2013_LABELS)]
    for title, of_label in (
        ("in Training (the prior)", shares.training),
        ("among the measured faces", shares.measured),
        ("mean of the network's probabilities", shares.predicted),
    ):
        lines.append(f"{title:36}" + _percentages(of_label))
    return "\n".join(lines)


def _format_part(part: Part) -> str:
    lines = [
        f"{part.name}: {part.faces:,}; changes in points; recall of each label in %",
        f"{'':{_METHOD_WIDTH}} accuracy          change  macro-F1  mean recall          change    ECE  coverage  "
        "covered accuracy" + _cells(label[:5] for label in part.rows[0].recalls),
    ]
    return "\n".join([*lines, *map(_format_row, part.rows)])


def _format_row(row: ClassRecallRow) -> str:
    return (
        f"{row.method:{_METHOD_WIDTH}} {row.accuracy:8.2%}  {row.accuracy_change}  {row.macro_f1:8.2%}  "
        f"{row.mean_recall:11.2%}  {row.mean_recall_change}  {row.ece:5.3f}  {row.coverage:8.1%}  "
        f"{row.covered_accuracy:16.2%}" + _percentages(row.recalls)
    )


def _percentages(of_label: dict[str, float]) -> str:
    return _cells(f"{100 * share:.1f}" for share in of_label.values())


def _cells(texts: Iterable[str]) -> str:
    return "".join(f"{text:>7}" for text in texts)


def _format_voted(rows: list[VotedRow]) -> list[str]:
    if not rows:
        return []
    lines = [f"{'label':10}{'most people saw':16}{'faces':>6}  called so  called neutral"]
    lines += [
        f"{row.label:10}{row.people_saw:16}{row.faces:6,}  {row.called_so:9.1%}  {row.called_neutral:14.1%}"
        for row in rows
    ]
    return ["\n".join(lines)]


def _as_json(name: str, sha256: str, shares: Shares, parts: tuple[Part, ...], voted: list[VotedRow]) -> dict[str, Any]:
    return {
        "bundle": name,
        "sha256": sha256,
        "shares": _rounded(asdict(shares)),
        "parts": _rounded([asdict(part) for part in parts]),
        "votes": _rounded([asdict(row) for row in voted]),
    }


def _rounded(value: Any) -> Any:
    """JSON values with every float rounded to five digits."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return round(value, 5) if isinstance(value, float) else value
