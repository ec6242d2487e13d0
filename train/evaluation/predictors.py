"""Predictors: networks that classify faces, from a training run (Keras, float32) or a bundle (its int8 file)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.errors import UsageError
from edge.events.episodes import DEFAULT_TUNING
from edge.labels import FER2013_LABELS, Labels
from edge.model.bundle import CARD_FILE, bundled, find_bundle, open_bundle
from edge.model.classifier import CardTerms, Classifier
from edge.model.origin import Source
from edge.model.preprocessing import CROP_MARGIN, softmax
from edge.records import EventTuning
from train.checkpoints import BEST_WEIGHTS
from train.data.dataset import read_splits
from train.data.view_bank import ViewBank, make_bank
from train.init.from_bundle import bundle_sources
from train.progress import print_line
from train.run import Run
from train.sources import sha256_of
from train.trainer import compile_logits

_SHIFTS: Final = ((0, 0), (2, 2), (2, -2), (-2, 2), (-2, -2))
_MOST_VIEWS: Final = 2 * len(_SHIFTS)


@dataclass(frozen=True)
class RunTerms:
    """What a bundle's card states, for a run, which has none: that of a new bundle, and no abstention.

    A run's confidences are not calibrated, so it has no threshold below which an expression is uncertain.
    """

    name: str
    sha256: str
    labels: Labels = FER2013_LABELS
    crop_margin: float = CROP_MARGIN
    events: EventTuning = DEFAULT_TUNING
    threshold: float = 0.0


@dataclass(frozen=True)
class Predictor:
    """A trained network.

    ``logits`` maps faces ``(n, 48, 48)`` uint8 to ``(n, 7)`` float32; a bundle's are divided by its card's temperature.
    ``sources`` are the network and what it was made of; ``training_sha256`` identifies the faces it was trained on.
    ``card`` is a bundle's, or what a run has in its place.
    """

    name: str
    logits: Callable[[NDArray[np.uint8]], NDArray[np.float32]]
    sources: tuple[Source, ...]
    training_sha256: str
    card: CardTerms

    def probabilities(self, pixels: NDArray[np.uint8], views: int) -> NDArray[np.float64]:
        """The mean probabilities, ``(n, 7)``, over the first ``views`` test-time views of faces ``(n, 48, 48)``."""
        logits = [self.logits(shifted_view(pixels, number)) for number in range(views)]
        return np.asarray(np.mean([softmax(one) for one in logits], axis=0), np.float64)


def check_views(views: int) -> None:
    """Raise UsageError for a number of test-time views that there is not."""
    if not 1 <= views <= _MOST_VIEWS:
        raise UsageError(f"--tta {views}: test-time augmentation has 1 to {_MOST_VIEWS} views")


def shifted_view(pixels: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
    """Test-time view ``number``, 0 to 9, of faces ``(n, 48, 48)``.

    View 0 is the face itself, the next its mirror image. The others are shifted by two pixels in four directions, each
    followed by its mirror image; border pixels are repeated.
    """
    (down, right), mirrored = _SHIFTS[number // 2], number % 2
    padded = np.pad(pixels, ((0, 0), (2, 2), (2, 2)), mode="edge")
    height, width = pixels.shape[1:]
    shifted = padded[:, 2 - down : 2 - down + height, 2 - right : 2 - right + width]
    return shifted[:, :, ::-1] if mirrored else shifted


def open_predictor(path: Path) -> Predictor:
    """Open a run folder, a bundle's folder, or a bundled model by its name. It tells when the run's training goes on.

    Raises UsageError when ``path`` is none of these or a run without weights, BundleError for a damaged bundle.
    """
    if not path.exists() and str(path) not in bundled():
        raise UsageError(f"{path}: no run folder, no bundle's folder and no bundled model ({', '.join(bundled())})")
    if str(path) in bundled() or (path / CARD_FILE).exists() or not path.is_dir():
        return _bundle(path)
    run = Run.load(path)
    run.warn_unfinished(path)
    return Predictor(
        f"run {path}, Keras float32",
        compile_logits(run.model(path)),
        run.as_sources(path),
        run.training_sha256,
        RunTerms(run.recipe.name, sha256_of(path / BEST_WEIGHTS)),
    )


def _bundle(path: Path) -> Predictor:
    bundle = open_bundle(find_bundle(str(path)), FER2013_LABELS)
    classifier = Classifier(bundle, threads=1)
    return Predictor(
        f"bundle {path}, int8 on {classifier.runtime}",
        lambda pixels: np.array([classifier.read(face) for face in pixels], np.float32),
        bundle_sources(bundle.card),
        bundle.card.origin.training_sha256,
        bundle.card,
    )


def make_teacher_bank(path: Path, data: Sequence[Path], views: int, seed: int) -> ViewBank:
    """Make a view bank: the logits of a run or bundle for ``views`` augmented views of every training face of ``data``.

    The first data set is what it was trained on, alone or with the others. Raises UsageError when it is not, and what
    ``open_predictor`` raises.
    """
    teacher = open_predictor(path)
    splits = read_splits(*data, skip_bad=True)
    shown = splits.find_with_joined(teacher.training_sha256)
    if shown is None:
        raise UsageError(f"{' and '.join(map(str, data))} is not the data that {path} was trained on")

    def logits(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        print_line(f"classifying one view of {len(pixels)} faces")
        return teacher.logits(pixels)

    return make_bank(logits, splits.published.select(shown), views, seed, teacher.sources)
