"""Predictions that are kept: what a network says of the test-time views of labelled faces.

Whoever has the answers measures an ensemble without the networks: a teacher has 90 MB and takes an hour to be trained.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from edge.errors import DataError, UsageError
from edge.evaluation.fer2013 import LabelledFaces
from edge.model.preprocessing import LABELS


@dataclass(frozen=True)
class Predictions:
    """One network's logits for k test-time views of n faces.

    ``logits`` is ``(k, n, 7)`` float32 in the order of LABELS; ``subject`` says what was asked, ``provenance`` how its
    weights were made.
    """

    logits: NDArray[np.float32]
    subject: str
    provenance: str

    def save(self, file: Path, faces: LabelledFaces) -> None:
        """Write the answers about ``faces`` exactly, whole or not at all."""
        making = file.with_name(f"{os.getpid()}-{file.name}")
        with making.open("wb") as target:
            np.savez_compressed(
                target,
                logits=self.logits,
                subject=self.subject,
                provenance=self.provenance,
                faces_sha256=faces.sha256(),
            )
        making.replace(file)

    @classmethod
    def load(cls, file: Path, faces: LabelledFaces, views: int) -> "Predictions":
        """Read the answers about the first ``views`` test-time views of ``faces``.

        Raises DataError when the file holds none, UsageError when they are about other faces or fewer views.
        """
        try:
            with file.open("rb") as content, np.load(content, allow_pickle=False) as stored:
                logits, seen = stored["logits"], str(stored["faces_sha256"])
                subject, provenance = str(stored["subject"]), str(stored["provenance"])
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise DataError(f"{file}: no kept answers ({error}). `fer-train evaluate --keep` makes them.") from error
        if logits.dtype != np.float32 or logits.ndim != 3 or logits.shape[2] != len(LABELS):
            raise DataError(f"{file}: its logits are {logits.dtype} {logits.shape}, not float32 (k, n, 7)")
        if seen != faces.sha256():
            raise UsageError(f"{file}: its answers are about other faces than these {len(faces)}")
        if len(logits) < views:
            raise UsageError(f"{file}: it has answers about {len(logits)} views; give --tta {len(logits)}")
        return cls(logits[:views], f"{subject}, kept in {file}", provenance)
