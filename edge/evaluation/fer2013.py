"""Read labelled faces: FER2013's CSV in any form it is distributed in, or a folder tree with one folder per label.

The device needs this to check accuracy; training and export import it. docs/data.md describes the forms.
"""

import hashlib
import logging
import os
import re
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path, PurePath
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.camera.picture_file import PICTURES, read_gray
from edge.errors import DataError, SourceError
from edge.evaluation.csv_table import CsvRow, read_table
from edge.model.preprocessing import INPUT_SIZE, LABELS, resize
from edge.untrusted_file import is_file, is_folder

_log = logging.getLogger(__name__)


class Split(StrEnum):
    """The parts of a data set.

    The first three are FER2013's. VALIDATION and TEST are folders of trees and not FER2013's splits: a tree's ``test``
    mixes PublicTest and PrivateTest. UNSPLIT are the pictures of a tree that states no split.
    """

    TRAINING = "Training"
    PUBLIC = "PublicTest"
    PRIVATE = "PrivateTest"
    VALIDATION = "validation"
    TEST = "test"
    UNSPLIT = "unsplit"

    @classmethod
    def named(cls, name: str) -> "Split":
        """The split that a user or a folder names, in upper or lower case. Raises DataError for an unknown name."""
        if (split := _SPLIT_NAMES.get(name.lower())) is None:
            raise DataError(f"unknown split {name!r}: choose from {', '.join(cls)}")
        return split


_SPLIT_NAMES: Final = {
    **{split.value.lower(): split for split in Split},
    "train": Split.TRAINING,
    "val": Split.VALIDATION,
    "valid": Split.VALIDATION,
}
MEASURED: Final = (Split.PUBLIC, Split.VALIDATION, Split.TEST)
"""Accuracy is measured on the first of these that the data has; on PrivateTest only when a user asks for it."""

NO_ROW: Final = -1
"""The row of a face that was joined to a CSV's faces and is in no row of it."""

_SPLIT_OF_USAGE: Final = {name: split for name, split in _SPLIT_NAMES.items() if split is not Split.UNSPLIT}
_CSV_FILE_NAMES: Final = ("fer2013.csv", "icml_face_data.csv")
_VALUE_OF_PIXEL: Final = {f"{value}{zeros}": value for value in range(256) for zeros in ("", ".0")}
_CLASS_OF_NAME: Final = {
    **{label: index for index, label in enumerate(LABELS)},
    **{
        name: LABELS.index(label)
        for name, label in (
            ("anger", "angry"),
            ("disgusted", "disgust"),
            ("fearful", "fear"),
            ("happiness", "happy"),
            ("sadness", "sad"),
            ("surprised", "surprise"),
        )
    },
}
_CLASS_IN_CSV: Final = {
    **_CLASS_OF_NAME,
    **{f"{index}{zeros}": index for index in range(len(LABELS)) for zeros in ("", ".0")},
}
_SPLIT_IN_FILE_NAME: Final = re.compile(r"(Training|PublicTest|PrivateTest)_", re.IGNORECASE)


@dataclass(frozen=True)
class LabelledFaces:
    """Faces with their labels.

    ``pixels`` is ``(n, 48, 48)`` uint8, ``labels`` ``(n,)`` int64 (index into LABELS). ``rows`` is ``(n,)`` int64: the
    0-based data row of each face in its CSV, to which FERPlus votes are aligned, or NO_ROW; trees have none. ``split``
    is the one that all faces belong to, or None for all splits together.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    rows: NDArray[np.int64] | None
    split: Split | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, kept: NDArray[np.bool_]) -> "LabelledFaces":
        """The faces for which ``kept``, ``(n,)`` bool, is true."""
        rows = None if self.rows is None else self.rows[kept]
        return LabelledFaces(self.pixels[kept], self.labels[kept], rows, self.split)

    def sha256(self) -> str:
        """Hash of pixels and labels; it is the same for every form of one data set."""
        digest = hashlib.sha256(self.pixels.tobytes())
        digest.update(self.labels.astype("<i8").tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class BadRow:
    """A CSV row or a picture of a tree that is not a labelled face: where it is, and why it is not."""

    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


@dataclass(frozen=True)
class LabelledData:
    """A whole data set: the faces of each split that has any, and the rows that could not be used."""

    source: Path
    splits: Mapping[Split, LabelledFaces]
    bad: tuple[BadRow, ...]

    def faces(self, split: Split) -> LabelledFaces:
        """The faces of one split. Raises DataError, which says what there is, when there are none."""
        if split not in self.splits:
            raise _no_faces_error(self.source, split, {held: len(faces) for held, faces in self.splits.items()})
        return self.splits[split]


@dataclass(frozen=True, slots=True)
class _Face:
    pixels: bytes
    label: int
    row: int | None


@dataclass(frozen=True, slots=True)
class _UnparsedFace:
    """A face whose split is known, but which is not parsed: reading one split must not parse the others."""

    split: Split
    parse: Callable[[], _Face | BadRow]


def read_data(path: Path) -> LabelledData:
    """Read every split of a FER2013 CSV or a folder tree; bad rows are collected, not raised.

    Raises DataError when the source cannot be read or holds nothing.
    """
    faces: dict[Split, list[_Face]] = {}
    bad: list[BadRow] = []
    for entry in _entries(path):
        face = entry if isinstance(entry, BadRow) else entry.parse()
        if isinstance(face, BadRow):
            bad.append(face)
        elif isinstance(entry, _UnparsedFace):
            faces.setdefault(entry.split, []).append(face)
    if not faces and not bad:
        raise _no_faces_error(path, None, {})
    _warn_of_passed_over(path)
    return LabelledData(path, {split: _stack(found, split) for split, found in faces.items()}, tuple(bad))


def read_faces(path: Path, split: str | None = None) -> LabelledFaces:
    """Read the faces of one split, or of all splits, keeping nothing else in memory.

    Raises DataError at the first bad row, naming file, row and reason. Of rows of other splits only the split is read.
    """
    wanted = None if split is None else Split.named(split)
    faces: list[_Face] = []
    seen: Counter[Split] = Counter()
    for entry in _entries(path):
        if isinstance(entry, BadRow):
            raise DataError(f"{path}, {entry}")
        seen[entry.split] += 1
        if wanted is not None and entry.split is not wanted:
            continue
        face = entry.parse()
        if isinstance(face, BadRow):
            raise DataError(f"{path}, {face}")
        faces.append(face)
    if not faces:
        raise _no_faces_error(path, wanted, seen)
    _warn_of_passed_over(path)
    return _stack(faces, wanted)


def measured_split(path: Path) -> Split | None:
    """The split to measure accuracy on by default; None, for all faces, when a tree has no splits."""
    held = set()
    for entry in _entries(path):
        if isinstance(entry, _UnparsedFace):
            held.add(entry.split)
        if MEASURED[0] in held:
            return MEASURED[0]
    if held <= {Split.UNSPLIT}:
        return None
    return next((split for split in MEASURED if split in held), Split.PUBLIC)


def pictures(folder: Path) -> list[str]:
    """The picture files anywhere below ``folder``, as sorted relative paths; hidden files and folders are ignored."""
    return [file for file in _files(folder) if _is_picture(file)]


def _is_picture(file: str) -> bool:
    return PurePath(file).suffix.lower() in PICTURES


def _files(folder: Path) -> list[str]:
    """All files below ``folder`` that are not hidden, as sorted relative paths.

    Links to folders are followed, but each folder is read once: links can form loops, or more paths than can be read.
    """
    found: list[str] = []
    read: set[tuple[int, int]] = set()
    to_read = deque([""])
    while to_read:
        below = to_read.popleft()
        try:
            place = (folder / below).stat()
            entries = sorted(os.scandir(folder / below), key=lambda entry: entry.name)
        except OSError as error:
            _log.warning("%s: passed over: %s", folder / below, error.strerror)
            continue
        if (place.st_dev, place.st_ino) in read:
            continue
        read.add((place.st_dev, place.st_ino))
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if not is_folder(Path(entry.path)):
                found.append(below + entry.name)
            elif entry.is_symlink():
                to_read.append(f"{below}{entry.name}/")
            else:
                to_read.appendleft(f"{below}{entry.name}/")  # before any link, which may lead to the same folder
    return sorted(found)


def _entries(path: Path) -> Iterator[_UnparsedFace | BadRow]:
    if is_folder(path):
        return _tree_entries(path)
    if is_file(path):
        return _table_entries(path)
    raise DataError(f"{path}: no such file or folder. Give the FER2013 CSV or a folder with one folder per label.")


def _stack(faces: Sequence[_Face], split: Split | None) -> LabelledFaces:
    flat = np.frombuffer(b"".join(face.pixels for face in faces), np.uint8)
    numbers = [face.row for face in faces if face.row is not None]
    return LabelledFaces(
        flat.reshape(-1, INPUT_SIZE, INPUT_SIZE),
        np.array([face.label for face in faces], np.int64),
        np.array(numbers, np.int64) if len(numbers) == len(faces) else None,
        split,
    )


def _no_faces_error(path: Path, wanted: Split | None, held: Mapping[Split, int]) -> DataError:
    """An error that says why there are no faces, and what to do."""
    if not held:
        passed = _passed_over(path)
        form = (
            f"{passed}; name its folders"
            if passed
            else "name its folders"
            if path.is_dir()
            else "it must have rows labelled 0..6 or"
        )
        return DataError(f"{path}: no labelled faces found; {form} {', '.join(LABELS)}")
    found = (
        f"{path}, split {wanted}: no labelled faces found, only {', '.join(f'{n:,} of {s}' for s, n in held.items())}"
    )
    if path.is_dir():
        return DataError(f"{found}. Give a tree with folders train and test, or ask for what there is.")
    if set(held) == {Split.TRAINING}:
        found += ". A CSV without Usage, as the challenge's train.csv, is all Training; fer2013.csv has every split"
    return DataError(found)


def _table_entries(path: Path) -> Iterator[_UnparsedFace | BadRow]:
    for row in read_table(path, "FER2013", ("emotion", "pixels"), preferred=_CSV_FILE_NAMES, optional=("Usage",)):
        usage = row.values.get("Usage")
        if usage is None:  # as in the challenge's train.csv
            _require_no_other_split(path, row)
            usage = Split.TRAINING
        if split := _SPLIT_OF_USAGE.get(usage.lower()):
            yield _UnparsedFace(split, partial(_parse_row, row))
        else:
            known = ", ".join(split for split in Split if split is not Split.UNSPLIT)
            yield BadRow(str(row), f"Usage {usage[:20]!r} is not {known}")


def _require_no_other_split(path: Path, row: CsvRow) -> None:
    """Raise DataError when a column that is not named Usage states a split: it must not be taken for Training."""
    for name, value in row.values.items():
        if value.lower() in _SPLIT_OF_USAGE:
            raise DataError(f"{path}, {row}: column {name!r} states the split {value!r}; name that column Usage")


def _parse_row(row: CsvRow) -> _Face | BadRow:
    label = _CLASS_IN_CSV.get(row.values["emotion"].lower())
    if label is None:
        known = f"0..{len(LABELS) - 1} or {', '.join(LABELS)}"
        return BadRow(str(row), f"label {row.values['emotion'][:20]!r} is not {known}")
    pixels = parse_pixels(row)
    return pixels if isinstance(pixels, BadRow) else _Face(pixels, label, row.number)


def parse_pixels(row: CsvRow) -> bytes | BadRow:
    """The 48x48 grey levels of a row's column ``pixels``, or why it has none."""
    try:
        pixels = bytes(map(_VALUE_OF_PIXEL.__getitem__, row.values["pixels"].split()))
    except KeyError as error:
        return BadRow(str(row), f"pixel {error.args[0][:20]!r} is not a whole number from 0 to 255")
    right = len(pixels) == INPUT_SIZE * INPUT_SIZE
    return pixels if right else BadRow(str(row), f"{len(pixels)} pixels, expected {INPUT_SIZE * INPUT_SIZE}")


def _tree_entries(folder: Path) -> Iterator[_UnparsedFace | BadRow]:
    files = pictures(folder)
    above = _folders_above(files)
    for file in files:
        found = _split_and_label(file[len(above) :])
        if isinstance(found, str):
            yield BadRow(file, found)
        else:
            split, label = found
            yield _UnparsedFace(split, partial(_parse_picture, folder, file, label))


def _folders_above(files: Sequence[str]) -> str:
    """The path of the folders that all pictures lie in and that name neither a split nor a label, as ``a/b/``."""
    above = ""
    while len(first := {file[len(above) :].partition("/")[0] for file in files}) == 1:
        [name] = first
        if name.lower() in _SPLIT_NAMES or name.lower() in _CLASS_OF_NAME or f"{above}{name}" == files[0]:
            break
        above += f"{name}/"
    return above


def _warn_of_passed_over(path: Path) -> None:
    """Count and name the files of a tree that are not read as pictures."""
    if passed := _passed_over(path):
        _log.warning("%s: %s", path, passed)


def _passed_over(path: Path) -> str:
    others = [file for file in _files(path) if not _is_picture(file)] if path.is_dir() else []
    kinds = Counter(PurePath(file).suffix.lower() or "no suffix" for file in others).most_common(5)
    counts = ", ".join(f"{count:,} {kind}" for kind, count in kinds)
    return f"passed over {len(others):,} of other kinds than pictures: {counts}, such as {others[0]}" if others else ""


def _split_and_label(file: str) -> tuple[Split, int] | str:
    """The split and label that a picture's folders and name state, or why they state none."""
    *folders, name = PurePath(file).parts
    split = _SPLIT_NAMES.get(folders[0].lower()) if folders else None
    if split:
        folders.pop(0)
    label = _CLASS_OF_NAME.get(folders[0].lower()) if folders else None
    if label is None:
        reason = f"in no folder named {', '.join(LABELS)}"
        numbered = folders and folders[0].isdigit()
        return f"{reason}; numbers are not read, since trees differ in their order" if numbered else reason
    match = _SPLIT_IN_FILE_NAME.match(name)
    named = Split.named(match[1]) if match else None
    if split is None:
        return named or Split.UNSPLIT, label
    if named is None or split is Split.VALIDATION:  # validation pictures are usually taken from Training
        return split, label
    if named is split or (split is Split.TEST and named is not Split.TRAINING):
        return named, label
    return f"is in the folder of {split}, and its name says {named}"


def _parse_picture(folder: Path, file: str, label: int) -> _Face | BadRow:
    try:
        gray = read_gray(folder / file)
    except SourceError:
        return BadRow(file, "not a readable picture")
    return _Face(resize(gray).tobytes(), label, None)
