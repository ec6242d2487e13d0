"""Read labelled faces: FER2013 as Kaggle ships it, or a folder tree with one folder per label.

Written once, here, because the device's accuracy check needs it; training and export import it.
"""

import csv
import gzip
import hashlib
import io
import lzma
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.contract import INPUT_SIZE, LABELS, resize
from edge.errors import DataError
from edge.records import Gray

SPLITS: Final = ("Training", "PublicTest", "PrivateTest")
"""The values of FER2013's ``Usage`` column."""

_PICTURES: Final = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".pgm"})


@dataclass(frozen=True)
class LabelledFaces:
    """Faces and what they show.

    ``pixels`` is ``(n, 48, 48)`` uint8, ``labels`` ``(n,)`` int64 (index into LABELS), ``rows`` ``(n,)`` int64: the
    0-based data row of each face in its file, which is how FERPlus votes align with it.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, kept: NDArray[np.bool_]) -> "LabelledFaces":
        """The faces for which ``kept``, ``(n,)``, is true."""
        return LabelledFaces(self.pixels[kept], self.labels[kept], self.rows[kept])

    def sha256(self) -> str:
        """Hash of pixels and labels: the same for the plain and any compressed form of one data set."""
        digest = hashlib.sha256(self.pixels.tobytes())
        digest.update(self.labels.astype("<i8").tobytes())
        return digest.hexdigest()


def read_faces(path: Path, split: str | None = None) -> LabelledFaces:
    """Read labelled faces from a FER2013 CSV (plain, .gz, .xz, .zip) or a ``label/*.png`` folder tree.

    ``split`` keeps one value of the CSV's Usage column, or reads that sub-folder of a tree; None reads everything.
    Raises DataError naming file, row and reason.
    """
    if path.is_dir():
        faces = _read_tree(path / split if split else path)
    elif path.is_file():
        faces = _read_csv(path, split)
    else:
        raise DataError(f"{path}: no such file or folder. Give the FER2013 CSV or a folder with one folder per label.")
    if not len(faces):
        where = f"{path}, split {split}" if split else str(path)
        raise DataError(f"{where}: no labelled faces found")
    return faces


def _read_csv(path: Path, split: str | None) -> LabelledFaces:
    if split is not None and split not in SPLITS:
        raise DataError(f"unknown split {split!r}: FER2013 has {', '.join(SPLITS)}")
    pixels: list[bytes] = []
    labels: list[int] = []
    rows: list[int] = []
    try:
        with _open_text(path) as text:
            reader = csv.DictReader(text, skipinitialspace=True)
            missing = {"emotion", "pixels", "Usage"} - {name.strip() for name in reader.fieldnames or ()}
            if missing:
                raise DataError(f"{path}: not a FER2013 CSV, column {', '.join(sorted(missing))} is missing")
            for row, record in enumerate(reader):
                if split is not None and record["Usage"] != split:
                    continue
                pixels.append(_parse_pixels(path, row, record["pixels"]))
                labels.append(_parse_label(path, row, record["emotion"]))
                rows.append(row)
    except (OSError, EOFError, lzma.LZMAError, zipfile.BadZipFile, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    flat = np.frombuffer(b"".join(pixels), np.uint8)
    return LabelledFaces(
        flat.reshape(-1, INPUT_SIZE, INPUT_SIZE), np.asarray(labels, np.int64), np.asarray(rows, np.int64)
    )


def _parse_pixels(path: Path, row: int, text: str | None) -> bytes:
    try:
        values = bytes(map(int, (text or "").split()))
    except ValueError as error:
        raise DataError(f"{path}, data row {row}: a pixel is not a whole number from 0 to 255") from error
    if len(values) != INPUT_SIZE * INPUT_SIZE:
        raise DataError(f"{path}, data row {row}: {len(values)} pixels, expected {INPUT_SIZE * INPUT_SIZE}")
    return values


def _parse_label(path: Path, row: int, text: str | None) -> int:
    if text is None or not text.isdigit() or int(text) >= len(LABELS):
        raise DataError(f"{path}, data row {row}: label {text!r} is not 0..{len(LABELS) - 1}")
    return int(text)


@contextmanager
def _open_text(path: Path) -> Iterator[TextIO]:
    """Open a CSV as text, looking through the compression that its name states."""
    match path.suffix.lower():
        case ".xz":
            with lzma.open(path, "rt", newline="") as text:
                yield text
        case ".gz":
            with gzip.open(path, "rt", newline="") as text:
                yield text
        case ".zip":
            with zipfile.ZipFile(path) as archive:
                names = [name for name in archive.namelist() if name.lower().endswith(".csv")]
                if len(names) != 1:
                    raise DataError(f"{path}: holds {len(names)} CSV files, expected one")
                with archive.open(names[0]) as raw:
                    yield io.TextIOWrapper(raw, newline="")
        case _:
            with path.open(newline="") as text:
                yield text


def _read_tree(folder: Path) -> LabelledFaces:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    names = {child.name for child in folder.iterdir() if child.is_dir()}
    unknown = sorted(names - set(LABELS))
    if unknown or not names:
        found = ", ".join(unknown) or "no folders"
        raise DataError(f"{folder}: expected folders named {', '.join(LABELS)}; found {found}")
    pictures: list[Gray] = []
    labels: list[int] = []
    for label in sorted(names, key=LABELS.index):
        for file in sorted((folder / label).iterdir()):
            if file.suffix.lower() in _PICTURES:
                pictures.append(_read_picture(file))
                labels.append(LABELS.index(label))
    pixels = np.stack(pictures) if pictures else np.empty((0, INPUT_SIZE, INPUT_SIZE), np.uint8)
    return LabelledFaces(pixels, np.asarray(labels, np.int64), np.arange(len(labels)))


def _read_picture(file: Path) -> Gray:
    picture = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
    if picture is None:
        raise DataError(f"{file}: not a readable picture")
    return resize(np.asarray(picture, np.uint8))
