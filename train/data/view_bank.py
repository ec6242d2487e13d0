"""The view bank: what teachers say of K fixed augmented views of every training face.

Distillation works best when teacher and student see the same picture (Beyer et al. 2022, arXiv 2106.05237). A teacher
is too slow to be asked again in every epoch, so K views per face are drawn once from a seed, and its logits are kept
as int8: about 200 KB a view. The views themselves are never stored; whoever has the data draws them again.
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from edge.errors import DataError, nearest
from edge.evaluation.fer2013 import LabelledFaces
from edge.model.preprocessing import LABELS, softmax
from train.data.augmentation import augment

_CHUNK: Final = 1024
_PROBES: Final = 64


@dataclass(frozen=True)
class ViewBank:
    """One teacher's logits for the views of one training set.

    ``logits`` is ``(k, n, 7)`` int8 in the order of LABELS, in steps of ``scale``; ``seed`` draws the views;
    ``training_sha256`` names the faces (edge.evaluation.fer2013.LabelledFaces.sha256) and ``teacher`` how the teacher
    was made. ``probes`` are the mean greys of the first faces of view 0, which tell whether the views come out the same
    here.
    """

    logits: NDArray[np.int8]
    scale: float
    seed: int
    training_sha256: str
    teacher: str
    probes: NDArray[np.float32]

    def probabilities(self, view: int, temperature: float) -> NDArray[np.float32]:
        """What the teacher says of one view of every face, ``(n, 7)`` float32, softened by ``temperature``."""
        return np.asarray(softmax(self.logits[view] * (self.scale / temperature)), np.float32)

    def sha256(self) -> str:
        """Hash of the logits, for the run folder."""
        return hashlib.sha256(self.logits.tobytes()).hexdigest()

    def save(self, file: Path) -> None:
        """Write the bank, whole or not at all."""
        making = file.with_name(f"{os.getpid()}-{file.name}")
        with making.open("wb") as target:
            np.savez_compressed(target, **vars(self))
        making.replace(file)

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
                    str(stored["teacher"]),
                    stored["probes"],
                )
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise DataError(f"{file}: not a view bank ({error}). Make one with `fer-train bank RUN`.") from error
        if bank.logits.dtype != np.int8 or bank.logits.ndim != 3 or bank.logits.shape[2] != len(LABELS):
            raise DataError(f"{file}: its logits are {bank.logits.dtype} {bank.logits.shape}, not int8 (k, n, 7)")
        return bank

    def check(self, name: str, training: LabelledFaces) -> None:
        """Refuse other faces than those the teacher saw, and an augmentation that draws other views."""
        if training.sha256() != self.training_sha256:
            raise DataError(
                f"view bank {name}: made for other training faces. It needs FER2013's Training as Kaggle ships it. "
                "For others make one with `fer-train bank`, or go without: --set teachers="
            )
        drawn = _means(draw_view(training.pixels[:_CHUNK], self.seed, 0))
        if np.abs(drawn - self.probes).max() > 1.0:
            raise DataError(f"view bank {name}: train/data/augmentation.py draws other views now; make the bank again")


def draw_view(pixels: NDArray[np.uint8], seed: int, view: int) -> NDArray[np.uint8]:
    """View number ``view`` of every face, ``(n, 48, 48)`` uint8; the same for the same seed and faces."""
    rng = np.random.default_rng([seed, view])
    chunks = [augment(pixels[start : start + _CHUNK], rng) for start in range(0, len(pixels), _CHUNK)]
    return np.concatenate(chunks)


def make_bank(
    predict: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
    training: LabelledFaces,
    views: int,
    seed: int,
    teacher: str,
) -> ViewBank:
    """Ask a teacher about ``views`` views of every training face.

    ``predict`` maps ``(n, 48, 48)`` uint8 to logits ``(n, 7)``. Each row is centred first: the softmax does not see
    it, and the int8 range is used better.
    """
    asked = np.stack([predict(draw_view(training.pixels, seed, view)) for view in range(views)])
    centred = asked - asked.mean(axis=2, keepdims=True)
    scale = max(float(np.abs(centred).max()) / 127, 1e-6)
    logits = np.rint(centred / scale).astype(np.int8)
    probes = _means(draw_view(training.pixels[:_CHUNK], seed, 0))
    return ViewBank(logits, scale, seed, training.sha256(), teacher, probes)


def find_bank(name: str) -> ViewBank:
    """The bank of a name in a checkout's train/banks, or of a path. Raises DataError naming what is there."""
    shipped = Path(str(resources.files("train"))) / "banks"
    for file in (shipped / f"{name}.npz", Path(name)):
        if file.is_file():
            return ViewBank.load(file)
    known = sorted(file.stem for file in shipped.glob("*.npz"))
    if not known:
        raise DataError(
            f"teacher {name!r}: no view bank is installed. They come with a checkout of fer-edge, not with its wheel; "
            "`fer-train bank` makes one of a trained run"
        )
    raise DataError(f"teacher {name!r}: no view bank of that name or path; {nearest(name, known)}")


def _means(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.asarray(pixels[:_PROBES].mean(axis=(1, 2)), np.float32)
