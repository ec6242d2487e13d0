"""Saved predictions: a network's logits for the test-time views of labelled faces.

They allow measuring an ensemble without its networks: a teacher has 90 MB and takes an hour to train.
"""

from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from edge.errors import DataError, UsageError
from edge.evaluation.fer2013 import LabelledFaces
from edge.labels import FER2013_LABELS
from edge.untrusted_file import open_regular
from train.outputs import replacing


@dataclass(frozen=True)
class Predictions:
    """One network's logits for k test-time views of n faces.

    ``logits`` is ``(k, n, 7)`` float32 in the order of FER2013_LABELS; ``name`` names the network, ``provenance``
    is what it was made of (train.sources), as JSON.
    """

    logits: NDArray[np.float32]
    name: str
    provenance: str

    def save(self, file: Path, faces: LabelledFaces) -> None:
        """Write the logits for ``faces`` atomically and without rounding. Raises UsageError when that fails."""
        with replacing(file) as target:
            np.savez_compressed(
                target,
                logits=self.logits,
                subject=self.name,
                provenance=self.provenance,
                faces_sha256=faces.sha256(),
            )

    @classmethod
    def load(cls, file: Path, faces: LabelledFaces, views: int) -> "Predictions":
        """Read the predictions for the first ``views`` test-time views of ``faces``.

        Raises DataError when the file holds none, UsageError when they are for other faces or for fewer views.
        """
        try:
            with open_regular(file) as content, np.load(content, allow_pickle=False) as stored:
                logits, faces_sha256 = stored["logits"], str(stored["faces_sha256"])
                name, provenance = str(stored["subject"]), str(stored["provenance"])
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise DataError(
                f"{file}: no saved predictions ({error}). `fer-train evaluate --keep` writes them."
            ) from error
        if logits.dtype != np.float32 or logits.ndim != 3 or logits.shape[2] != len(FER2013_LABELS):
            raise DataError(f"{file}: its logits are {logits.dtype} {logits.shape}, not float32 (k, n, 7)")
        if faces_sha256 != faces.sha256():
            raise UsageError(f"{file}: its predictions are for other faces than these {len(faces)}")
        if len(logits) < views:
            raise UsageError(f"{file}: it has predictions for {len(logits)} views; give --tta {len(logits)}")
        return cls(logits[:views], f"{name}, saved in {file}", provenance)
