"""Near twins: pictures of FER2013 that show the same photograph, moved by some pixels, mirrored, or compressed again.

``fer2013-twins.csv`` lists them by their rows in the CSV. train.data.twin_search found them.
"""

from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.evaluation.fer2013 import NO_ROW, LabelledFaces, Split
from train.outputs import replacing

_SHIPPED: Final = Path(str(resources.files("train.data"))) / "fer2013-twins.csv"
_PUBLIC_ROWS: Final = range(28_709, 28_709 + 3_589)  # of FER2013's CSV
_HEADER: Final = "# twins of the FER2013 whose Training has the sha256 "


def twins_of(
    published: LabelledFaces, first: LabelledFaces, public: LabelledFaces, listed: Path = _SHIPPED
) -> NDArray[np.bool_]:
    """Which faces of ``published``, ``(n,)`` bool, have a twin in ``public``.

    The list that comes with the program is used, so only FER2013 has twins: ``first`` is the Training of the first data
    set, with which ``published`` begins. ``listed`` is another list.
    """
    found = np.zeros(len(published), np.bool_)
    training_sha256, pairs = read_list(listed)
    if first.rows is not None and public.rows is not None and first.sha256() == training_sha256:
        found[: len(first)] = _linked(first.rows, pairs, public.rows)
    return found


def has_listed_twin(faces: LabelledFaces) -> NDArray[np.bool_]:
    """Which faces of FER2013's PublicTest, ``(n,)`` bool, have a twin in Training; none for other data.

    The rows of a split and the number of its faces tell FER2013 here, since only that split was read.
    """
    _, pairs = read_list(_SHIPPED)
    if faces.rows is None or faces.split is not Split.PUBLIC or faces.rows.tolist() != list(_PUBLIC_ROWS):
        return np.zeros(len(faces), np.bool_)
    return _linked(faces.rows, pairs, np.arange(_PUBLIC_ROWS.start))


def _linked(rows: NDArray[np.int64], pairs: list[tuple[int, int]], others: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of ``rows`` are twins of one of ``others``, which are different rows."""
    measured = set(others[others != NO_ROW].tolist())
    linked = {one for pair in pairs for one, other in (pair, pair[::-1]) if other in measured}
    return np.isin(rows, sorted(linked))


def write_list(file: Path, training_sha256: str, twins: Iterable[tuple[int, int, float]]) -> None:
    """Write twins as a CSV: the two rows of each pair in FER2013's CSV, counted from 0, and their correlation.

    Raises UsageError when it cannot be written.
    """
    lines = [f"{_HEADER}{training_sha256}", "row,twin_row,correlation"]
    lines += [f"{one},{other},{correlation:.3f}" for one, other, correlation in sorted(twins)]
    with replacing(file) as target:
        target.write(("\n".join(lines) + "\n").encode())


def read_list(file: Path) -> tuple[str, list[tuple[int, int]]]:
    """What ``write_list`` wrote: the hash of Training, and the pairs of rows."""
    header, _, *lines = file.read_text().splitlines()
    pairs = [(int(one), int(other)) for one, other, _ in (line.split(",") for line in lines)]
    return header.removeprefix(_HEADER), pairs
