"""FERPlus: ten crowd votes for each FER2013 picture (Barsoum et al. 2016, arXiv 1608.01041; microsoft/FERPlus).

Its majority agrees with FER2013's label for only two thirds of the pictures, so it helps training as an auxiliary
target; it never replaces the labels that accuracy is measured on.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.errors import DataError
from edge.evaluation.csv_table import CsvRow, read_table
from edge.evaluation.fer2013 import LabelledFaces

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


def read_votes(file: Path, faces: LabelledFaces, *others: LabelledFaces) -> NDArray[np.float32]:
    """The share of votes that each face got, ``(n, 10)`` float32 in the order of VOTES; rows add up to 1.

    Votes belong to pictures by the order of their rows alone (the image names of ``fer2013new.csv`` do not count
    rows). ``others`` are further splits of the same data, whose Usage must agree too: that shows rows that went
    missing. Raises DataError naming file, row and reason.
    """
    if faces.rows is None:
        raise DataError(
            f"{file}: votes align with the rows of FER2013's CSV, and a tree of pictures has none. "
            "Give --data the CSV, or --set votes=0."
        )
    table = list(read_table(file, "FERPlus", VOTES))
    for split in (faces, *others):
        _check_rows(file, table, split)
    return np.array([_shares(file, table[row]) for row in faces.rows], np.float32).reshape(-1, len(VOTES))


def _check_rows(file: Path, table: Sequence[CsvRow], faces: LabelledFaces) -> None:
    rows = np.empty(0, np.int64) if faces.rows is None else faces.rows
    if len(table) <= rows.max(initial=-1):
        raise DataError(f"{file}: {len(table)} rows of votes do not reach data row {rows.max()} of the pictures")
    for row in (table[number] for number in rows):
        usage = row.values.get("Usage", faces.split)
        if faces.split is not None and usage != faces.split:
            raise DataError(
                f"{file}, {row}: Usage is {usage!r}, and the picture of that row is of {faces.split}. "
                "One of the two files has lost rows or their order; take both as they were published."
            )


def _shares(file: Path, row: CsvRow) -> NDArray[np.float64]:
    try:
        votes = np.array([float(row.values[name]) for name in VOTES])
    except ValueError as error:
        raise DataError(f"{file}, {row}: not ten votes ({error})") from error
    if not np.isfinite(votes).all() or (votes < 0).any():
        raise DataError(f"{file}, {row}: a vote is not a number from 0")
    if not votes.any():
        raise DataError(f"{file}, {row}: nobody voted")
    return np.asarray(votes / votes.sum(), np.float64)
