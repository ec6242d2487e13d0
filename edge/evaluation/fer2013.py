"""Read labelled faces: FER2013's CSV in any form it is distributed in, or a folder tree with one folder per label.

The device needs this to check accuracy; training and export import it. docs/data.md describes the forms. The names may
be those of another model's labels.
"""

import hashlib
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from pathlib import Path, PurePath
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.camera.picture_file import read_gray
from edge.errors import DataError, SourceError, UsageError
from edge.evaluation.class_names import Meaning, meaning_in_csv, meaning_of_names
from edge.evaluation.csv_table import CsvRow, read_table
from edge.evaluation.picture_tree import passed_over, pictures
from edge.labels import FER2013_LABELS, Labels
from edge.model.preprocessing import INPUT_SIZE, resize
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
        """The split that a user or a folder names, in upper or lower case. Raises UsageError for an unknown name."""
        if (split := _SPLIT_NAMES.get(name.lower())) is None:
            raise UsageError(f"unknown split {name!r}: choose from {', '.join(cls)}")
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
_SPLIT_IN_FILE_NAME: Final = re.compile(r"(Training|PublicTest|PrivateTest)_", re.IGNORECASE)


@dataclass(frozen=True)
class LabelledFaces:
    """Faces with their labels.

    ``pixels`` is ``(n, 48, 48)`` uint8, ``labels`` ``(n,)`` int64 (index into ``names``). ``rows`` is ``(n,)`` int64:
    the 0-based data row of each face in its CSV, to which FERPlus votes are aligned, or NO_ROW; trees have none.
    ``split`` is the one that all faces belong to, or None for all splits together. ``left_out`` counts the faces that
    show an expression of FER2013's which ``names`` lack.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    rows: NDArray[np.int64] | None
    split: Split | None = None
    names: Labels = FER2013_LABELS
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, kept: NDArray[np.bool_]) -> "LabelledFaces":
        """The faces for which ``kept``, ``(n,)`` bool, is true."""
        rows = None if self.rows is None else self.rows[kept]
        return replace(self, pixels=self.pixels[kept], labels=self.labels[kept], rows=rows)

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
    """A face whose split is known, but which is not parsed: reading one split must not parse the others.

    ``parse`` gives the name of the expression when the labels lack it.
    """

    split: Split
    parse: Callable[[], _Face | BadRow | str]


class _Collected:
    """The faces of one split, or of several."""

    def __init__(self, split: Split | None, names: Labels) -> None:
        self._split, self._names = split, names
        self._faces: list[_Face] = []
        self._left_out: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._faces)

    def add(self, face: _Face | str) -> None:
        """Add a face, or count one whose expression the labels lack."""
        if isinstance(face, str):
            self._left_out[face] += 1
        else:
            self._faces.append(face)

    def stacked(self, path: Path) -> LabelledFaces:
        """All faces. Raises DataError when the labels lack what every face shows."""
        if not self._faces:
            shown = ", ".join(f"{count:,} {name}" for name, count in self._left_out.items())
            raise DataError(
                f"{path}: no face shows one of {', '.join(self._names)}; they show: {shown}. Numbers are FER2013's"
            )
        numbers = [face.row for face in self._faces if face.row is not None]
        flat = np.frombuffer(b"".join(face.pixels for face in self._faces), np.uint8)
        return LabelledFaces(
            flat.reshape(-1, INPUT_SIZE, INPUT_SIZE),
            np.array([face.label for face in self._faces], np.int64),
            np.array(numbers, np.int64) if len(numbers) == len(self._faces) else None,
            self._split,
            self._names,
            dict(self._left_out),
        )


def read_data(path: Path, names: Labels = FER2013_LABELS) -> LabelledData:
    """Read every split of a FER2013 CSV or a folder tree; bad rows are collected, not raised.

    ``names`` are the labels that the faces get. Raises DataError when the source cannot be read or holds nothing.
    """
    faces: dict[Split, _Collected] = {}
    bad: list[BadRow] = []
    for entry in _entries(path, names):
        face = entry if isinstance(entry, BadRow) else entry.parse()
        if isinstance(face, BadRow):
            bad.append(face)
        elif isinstance(entry, _UnparsedFace):
            faces.setdefault(entry.split, _Collected(entry.split, names)).add(face)
    if not faces and not bad:
        raise _no_faces_error(path, None, {}, names)
    _warn_of_passed_over(path)
    kept = {split: found for split, found in faces.items() if found} or faces
    return LabelledData(path, {split: found.stacked(path) for split, found in kept.items()}, tuple(bad))


def read_faces(path: Path, split: str | None = None, names: Labels = FER2013_LABELS) -> LabelledFaces:
    """Read the faces of one split, or of all splits, keeping nothing else in memory.

    ``names`` are the labels that the faces get. Raises DataError at the first bad row, naming file, row and reason, and
    UsageError for an unknown split. Of rows of other splits only the split is read.
    """
    wanted = None if split is None else Split.named(split)
    faces = _Collected(wanted, names)
    seen: Counter[Split] = Counter()
    for entry in _entries(path, names):
        if isinstance(entry, BadRow):
            raise DataError(f"{path}, {entry}")
        seen[entry.split] += 1
        if wanted is not None and entry.split is not wanted:
            continue
        face = entry.parse()
        if isinstance(face, BadRow):
            raise DataError(f"{path}, {face}")
        faces.add(face)
    if not any(count for one, count in seen.items() if wanted in (None, one)):
        raise _no_faces_error(path, wanted, seen, names)
    _warn_of_passed_over(path)
    return faces.stacked(path)


def measured_split(path: Path, names: Labels = FER2013_LABELS) -> Split | None:
    """The split to measure accuracy on by default; None, for all faces, when a tree has no splits."""
    held = set()
    for entry in _entries(path, names):
        if isinstance(entry, _UnparsedFace):
            held.add(entry.split)
        if MEASURED[0] in held:
            return MEASURED[0]
    if held <= {Split.UNSPLIT}:
        return None
    return next((split for split in MEASURED if split in held), Split.PUBLIC)


def _entries(path: Path, names: Labels) -> Iterator[_UnparsedFace | BadRow]:
    if is_folder(path):
        return _tree_entries(path, names)
    if is_file(path):
        return _table_entries(path, names)
    raise DataError(f"{path}: no such file or folder. Give the FER2013 CSV or a folder with one folder per label.")


def _no_faces_error(
    path: Path, wanted: Split | None, held: Mapping[Split, int], names: Labels = FER2013_LABELS
) -> DataError:
    """An error that says why there are no faces, and what to do."""
    if not held:
        passed = passed_over(path)
        form = (
            f"{passed}; name its folders"
            if passed
            else "name its folders"
            if path.is_dir()
            else "it must have rows labelled 0..6 or"
        )
        return DataError(f"{path}: no labelled faces found; {form} {', '.join(names)}")
    found = (
        f"{path}, split {wanted}: no labelled faces found, only {', '.join(f'{n:,} of {s}' for s, n in held.items())}"
    )
    if path.is_dir():
        return DataError(f"{found}. Give a tree with folders train and test, or ask for what there is.")
    if set(held) == {Split.TRAINING}:
        found += ". A CSV without Usage, as the challenge's train.csv, is all Training; fer2013.csv has every split"
    return DataError(found)


def _table_entries(path: Path, names: Labels) -> Iterator[_UnparsedFace | BadRow]:
    parse = partial(_parse_row, names, meaning_in_csv(names))
    for row in read_table(path, "FER2013", ("emotion", "pixels"), preferred=_CSV_FILE_NAMES, optional=("Usage",)):
        usage = row.values.get("Usage")
        if usage is None:  # as in the challenge's train.csv
            _require_no_other_split(path, row)
            usage = Split.TRAINING
        if split := _SPLIT_OF_USAGE.get(usage.lower()):
            yield _UnparsedFace(split, partial(parse, row))
        else:
            known = ", ".join(split for split in Split if split is not Split.UNSPLIT)
            yield BadRow(str(row), f"Usage {usage[:20]!r} is not {known}")


def _require_no_other_split(path: Path, row: CsvRow) -> None:
    """Raise DataError when a column that is not named Usage states a split: it must not be taken for Training."""
    for name, value in row.values.items():
        if value.lower() in _SPLIT_OF_USAGE:
            raise DataError(f"{path}, {row}: column {name!r} states the split {value!r}; name that column Usage")


def _parse_row(names: Labels, meaning: Meaning, row: CsvRow) -> _Face | BadRow | str:
    label = meaning.get(row.values["emotion"].lower())
    if label is None:
        known = f"0..{len(FER2013_LABELS) - 1} or {', '.join(names)}"
        return BadRow(str(row), f"label {row.values['emotion'][:20]!r} is not {known}")
    if isinstance(label, str):
        return label
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


def _tree_entries(folder: Path, names: Labels) -> Iterator[_UnparsedFace | BadRow]:
    files, meaning = pictures(folder), meaning_of_names(names)
    above = _folders_above(files, meaning)
    for file in files:
        found = _split_and_label(file[len(above) :], names, meaning)
        if isinstance(found, str):
            yield BadRow(file, found)
        else:
            split, label = found
            yield _UnparsedFace(split, partial(_parse_picture, folder, file, label))


def _folders_above(files: Sequence[str], meaning: Meaning) -> str:
    """The path of the folders that all pictures lie in and that name neither a split nor a label, as ``a/b/``."""
    above = ""
    while len(first := {file[len(above) :].partition("/")[0] for file in files}) == 1:
        [name] = first
        if name.lower() in _SPLIT_NAMES or name.lower() in meaning or f"{above}{name}" == files[0]:
            break
        above += f"{name}/"
    return above


def _warn_of_passed_over(path: Path) -> None:
    """Count and name the files of a tree that are not read as pictures."""
    if passed := passed_over(path):
        _log.warning("%s: %s", path, passed)


def _split_and_label(file: str, names: Labels, meaning: Meaning) -> tuple[Split, int | str] | str:
    """The split and label that a picture's folders and name state, or why they state none."""
    *folders, name = PurePath(file).parts
    split = _SPLIT_NAMES.get(folders[0].lower()) if folders else None
    if split:
        folders.pop(0)
    label = meaning.get(folders[0].lower()) if folders else None
    if label is None:
        reason = f"in no folder named {', '.join(names)}"
        numbered = folders and folders[0].isdigit()
        return f"{reason}; numbers are not read, since trees differ in their order" if numbered else reason
    below = next((folder for folder in folders[1:] if folder.lower() in _SPLIT_OF_USAGE), None)
    if below and Split.named(below) is not split:  # its pictures must not be taken for those of no split, or of another
        return f"the folder {below} of a split is below the label: it must be above, as {below}/{folders[0]}"
    match = _SPLIT_IN_FILE_NAME.match(name)
    named = Split.named(match[1]) if match else None
    if split is None:
        return named or Split.UNSPLIT, label
    if named is None or split is Split.VALIDATION:  # validation pictures are usually taken from Training
        return split, label
    if named is split or (split is Split.TEST and named is not Split.TRAINING):
        return named, label
    return f"is in the folder of {split}, and its name says {named}"


def _parse_picture(folder: Path, file: str, label: int | str) -> _Face | BadRow | str:
    if isinstance(label, str):
        return label
    try:
        gray = read_gray(folder / file)
    except SourceError:
        return BadRow(file, "not a readable picture")
    return _Face(resize(gray).tobytes(), label, None)
