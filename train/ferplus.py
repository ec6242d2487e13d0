"""FERPlus: ten crowd votes for each FER2013 picture (Barsoum et al. 2016, arXiv 1608.01041; microsoft/FERPlus).

Its majority agrees with FER2013's label for only two thirds of the pictures, so it helps training as an auxiliary
target; it never replaces the labels that accuracy is measured on.
"""

import csv
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.errors import DataError
from edge.fer2013 import LabelledFaces

VOTES: Final = (
    "neutral",
    "happiness",
    "surprise",
    "sadness",
    "anger",
    "disgust",
    "fear",
    "contempt",
    "unknown",
    "NF",
)
"""The columns of ``fer2013new.csv`` that hold votes; NF: not a face."""


def read_votes(file: Path, faces: LabelledFaces) -> NDArray[np.float32]:
    """The share of votes that each face got, ``(n, 10)`` float32 in the order of VOTES; rows add up to 1.

    Raises DataError naming file, row and reason.
    """
    try:
        with file.open(newline="") as text:
            rows = [_shares(file, number, row) for number, row in enumerate(csv.DictReader(text))]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: cannot be read: {error}") from error
    if len(rows) <= faces.rows.max(initial=-1):
        raise DataError(f"{file}: {len(rows)} rows of votes do not reach data row {faces.rows.max()} of the pictures")
    return np.asarray(rows, np.float32)[faces.rows]


def _shares(file: Path, number: int, row: dict[str, str]) -> NDArray[np.float64]:
    try:
        votes = np.array([float(row[name]) for name in VOTES])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{file}, data row {number}: not ten votes ({error})") from error
    if votes.sum() <= 0:
        raise DataError(f"{file}, data row {number}: nobody voted")
    return np.asarray(votes / votes.sum(), np.float64)
