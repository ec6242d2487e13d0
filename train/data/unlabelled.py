"""Read faces without labels: a CSV with a column ``pixels``, as the challenge's test.csv, or a folder of pictures."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.camera.picture_file import PICTURES, read_gray
from edge.errors import DataError, SourceError
from edge.evaluation.csv_table import read_table
from edge.evaluation.fer2013 import BadRow, parse_pixels
from edge.evaluation.picture_tree import pictures
from edge.model.preprocessing import INPUT_SIZE, resize
from edge.untrusted_file import is_file, is_folder

_CSV_FILE_NAMES: Final = ("test.csv",)
_WHAT_TO_GIVE: Final = "Give a CSV with a column pixels, or a folder of pictures"


@dataclass(frozen=True)
class UnlabelledFaces:
    """Faces, ``(n, 48, 48)`` uint8, and the name of each: its 0-based data row in a CSV, or its picture's path.

    ``named_by`` is ``row`` or ``picture``.
    """

    pixels: NDArray[np.uint8]
    names: tuple[str, ...]
    named_by: str


def read_unlabelled(path: Path) -> UnlabelledFaces:
    """Read every row of a CSV, whatever other columns it has, or every picture of a tree, whatever its folders.

    Each picture is a cropped face, as in a labelled tree. Raises DataError, naming row or picture, for the first one
    that is no face: a file of answers has one for each.
    """
    if is_folder(path):
        names, faces, named_by = *_read_pictures(path), "picture"
    elif path.suffix.lower() in PICTURES:
        raise DataError(f"{path}: a single picture. Give the folder that it is in, or a CSV with a column pixels")
    elif is_file(path):
        names, faces, named_by = *_read_rows(path), "row"
    else:
        raise DataError(f"{path}: no such file or folder. {_WHAT_TO_GIVE}")
    if not faces:
        raise DataError(f"{path}: no faces found. {_WHAT_TO_GIVE}")
    pixels = np.frombuffer(b"".join(faces), np.uint8).reshape(-1, INPUT_SIZE, INPUT_SIZE)
    return UnlabelledFaces(pixels, tuple(names), named_by)


def _read_rows(path: Path) -> tuple[list[str], list[bytes]]:
    names, faces = [], []
    for row in read_table(path, "faces", ("pixels",), preferred=_CSV_FILE_NAMES):
        pixels = parse_pixels(row)
        if isinstance(pixels, BadRow):
            raise DataError(f"{path}, {pixels}")
        names.append(str(row.number))
        faces.append(pixels)
    return names, faces


def _read_pictures(folder: Path) -> tuple[list[str], list[bytes]]:
    names = pictures(folder)
    try:
        return names, [resize(read_gray(folder / name)).tobytes() for name in names]
    except SourceError as error:
        raise DataError(f"{error}. Mend that picture, or move it away") from error
