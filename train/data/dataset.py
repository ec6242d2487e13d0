"""The data of a training run: parsed once and cached outside the repository, without pictures that would leak."""

import contextlib
import hashlib
import os
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from edge.errors import DataError
from edge.evaluation.fer2013 import MEASURED, BadRow, LabelledData, LabelledFaces, Split, pictures, read_data

_FORMAT: Final = "2"
"""Changes whenever the reader would make something else of the same file."""

_LISTED: Final = 20


@dataclass(frozen=True)
class Splits:
    """Faces to learn from, and faces to measure on and to choose the epoch by.

    ``public`` is PublicTest; of a tree without it, validation or test (its ``split`` says which). ``left_out`` counts
    the Training pictures that another split holds too, each under the first that does, and ``bad`` the rows skipped.
    """

    training: LabelledFaces
    public: LabelledFaces
    left_out: Mapping[Split, int]
    bad: int

    @property
    def excluded(self) -> int:
        """How many Training pictures are left out altogether."""
        return sum(self.left_out.values())

    def __str__(self) -> str:
        held = ", ".join(f"{count:,} that {split} holds too" for split, count in self.left_out.items())
        measured = f"{len(self.public):,} of {self.public.split} to measure on"
        return f"{len(self.training):,} faces to learn from, {measured}; left out of Training: {held}"


def read_splits(path: Path, skip_bad: bool = False) -> Splits:
    """Read what a training run needs of the data at ``path``.

    FER2013 has several hundred pictures in more than one split; learning from them would measure memory, so Training
    loses all that another split holds too. ``skip_bad`` leaves bad rows out and lists them on stderr.
    Raises DataError for the first bad row otherwise, and as edge.evaluation.fer2013.read_data does.
    """
    data = read_cached(path)
    if data.bad:
        _tell_bad(data, skip_bad)
    public = data.faces(next((split for split in MEASURED if split in data.splits), Split.PUBLIC))
    training = data.faces(Split.TRAINING)
    contents = [face.tobytes() for face in training.pixels]
    kept = np.ones(len(training), bool)
    left_out: dict[Split, int] = {}
    for split in Split:
        if split is Split.TRAINING or split not in data.splits:
            continue
        held = {face.tobytes() for face in data.splits[split].pixels}
        shared = kept & [content in held for content in contents]
        left_out[split] = int(shared.sum())
        kept &= ~shared
    if not kept.any():
        raise DataError(f"{path}: every picture of Training stands in another split too; nothing is left to learn from")
    return Splits(training.select(kept), public, left_out, len(data.bad))


def read_cached(path: Path) -> LabelledData:
    """Read every split as edge.evaluation.fer2013.read_data does; content that was parsed before comes from the cache.

    The cache may be deleted at any time.
    """
    if not path.exists():
        return read_data(path)  # which says what is wrong
    file = cache_folder() / f"{_digest(path)[:24]}-{_FORMAT}.npz"
    try:
        return _load(file, path)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        pass  # not there yet, or cut short: parse again
    print(f"parsing {path}", file=sys.stderr, flush=True)
    data = read_data(path)
    _store(file, data)
    return data


def cache_folder() -> Path:
    """Where parsed data is kept: ``$XDG_CACHE_HOME/fer-edge/data``, by default under ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fer-edge" / "data"


def _tell_bad(data: LabelledData, skip_bad: bool) -> None:
    count = f"{len(data.bad):,} bad row{'s' if len(data.bad) > 1 else ''}"
    if not skip_bad:
        told = f"{data.source}, {data.bad[0]}"
        raise DataError(f"{told}. It has {count}; `fer-train run --skip-bad` lists them and leaves them out.")
    print(f"{data.source}: {count} skipped", file=sys.stderr)
    for row in data.bad[:_LISTED]:
        print(f"  {row}", file=sys.stderr)
    if len(data.bad) > _LISTED:
        print(f"  and {len(data.bad) - _LISTED:,} more", file=sys.stderr)


def _digest(path: Path) -> str:
    """Hash of a file's content; of a tree's names, sizes and times, since to read 35,000 files would be slow.

    The time of the last status change is among them: unlike the others it cannot be set.
    """
    try:
        if path.is_file():
            with path.open("rb") as content:
                return hashlib.file_digest(content, "sha256").hexdigest()
        listing = hashlib.sha256()
        for file in pictures(path):
            status = (path / file).stat()
            entry = f"{file}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}\n"
            listing.update(entry.encode(errors="surrogateescape"))
        return listing.hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def _load(file: Path, source: Path) -> LabelledData:
    with file.open("rb") as content, np.load(content, allow_pickle=False) as stored:
        splits = {}
        for split in map(Split, stored["splits"]):
            pixels, labels = stored[f"{split}-pixels"], stored[f"{split}-labels"]
            splits[split] = LabelledFaces(pixels, labels, stored.get(f"{split}-rows"), split)
        bad = tuple(BadRow(str(where), str(reason)) for where, reason in stored["bad"])
    return LabelledData(source, splits, bad)


def _store(file: Path, data: LabelledData) -> None:
    """Write to the cache, whole or not at all; a cache that cannot be written only costs time."""
    content = {"splits": np.array(list(data.splits), str), "bad": np.empty((0, 2), "U1")}
    if data.bad:
        content["bad"] = np.array([(row.where, row.reason) for row in data.bad], str)
    for split, faces in data.splits.items():
        content |= {f"{split}-pixels": faces.pixels, f"{split}-labels": faces.labels}
        if faces.rows is not None:
            content[f"{split}-rows"] = faces.rows
    making = file.with_name(f"{os.getpid()}-{file.name}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(making, **content)  # type: ignore[arg-type]
        making.replace(file)
    except OSError as error:
        with contextlib.suppress(OSError):
            making.unlink()
        print(f"{file.parent}: parsed data cannot be kept ({error}); the next run parses again", file=sys.stderr)
