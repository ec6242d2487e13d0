"""View banks: a teacher's logits for K augmented versions ("views") of every training face.

Distillation works best when teacher and student see the same picture (Beyer et al. 2022, arXiv 2106.05237). A teacher
is too slow to run in every epoch. So K views of each face are drawn once from a seed, and the teacher's logits for them
are stored as int8, about 200 KB per view. The views themselves are not stored: the seed and the data give them again.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge.errors import DataError, nearest
from edge.evaluation.fer2013 import LabelledFaces
from edge.labels import FER2013_LABELS
from edge.model.origin import Source
from edge.model.preprocessing import softmax
from train.data.augmentation import augment
from train.data.dataset import Splits
from train.outputs import replacing
from train.sources import earlier_sources

_CHUNK: Final = 1024
_PROBES: Final = 64


@dataclass(frozen=True)
class ViewBank:
    """One teacher's logits for the k views of a training set of n faces.

    ``logits`` is ``(k, n, 7)`` int8 in the order of FER2013_LABELS, in steps of ``scale``. ``seed`` is of the views.
    ``training_sha256`` identifies the faces (edge.evaluation.fer2013.LabelledFaces.sha256); ``sources`` are the
    teacher's network and what it was made of (train.sources). ``probes`` are the mean grey levels of the first faces in
    view 0, by which ``faces_of`` detects that the augmentation draws other views now.
    """

    logits: NDArray[np.int8]
    scale: float
    seed: int
    training_sha256: str
    sources: tuple[Source, ...]
    probes: NDArray[np.float32]

    def probabilities(self, view: int, temperature: float) -> NDArray[np.float32]:
        """The teacher's probabilities for one view of every face, ``(n, 7)`` float32, softened by ``temperature``."""
        return np.asarray(softmax(self.logits[view] * (self.scale / temperature)), np.float32)

    def sha256(self) -> str:
        """Hash of the logits, which ``run.json`` records."""
        return hashlib.sha256(self.logits.tobytes()).hexdigest()

    def save(self, file: Path) -> None:
        """Write the bank atomically. Raises UsageError when it cannot be written."""
        with replacing(file) as target:
            np.savez_compressed(target, **{**vars(self), "sources": msgspec.json.encode(self.sources).decode()})

    @classmethod
    def load(cls, file: Path) -> "ViewBank":
        """Read a bank. Raises DataError when it is not one."""
        try:
            with file.open("rb") as content, np.load(content, allow_pickle=False) as stored:
                bank = cls(
                    stored["logits"],
                    float(stored["scale"]),
                    int(stored["seed"]),
                    str(stored["training_sha256"]),
                    _stored_sources(stored),
                    stored["probes"],
                )
        except (OSError, ValueError, KeyError, EOFError, BadZipFile, msgspec.MsgspecError) as error:
            raise DataError(f"{file}: not a view bank ({error}). Make one with `fer-train bank RUN`.") from error
        if bank.logits.dtype != np.int8 or bank.logits.ndim != 3 or bank.logits.shape[2] != len(FER2013_LABELS):
            raise DataError(f"{file}: its logits are {bank.logits.dtype} {bank.logits.shape}, not int8 (k, n, 7)")
        return bank

    def faces_of(self, name: str, splits: Splits) -> NDArray[np.bool_]:
        """Which faces of ``splits.published`` the bank was made for, in its order, ``(n,)`` bool.

        Raises DataError when it was made for other faces, or when the augmentation draws other views now.
        """
        theirs = splits.find_training(self.training_sha256)
        if theirs is None:
            raise DataError(
                f"view bank {name}: made for other training faces. It needs FER2013's Training as published on Kaggle. "
                "For other faces make a bank with `fer-train bank`, or train without teachers: --set teachers="
            )
        drawn = _mean_greys(draw_view(splits.published.select(theirs).pixels[:_CHUNK], self.seed, 0))
        if np.abs(drawn - self.probes).max() > 1.0:
            raise DataError(
                f"view bank {name}: train/data/augmentation.py draws other views now; make the bank again with "
                "`fer-train bank`"
            )
        return theirs


def draw_view(pixels: NDArray[np.uint8], seed: int, view: int) -> NDArray[np.uint8]:
    """View number ``view`` of every face, ``(n, 48, 48)`` uint8. The same seed and faces give the same view."""
    rng = np.random.default_rng([seed, view])
    chunks = [augment(pixels[start : start + _CHUNK], rng) for start in range(0, len(pixels), _CHUNK)]
    return np.concatenate(chunks)


def make_bank(
    predict: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
    training: LabelledFaces,
    views: int,
    seed: int,
    sources: tuple[Source, ...] = (),
) -> ViewBank:
    """Classify ``views`` views of every training face by a teacher.

    ``predict`` maps ``(n, 48, 48)`` uint8 to logits ``(n, 7)``. The mean of each row is subtracted: softmax does not
    depend on it, and the rest makes better use of the int8 range.
    """
    predicted = np.stack([predict(draw_view(training.pixels, seed, view)) for view in range(views)])
    centred = predicted - predicted.mean(axis=2, keepdims=True)
    scale = max(float(np.abs(centred).max()) / 127, 1e-6)
    logits = np.rint(centred / scale).astype(np.int8)
    probes = _mean_greys(draw_view(training.pixels[:_CHUNK], seed, 0))
    return ViewBank(logits, scale, seed, training.sha256(), sources, probes)


def find_bank(name: str) -> ViewBank:
    """Load a bank of a checkout's train/banks by name, or any bank by path. Raises DataError with the nearest name."""
    shipped = Path(str(resources.files("train"))) / "banks"
    for file in (shipped / f"{name}.npz", Path(name)):
        if file.is_file():
            return ViewBank.load(file)
    known = sorted(file.stem for file in shipped.glob("*.npz"))
    if not known:
        raise DataError(
            f"teacher {name!r}: no view bank is installed. They are in a checkout of fer-edge, not in its wheel: "
            "there, pip install --editable '.[export]'. Or train without teachers: --set teachers="
        )
    raise DataError(f"teacher {name!r}: no view bank with that name or path; {nearest(name, known)}")


def _stored_sources(stored: Any) -> tuple[Source, ...]:
    if "sources" in stored:
        return msgspec.json.decode(str(stored["sources"]), type=tuple[Source, ...])
    return earlier_sources(str(stored["teacher"]))


def _mean_greys(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.asarray(pixels[:_PROBES].mean(axis=(1, 2)), np.float32)
