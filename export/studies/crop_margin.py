"""``fer-export margin``: how far to widen a box of the cascade for its crop to look like FER2013 to a network.

A network knows faces as they are framed in FER2013, and is worse at tighter or wider crops. Each face is put into a
scene, found by the device's detector, cut out with every margin, and classified; the same face classified directly is
what it is compared with, pair by pair. It is found either as in a still, by a scan of the whole picture, or as
``fer-edge run`` does it: proposed, judged, and followed for a while.
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

from edge.errors import DataError, UsageError
from edge.evaluation.fer2013 import LabelledFaces, Split, read_faces
from edge.model.bundle import Bundle, find_bundle, open_bundle
from edge.model.classifier import Classifier
from edge.model.preprocessing import crop, softmax
from edge.pipeline import make_pipeline
from edge.records import Box, Frame, Gray
from edge.settings import DetectSettings, Settings
from edge.vision.detector import FaceDetector
from export.edgetpu.compiled import write_card
from export.golden import golden_scene, write_golden
from export.synthetic.scenes import FER2013_FACE, FPS, HEIGHT, SENSOR_NOISE, WIDTH, Layer

MARGINS: Final = tuple(round(-0.1 + 0.025 * step, 3) for step in range(11))
SIZES: Final = (96, 240)
"""Sides in pixels between which a face's whole square is drawn evenly."""

_FOUND: Final = 0.5
_FOLLOWED: Final = 12
"""Frames through which a face is followed, moving by a pixel in each: about half a second, in which the cascade
corrects its place two or three times."""

Finder = Callable[[Layer, Box, np.random.Generator], tuple[Gray, Box, Sequence[Box]]]
"""From a scene without noise and its face's square to the picture to crop from, the square in it, and the boxes found
there."""

_NEWS_EVERY: Final = 200
_CHOSEN: Final = f"; crop margin by {Split.PUBLIC}"


@dataclass(frozen=True)
class MarginTrial:
    """What one margin gives on the faces that were found.

    ``difference`` is its accuracy less that of classifying the same faces directly, ``error`` the standard error of
    that. ``gained`` faces are right only so, ``lost`` ones only directly; ``p`` is McNemar's exact two-sided p-value.
    ``nll`` is the mean negative log-likelihood of the true label in nats.
    """

    margin: float
    accuracy: float
    difference: float
    error: float
    gained: int
    lost: int
    p: float
    nll: float


@dataclass(frozen=True)
class MarginStudy:
    """The whole measurement: ``found`` of ``faces`` were found; ``direct`` is the accuracy on these, ``all`` on all.

    ``left``, ``top`` and ``side`` are the medians of where the detector's box lies in the face's square, as shares of
    its side.
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
        """The share of faces that were found."""
        return self.found / self.faces

    @property
    def best(self) -> MarginTrial:
        """The margin with the best accuracy; of several, the one whose answers are likelier."""
        return max(self.trials, key=lambda trial: (trial.accuracy, -trial.nll))


def paste_face(face: Gray, square: Box) -> Layer:
    """A scene, ``(HEIGHT, WIDTH)``, with a face filling ``square``: what is around it goes on, out of focus."""
    enlarged = cv2.resize(face, (square.w, square.h), interpolation=cv2.INTER_CUBIC)
    sides = (square.y, HEIGHT - square.y - square.h, square.x, WIDTH - square.x - square.w)
    wide = cv2.copyMakeBorder(enlarged, *sides, cv2.BORDER_REPLICATE).astype(np.float32)
    inset = max(1, square.w // 40)
    mask = np.zeros((HEIGHT, WIDTH), np.float32)
    mask[square.y + inset : square.y + square.h - inset, square.x + inset : square.x + square.w - inset] = 1
    mask = np.asarray(cv2.GaussianBlur(mask, (0, 0), inset), np.float32)
    return np.asarray(wide * mask + cv2.GaussianBlur(wide, (0, 0), square.w / 10) * (1 - mask), np.float32)


def scan_finder() -> Finder:
    """Finds faces in one picture, as ``fer-edge classify`` does."""
    detector = FaceDetector(DetectSettings())

    def find(scene: Layer, square: Box, rng: np.random.Generator) -> tuple[Gray, Box, Sequence[Box]]:
        picture = _exposed(scene, rng)
        return picture, square, detector.detect(picture)

    return find


def tracking_finder(classifier: Classifier) -> Finder:
    """Finds faces as ``fer-edge run`` does, and follows them for some frames, in which all of the scene moves."""
    stream = make_pipeline(Settings(), classifier)

    def find(scene: Layer, square: Box, rng: np.random.Generator) -> tuple[Gray, Box, Sequence[Box]]:
        forth = 1 if 2 * square.x + square.w < WIDTH else -1  # towards the middle
        watching = stream.for_new_source(Settings())
        for number in range(_FOLLOWED):
            shift = np.array([[1.0, 0.0, forth * number], [0.0, 1.0, 0.0]])
            moved = cv2.warpAffine(scene, shift, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REPLICATE)
            seen = watching.step(Frame(_exposed(np.asarray(moved, np.float32), rng), number / FPS))
        there = Box(square.x + forth * (_FOLLOWED - 1), square.y, square.w, square.h)
        return seen.frame.gray, there, [track.box for track in seen.tracks]

    return find


def _exposed(scene: Layer, rng: np.random.Generator) -> Gray:
    """A scene as a noisy sensor sees it."""
    noise = rng.standard_normal((HEIGHT, WIDTH), np.float32)
    return np.asarray(np.clip(np.rint(scene + SENSOR_NOISE * noise), 0, 255), np.uint8)


def study_margins(
    classifier: Classifier, faces: LabelledFaces, margins: Sequence[float], seed: int, find: Finder
) -> MarginStudy:
    """Measure every margin on ``faces``; says on stderr how far it is. Raises DataError when no face is found."""
    direct: list[NDArray[np.float64]] = []
    labels: list[int] = []
    inside: list[tuple[float, float, float]] = []
    cropped: list[list[NDArray[np.float64]]] = [[] for _ in margins]
    right_of_all = 0
    for index, (face, label) in enumerate(zip(faces.pixels, faces.labels, strict=True)):
        if index and index % _NEWS_EVERY == 0:
            print(f"{index} of {len(faces)} faces, {len(direct)} found", file=sys.stderr, flush=True)
        alone = softmax(classifier.read(face))
        right_of_all += int(alone.argmax()) == label
        rng = np.random.default_rng([seed, index])
        place = _somewhere(rng)
        picture, square, boxes = find(paste_face(face, place), place, rng)
        box = _nearest(boxes, square)
        if box is None:
            continue
        direct.append(alone)
        labels.append(int(label))
        inside.append(((box.x - square.x) / square.w, (box.y - square.y) / square.h, box.w / square.w))
        for answers, margin in zip(cropped, margins, strict=True):
            answers.append(softmax(classifier.read(crop(picture, box, margin))))
    if not direct:
        raise DataError(f"none of the {len(faces)} faces was found in its scene: there is nothing to compare")
    true = np.array(labels, np.int64)
    alone_right = _right(direct, true)
    trials = [_trial(margin, answers, alone_right, true) for margin, answers in zip(margins, cropped, strict=True)]
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


def _somewhere(rng: np.random.Generator) -> Box:
    side = int(rng.integers(SIZES[0], SIZES[1] + 1))
    return Box(int(rng.integers(0, WIDTH - side + 1)), int(rng.integers(0, HEIGHT - side + 1)), side, side)


def _nearest(boxes: Sequence[Box], square: Box) -> Box | None:
    """The box that fits best where the cascade finds such faces; None when none does with IoU of at least one half."""
    left, top, side = (round(part * square.w) for part in FER2013_FACE)
    expected = Box(square.x + left, square.y + top, side, side)
    best = max(boxes, key=expected.overlap, default=None)
    return best if best and expected.overlap(best) >= _FOUND else None


def _right(answers: Sequence[NDArray[np.float64]], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    return np.asarray(np.array([int(answer.argmax()) for answer in answers], np.int64) == labels)


def _trial(
    margin: float, answers: Sequence[NDArray[np.float64]], alone: NDArray[np.bool_], labels: NDArray[np.int64]
) -> MarginTrial:
    right = _right(answers, labels)
    gained, lost = int((right & ~alone).sum()), int((alone & ~right).sum())
    differences = right.astype(np.float64) - alone
    error = float(differences.std(ddof=1) / math.sqrt(len(right))) if len(right) > 1 else 1.0
    nll = -float(np.mean([math.log(max(answer[label], 1e-12)) for answer, label in zip(answers, labels, strict=True)]))
    return MarginTrial(
        margin, float(right.mean()), float(differences.mean()), error, gained, lost, mcnemar_p_value(gained, lost), nll
    )


def mcnemar_p_value(gained: int, lost: int) -> float:
    """Exact two-sided p-value of ``gained`` against ``lost`` discordant pairs (McNemar 1947, binomial form)."""
    n, fewer = gained + lost, min(gained, lost)
    return min(1.0, float(2 * sum(math.comb(n, k) for k in range(fewer + 1)) / 2**n))


def margin_command(arguments: Namespace) -> int:
    """Carry out ``fer-export margin`` with its parsed arguments."""
    bundle = open_bundle(find_bundle(str(arguments.bundle)))
    faces = _drawn(read_faces(arguments.data, Split.PUBLIC), arguments.faces, arguments.seed)
    classifier = Classifier(bundle)
    find = tracking_finder(classifier) if arguments.followed else scan_finder()
    fit = study_margins(classifier, faces, MARGINS, arguments.seed, find)
    if arguments.json:
        told = {
            "bundle": bundle.card.name,
            "sha256": bundle.card.sha256,
            "split": faces.split,
            "followed": arguments.followed,
            **asdict(fit),
        }
        print(json.dumps({**told, "recall": round(fit.recall, 4), "best": fit.best.margin}))
    else:
        print(_table(fit, bundle.card.crop_margin))
    if arguments.write:
        write_margin(bundle, fit.best.margin)
        print(
            f"{bundle.folder}: crop margin {fit.best.margin:.3f} (was {bundle.card.crop_margin:.3f})", file=sys.stderr
        )
    return 0


def write_margin(bundle: Bundle, margin: float) -> None:
    """Write a bundle's card anew with another crop margin, and its golden crops; nothing else of it depends on that.

    Raises UsageError when they cannot be written.
    """
    chosen = bundle.card.origin.chosen
    if _CHOSEN not in chosen:
        chosen += _CHOSEN
    origin = msgspec.structs.replace(bundle.card.origin, chosen=chosen)
    try:
        write_golden(bundle.folder, dataclasses.replace(bundle.golden, scene=golden_scene(margin)))
        write_card(bundle.folder, msgspec.structs.replace(bundle.card, crop_margin=margin, origin=origin))
    except OSError as error:
        raise UsageError(f"{bundle.folder}: its margin cannot be written: {error.strerror or error}") from error


def _table(fit: MarginStudy, now: float) -> str:
    """The measurement for a person; ``now`` is the margin that the card has."""
    n = fit.found
    lines = [
        f"{n} of {fit.faces} faces found with IoU >= {_FOUND} ({fit.recall:.1%}); its box begins at "
        f"{fit.left:.2f}, {fit.top:.2f} of the face's square and has {fit.side:.2f} of its side",
        f"classified directly: {fit.direct:.2%} of these right, {fit.all:.2%} of all",
        "",
        "margin   accuracy   against direct, points   gained  lost  McNemar p     NLL",
    ]
    for trial in fit.trials:
        told = " ".join(word for word, so in (("best", trial is fit.best), ("on the card", trial.margin == now)) if so)
        lines.append(
            f"{trial.margin:6.3f} {trial.accuracy:>10.2%} {100 * trial.difference:>+13.2f} +- {100 * trial.error:4.2f} "
            f"{trial.gained:>12} {trial.lost:>5} {trial.p:>10.3f} {trial.nll:>7.3f}  {told}".rstrip()
        )
    return "\n".join(lines)


def _drawn(faces: LabelledFaces, number: int, seed: int) -> LabelledFaces:
    """``number`` of the faces; all of them when it is 0 or more than there are."""
    if not 0 < number < len(faces):
        return faces
    kept = np.zeros(len(faces), np.bool_)
    kept[np.random.default_rng(seed).permutation(len(faces))[:number]] = True
    return faces.select(kept)
