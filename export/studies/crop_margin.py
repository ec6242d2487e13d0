"""``fer-export margin``: measure how far to widen a detected face so that its crop is framed like FER2013.

A network is trained on faces as FER2013 frames them, and is less accurate on tighter or wider crops. Each face is put
into a scene, detected by the device's detector, cropped with every margin, and classified. The result is compared, pair
by pair, with classifying the same face directly. The face is detected either by a full scan of a still picture, or as
``fer-edge run`` does it: detected, confirmed, and tracked over some frames.
"""

import dataclasses
import json
import math
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Final

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from edge.errors import DataError, UsageError
from edge.evaluation.fer2013 import LabelledFaces, Split, read_faces
from edge.labels import FER2013_LABELS
from edge.model.bundle import Bundle, find_bundle, open_bundle
from edge.model.classifier import Classifier
from edge.model.preprocessing import crop, softmax
from edge.pipeline import make_pipeline
from edge.records import Box, Frame, Gray
from edge.settings import DetectSettings, Settings
from edge.vision.detectors import open_detector
from export.edgetpu.compiled import write_card
from export.golden import find_changeable, golden_scene, write_golden
from export.synthetic.scenes import FER2013_FACE, FPS, HEIGHT, SENSOR_NOISE, WIDTH, Layer

MARGINS: Final = tuple(round(-0.1 + 0.025 * step, 3) for step in range(11))
SIZES: Final = (96, 240)
"""Smallest and largest side, in pixels, of the square that a face fills; uniformly distributed."""

_MIN_IOU: Final = 0.5
_TRACKED_FRAMES: Final = 12
"""Frames over which a face is tracked while it moves by one pixel per frame: about half a second, in which the detector
corrects the track two or three times."""

Finder = Callable[[Layer, Box, np.random.Generator], tuple[Gray, Box, Sequence[Box]]]
"""Takes a scene without noise, its face's square and a random generator. Returns the picture to crop from, the square
in that picture, and the detected boxes."""

_PROGRESS_INTERVAL: Final = 200
_CHOSEN_NOTE: Final = f"; crop margin by {Split.PUBLIC}"


@dataclass(frozen=True)
class MarginTrial:
    """The result of one margin on the faces that were detected.

    ``difference`` is its accuracy minus that of classifying the same faces directly, and ``error`` its standard error.
    ``gained`` counts the faces that are right only when cropped, ``lost`` those that are right only directly; ``p`` is
    McNemar's exact two-sided p-value. ``nll`` is the mean negative log-likelihood of the true label in nats; ``behind``
    is how far it is above that of the best margin, on the same faces, and ``behind_error`` the standard error of that.
    """

    margin: float
    accuracy: float
    difference: float
    error: float
    gained: int
    lost: int
    p: float
    nll: float
    behind: float
    behind_error: float

    @property
    def as_good_as_best(self) -> bool:
        """Whether chance alone may be why the best margin is better: two standard errors."""
        return self.behind <= 2 * self.behind_error


@dataclass(frozen=True)
class MarginStudy:
    """The whole measurement: ``found`` of ``faces`` faces were detected.

    ``direct`` and ``all`` are the accuracies of direct classification, on the detected faces and on all. ``left``,
    ``top`` and ``side`` are the median place of the detector's box in the face's square, as shares of its side.
    """

    faces: int
    found: int
    direct: float
    all: float
    left: float
    top: float
    side: float
    trials: tuple[MarginTrial, ...]

    @property
    def recall(self) -> float:
        """Detection recall: the share of faces that were detected."""
        return self.found / self.faces

    @property
    def best(self) -> MarginTrial:
        """The margin with the lowest NLL, which is less noisy than accuracy."""
        return min(self.trials, key=lambda trial: trial.nll)

    def choose(self, current: float) -> float:
        """The best margin, or the ``current`` one where it is measured and chance may be why another is better."""
        kept = any(trial.margin == current and trial.as_good_as_best for trial in self.trials)
        return current if kept else self.best.margin


def paste_face(face: Gray, square: Box) -> Layer:
    """A scene, ``(HEIGHT, WIDTH)`` float32: ``face`` fills ``square``, and its border is continued, out of focus."""
    enlarged = cv2.resize(face, (square.w, square.h), interpolation=cv2.INTER_CUBIC)
    sides = (square.y, HEIGHT - square.y - square.h, square.x, WIDTH - square.x - square.w)
    wide = cv2.copyMakeBorder(enlarged, *sides, cv2.BORDER_REPLICATE).astype(np.float32)
    inset = max(1, square.w // 40)
    mask = np.zeros((HEIGHT, WIDTH), np.float32)
    mask[square.y + inset : square.y + square.h - inset, square.x + inset : square.x + square.w - inset] = 1
    mask = np.asarray(cv2.GaussianBlur(mask, (0, 0), inset), np.float32)
    return np.asarray(wide * mask + cv2.GaussianBlur(wide, (0, 0), square.w / 10) * (1 - mask), np.float32)


def scan_finder() -> Finder:
    """A finder that detects faces in one picture, as ``fer-edge classify`` does."""
    detector = open_detector(DetectSettings())

    def find(scene: Layer, square: Box, rng: np.random.Generator) -> tuple[Gray, Box, Sequence[Box]]:
        picture = _add_sensor_noise(scene, rng)
        return picture, square, detector.detect(picture)

    return find


def tracking_finder(classifier: Classifier) -> Finder:
    """A finder that detects and tracks faces as ``fer-edge run`` does, over some frames of a moving scene."""
    pipeline = make_pipeline(Settings(), classifier)

    def find(scene: Layer, square: Box, rng: np.random.Generator) -> tuple[Gray, Box, Sequence[Box]]:
        direction = 1 if 2 * square.x + square.w < WIDTH else -1  # towards the middle
        fresh = pipeline.for_new_source(Settings())
        for number in range(_TRACKED_FRAMES):
            shift = np.array([[1.0, 0.0, direction * number], [0.0, 1.0, 0.0]])
            moved = cv2.warpAffine(scene, shift, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REPLICATE)
            seen = fresh.step(Frame(_add_sensor_noise(np.asarray(moved, np.float32), rng), number / FPS))
        moved_square = Box(square.x + direction * (_TRACKED_FRAMES - 1), square.y, square.w, square.h)
        return seen.frame.gray, moved_square, [track.box for track in seen.tracks]

    return find


def _add_sensor_noise(scene: Layer, rng: np.random.Generator) -> Gray:
    """The scene as a noisy sensor records it, uint8."""
    noise = rng.standard_normal((HEIGHT, WIDTH), np.float32)
    return np.asarray(np.clip(np.rint(scene + SENSOR_NOISE * noise), 0, 255), np.uint8)


def study_margins(
    classifier: Classifier, faces: LabelledFaces, margins: Sequence[float], seed: int, find: Finder
) -> MarginStudy:
    """Measure every margin on ``faces``; prints progress to stderr. Raises DataError when no face is detected."""
    direct: list[NDArray[np.float64]] = []
    labels: list[int] = []
    inside: list[tuple[float, float, float]] = []
    cropped: list[list[NDArray[np.float64]]] = [[] for _ in margins]
    right_of_all = 0
    for index, (face, label) in enumerate(zip(faces.pixels, faces.labels, strict=True)):
        if index and index % _PROGRESS_INTERVAL == 0:
            print(f"{index} of {len(faces)} faces, {len(direct)} detected", file=sys.stderr, flush=True)
        alone = softmax(classifier.read(face))
        right_of_all += int(alone.argmax()) == label
        rng = np.random.default_rng([seed, index])
        place = _random_square(rng)
        picture, square, boxes = find(paste_face(face, place), place, rng)
        box = _matching_box(boxes, square)
        if box is None:
            continue
        direct.append(alone)
        labels.append(int(label))
        inside.append(((box.x - square.x) / square.w, (box.y - square.y) / square.h, box.w / square.w))
        for probabilities, margin in zip(cropped, margins, strict=True):
            probabilities.append(softmax(classifier.read(crop(picture, box, margin))))
    if not direct:
        raise DataError(f"none of the {len(faces)} faces was detected in its scene, so there is nothing to compare")
    true = np.array(labels, np.int64)
    alone_right = _right(direct, true)
    losses = [_losses(predictions, true) for predictions in cropped]
    best = min(losses, key=lambda one: float(one.mean()))
    trials = [
        _trial(margin, _right(predictions, true), alone_right, own, best)
        for margin, predictions, own in zip(margins, cropped, losses, strict=True)
    ]
    left, top, side = (float(value) for value in np.median(inside, axis=0))
    return MarginStudy(
        faces=len(faces),
        found=len(direct),
        direct=float(alone_right.mean()),
        all=right_of_all / len(faces),
        left=left,
        top=top,
        side=side,
        trials=tuple(trials),
    )


def _random_square(rng: np.random.Generator) -> Box:
    side = int(rng.integers(SIZES[0], SIZES[1] + 1))
    return Box(int(rng.integers(0, WIDTH - side + 1)), int(rng.integers(0, HEIGHT - side + 1)), side, side)


def _matching_box(boxes: Sequence[Box], square: Box) -> Box | None:
    """The box that best matches where the detector finds such faces; None if its IoU is below one half."""
    left, top, side = (round(part * square.w) for part in FER2013_FACE)
    expected = Box(square.x + left, square.y + top, side, side)
    best = max(boxes, key=expected.overlap, default=None)
    return best if best and expected.overlap(best) >= _MIN_IOU else None


def _right(predictions: Sequence[NDArray[np.float64]], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    return np.asarray(np.array([int(one.argmax()) for one in predictions], np.int64) == labels)


def _losses(predictions: Sequence[NDArray[np.float64]], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """The negative log-likelihood of each face's label in nats, ``(n,)``."""
    return np.array([-math.log(max(one[label], 1e-12)) for one, label in zip(predictions, labels, strict=True)])


def _trial(
    margin: float,
    right: NDArray[np.bool_],
    alone: NDArray[np.bool_],
    losses: NDArray[np.float64],
    best: NDArray[np.float64],
) -> MarginTrial:
    gained, lost = int((right & ~alone).sum()), int((alone & ~right).sum())
    differences = right.astype(np.float64) - alone
    return MarginTrial(
        margin=margin,
        accuracy=float(right.mean()),
        difference=float(differences.mean()),
        error=_standard_error(differences),
        gained=gained,
        lost=lost,
        p=mcnemar_p_value(gained, lost),
        nll=float(losses.mean()),
        behind=float((losses - best).mean()),
        behind_error=_standard_error(losses - best),
    )


def _standard_error(values: NDArray[np.float64]) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else 1.0


def mcnemar_p_value(gained: int, lost: int) -> float:
    """Exact two-sided p-value of ``gained`` against ``lost`` discordant pairs (McNemar 1947, binomial form)."""
    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def margin_command(arguments: Namespace) -> int:
    """``fer-export margin``; returns the exit code."""
    look_up = find_changeable if arguments.write else find_bundle
    bundle = open_bundle(look_up(str(arguments.bundle)), FER2013_LABELS)
    faces = _sample(read_faces(arguments.data, Split.PUBLIC), arguments.faces, arguments.seed)
    classifier = Classifier(bundle)
    find = tracking_finder(classifier) if arguments.followed else scan_finder()
    margins = sorted({*MARGINS, bundle.card.crop_margin})
    fit = study_margins(classifier, faces, margins, arguments.seed, find)
    if arguments.json:
        document = {
            "bundle": bundle.card.name,
            "sha256": bundle.card.sha256,
            "split": faces.split,
            "followed": arguments.followed,
            **asdict(fit),
        }
        print(json.dumps({**document, "recall": round(fit.recall, 4), "best": fit.best.margin}))
    else:
        print(_table(fit, bundle.card.crop_margin))
    if arguments.write:
        _write_chosen(bundle, fit)
    return 0


def _write_chosen(bundle: Bundle, fit: MarginStudy) -> None:
    current, chosen = bundle.card.crop_margin, fit.choose(bundle.card.crop_margin)
    if chosen == current:
        print(f"{bundle.folder}: crop margin {current:.3f} stays: none is better beyond chance", file=sys.stderr)
        return
    write_margin(bundle, chosen)
    print(f"{bundle.folder}: crop margin {chosen:.3f} (was {current:.3f})", file=sys.stderr)


def write_margin(bundle: Bundle, margin: float) -> None:
    """Write another crop margin to a bundle's card, and the golden crops for it; nothing else depends on the margin.

    Raises UsageError when they cannot be written.
    """
    chosen = bundle.card.origin.chosen
    if _CHOSEN_NOTE not in chosen:
        chosen += _CHOSEN_NOTE
    origin = msgspec.structs.replace(bundle.card.origin, chosen=chosen)
    try:
        write_golden(bundle.folder, dataclasses.replace(bundle.golden, scene=golden_scene(margin)))
        write_card(bundle.folder, msgspec.structs.replace(bundle.card, crop_margin=margin, origin=origin))
    except OSError as error:
        raise UsageError(f"{bundle.folder}: its margin cannot be written: {error.strerror or error}") from error


def _table(fit: MarginStudy, current: float) -> str:
    """The measurement as text; ``current`` is the margin on the card."""
    n = fit.found
    lines = [
        f"{n} of {fit.faces} faces detected with IoU >= {_MIN_IOU} ({fit.recall:.1%}); the box starts at "
        f"{fit.left:.2f}, {fit.top:.2f} of the face's square, and its side is {fit.side:.2f} of the square's",
        f"direct classification: {fit.direct:.2%} of these correct, {fit.all:.2%} of all faces",
        "",
        "margin   accuracy   minus direct, points     gained  lost  McNemar p     NLL",
    ]
    for trial in fit.trials:
        notes = " ".join(
            word
            for word, so in (
                ("best", trial is fit.best),
                ("as good", trial is not fit.best and trial.as_good_as_best),
                ("on the card", trial.margin == current),
            )
            if so
        )
        lines.append(
            f"{trial.margin:6.3f} {trial.accuracy:>10.2%} {100 * trial.difference:>+13.2f} +- {100 * trial.error:4.2f} "
            f"{trial.gained:>12} {trial.lost:>5} {trial.p:>10.3f} {trial.nll:>7.3f}  {notes}".rstrip()
        )
    return "\n".join(lines)


def _sample(faces: LabelledFaces, number: int, seed: int) -> LabelledFaces:
    """A random sample of ``number`` faces; all of them when it is 0 or larger than their number."""
    if not 0 < number < len(faces):
        return faces
    kept = np.zeros(len(faces), np.bool_)
    kept[np.random.default_rng(seed).permutation(len(faces))[:number]] = True
    return faces.select(kept)
