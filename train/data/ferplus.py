"""FERPlus: ten crowd votes for each FER2013 picture (Barsoum et al. 2016, arXiv 1608.01041; microsoft/FERPlus).

The majority vote agrees with FER2013's label for only two thirds of the pictures. So the votes are an auxiliary target
of training, and accuracy is always measured on FER2013's labels.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.errors import DataError
from edge.evaluation.csv_table import CsvRow, read_table
from edge.evaluation.fer2013 import NO_ROW, LabelledFaces

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


def check_votes(file: Path) -> None:
    """Raise DataError when this is no file of votes. Only its first row is read."""
    next(_rows(file), None)


def read_votes(file: Path, faces: LabelledFaces, *others: LabelledFaces) -> NDArray[np.float32]:
    """Each face's shares of the votes, ``(n, 10)`` float32 in the order of VOTES; each row adds up to 1.

    The rows of faces without votes, which were joined to FER2013's, are 0.

    Votes are matched to pictures by row number alone, since the image names of ``fer2013new.csv`` are no row numbers.
    ``others`` are further splits of the same data. The Usage of their rows must agree too, which detects missing rows.
    Raises DataError with file, row and reason.
    """
    if faces.rows is None:
        raise DataError(
            f"{file}: votes are matched by the rows of FER2013's CSV, and a tree of pictures has no rows. "
            "Give --data the CSV, or --set votes=0."
        )
    table = list(_rows(file))
    for split in (faces, *others):
        _check_rows(file, table, split)
    shares = np.zeros((len(faces), len(VOTES)), np.float32)
    for index in np.flatnonzero(faces.rows != NO_ROW):
        shares[index] = _shares(file, table[faces.rows[index]])
    return shares


def _rows(file: Path) -> Iterator[CsvRow]:
    return read_table(file, "FERPlus", VOTES, optional=("Usage",))


def _check_rows(file: Path, table: Sequence[CsvRow], faces: LabelledFaces) -> None:
    rows = np.empty(0, np.int64) if faces.rows is None else faces.rows
    if len(table) <= rows.max(initial=-1):
        raise DataError(f"{file}: it has {len(table)} rows, too few for data row {rows.max()} of the pictures")
    for row in (table[number] for number in rows if number != NO_ROW):
        usage = row.values.get("Usage", faces.split)
        if faces.split is not None and usage != faces.split:
            raise DataError(
                f"{file}, {row}: Usage is {usage!r}, but the picture of that row belongs to {faces.split}. "
                "One of the two files lacks rows or has them in another order; use both as they were published."
            )


def _shares(file: Path, row: CsvRow) -> NDArray[np.float64]:
    try:
        votes = np.array([float(row.values[name]) for name in VOTES])
    except ValueError as error:
        raise DataError(f"{file}, {row}: not ten votes ({error})") from error
    if not np.isfinite(votes).all() or (votes < 0).any():
        raise DataError(f"{file}, {row}: a vote is negative or not finite")
    if not votes.any():
        raise DataError(f"{file}, {row}: all votes are 0")
    return np.asarray(votes / votes.sum(), np.float64)
