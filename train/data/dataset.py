"""The data of a training run, parsed once and cached; Training has no picture that another split has too."""

import contextlib
import hashlib
import os
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.errors import DataError
from edge.evaluation.fer2013 import MEASURED, BadRow, LabelledData, LabelledFaces, Split, read_data
from edge.evaluation.picture_tree import pictures

_CACHE_VERSION: Final = "3"
"""Version of the cache. Increase it whenever the parser's result for the same file changes."""

_LISTED_BAD_ROWS: Final = 20


@dataclass(frozen=True)
class Splits:
    """The training faces, and the faces that measure accuracy and choose the epoch.

    ``public`` is PublicTest, or validation or test where the data has no PublicTest (its ``split`` says which).
    ``published`` are all of Training, and ``shared`` says for each other split which of them it has too, ``(n,)`` bool;
    ``training`` are those that no split has. ``bad`` counts the rows that were skipped.
    """

    training: LabelledFaces
    public: LabelledFaces
    published: LabelledFaces
    shared: Mapping[Split, NDArray[np.bool_]]
    bad: int

    @property
    def left_out(self) -> dict[Split, int]:
        """How many pictures were removed from Training because another split has them, by the first such split."""
        counts, kept = {}, np.ones(len(self.published), bool)
        for split, has in self.shared.items():
            counts[split] = int((kept & has).sum())
            kept &= ~has
        return counts

    @property
    def excluded(self) -> int:
        """How many Training pictures were removed because another split has them too."""
        return sum(self.left_out.values())

    @property
    def kept(self) -> NDArray[np.bool_]:
        """Which faces of ``published`` are in ``training``, ``(n,)`` bool."""
        kept = np.ones(len(self.published), np.bool_)
        for has in self.shared.values():
            kept &= ~has
        return kept

    def find_training(self, sha256: str) -> NDArray[np.bool_] | None:
        """Which faces of ``published`` have the hash of a run's or a bank's training faces; None if none have it.

        A file with fewer splits has fewer pictures to leave out. So a run made on one file fits another that has the
        same Training: every choice of the splits whose pictures were left out is tried, that of this file first.
        """
        splits = [split for split, has in self.shared.items() if has.any()]
        for count in range(len(splits), -1, -1):
            for others in combinations(splits, count):
                chosen = replace(self, shared={split: self.shared[split] for split in others}).kept
                if self.published.select(chosen).sha256() == sha256:
                    return chosen
        return None

    def __str__(self) -> str:
        shared = ", ".join(f"{count:,} that {split} has too" for split, count in self.left_out.items())
        measured = f"{len(self.public):,} of {self.public.split} to measure accuracy"
        return f"{len(self.training):,} training faces, {measured}; left out of Training: {shared}"


def read_splits(path: Path, skip_bad: bool = False) -> Splits:
    """Read the data at ``path`` for a training run.

    FER2013 has several hundred pictures in more than one split. Training on them would make the measured accuracy too
    high, so they are removed from Training. With ``skip_bad``, bad rows are left out and listed on stderr; without it,
    the first one raises DataError. Raises also what edge.evaluation.fer2013.read_data raises.
    """
    data = read_cached(path)
    if data.bad:
        _report_bad_rows(data, skip_bad)
    public = data.faces(next((split for split in MEASURED if split in data.splits), Split.PUBLIC))
    published = data.faces(Split.TRAINING)
    contents = [face.tobytes() for face in published.pixels]
    shared: dict[Split, NDArray[np.bool_]] = {}
    for split in Split:
        if split is not Split.TRAINING and split in data.splits:
            theirs = {face.tobytes() for face in data.splits[split].pixels}
            shared[split] = np.array([content in theirs for content in contents], bool)
    splits = Splits(published, public, published, shared, len(data.bad))
    if not splits.kept.any():
        raise DataError(f"{path}: every picture of Training is in another split too, so there is nothing to train on")
    return replace(splits, training=published.select(splits.kept))


def read_cached(path: Path) -> LabelledData:
    """Read every split as edge.evaluation.fer2013.read_data does, from the cache where the same content was parsed.

    The cache may be deleted at any time.
    """
    if not path.exists():
        return read_data(path)  # it raises the right error
    file = cache_folder() / f"{_digest(path)[:24]}-{_CACHE_VERSION}.npz"
    try:
        return _load(file, path)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        pass  # not cached yet, or damaged: parse again
    print(f"parsing {path}", file=sys.stderr, flush=True)
    data = read_data(path)
    _store(file, data)
    return data


def cache_folder() -> Path:
    """Folder of the parsed data: ``$XDG_CACHE_HOME/fer-edge/data``, by default under ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fer-edge" / "data"


def _report_bad_rows(data: LabelledData, skip_bad: bool) -> None:
    count = f"{len(data.bad):,} bad row{'s' if len(data.bad) > 1 else ''}"
    if not skip_bad:
        raise DataError(
            f"{data.source}, {data.bad[0]}. It has {count}; `fer-train run --skip-bad` lists them and leaves them out."
        )
    print(f"{data.source}: {count} skipped", file=sys.stderr)
    for row in data.bad[:_LISTED_BAD_ROWS]:
        print(f"  {row}", file=sys.stderr)
    if len(data.bad) > _LISTED_BAD_ROWS:
        print(f"  and {len(data.bad) - _LISTED_BAD_ROWS:,} more", file=sys.stderr)


def _digest(path: Path) -> str:
    """Hash of a file's content, or of the names, sizes and times in a tree, whose 35,000 files are slow to read.

    The times include that of the last status change (ctime), which programs cannot set.
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
    """Write to the cache atomically. An error is only printed: without the cache the next run parses again."""
    content = {"splits": np.array(list(data.splits), str), "bad": np.empty((0, 2), "U1")}
    if data.bad:
        content["bad"] = np.array([(row.where, row.reason) for row in data.bad], str)
    for split, faces in data.splits.items():
        content |= {f"{split}-pixels": faces.pixels, f"{split}-labels": faces.labels}
        if faces.rows is not None:
            content[f"{split}-rows"] = faces.rows
    partial = file.with_name(f"{os.getpid()}-{file.name}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(partial, **content)  # type: ignore[arg-type]
        partial.replace(file)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        print(f"{file.parent}: parsed data cannot be cached ({error}); the next run parses again", file=sys.stderr)
