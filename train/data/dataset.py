"""The data of a training run, parsed once and cached; Training has no picture that another split has too."""

import contextlib
import hashlib
import os
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.errors import DataError, UsageError
from edge.evaluation.fer2013 import MEASURED, NO_ROW, BadRow, LabelledData, LabelledFaces, Split, read_data
from edge.evaluation.picture_tree import pictures
from train.data.twins import twins_of

_CACHE_VERSION: Final = "4"
"""Version of the cache. Increase it whenever the parser's result for the same file changes."""

_LISTED_BAD_ROWS: Final = 20


@dataclass(frozen=True)
class Splits:
    """The training faces, and the faces that measure accuracy and choose the epoch.

    ``public`` is PublicTest, or validation or test where the data has no PublicTest (its ``split`` says which).
    ``published`` are all of Training, and ``shared`` says for each other split which of them it has too, ``(n,)`` bool.
    ``twins``, ``(n,)`` bool, are those that show the same photograph as a face of ``public`` (train.data.twins).
    ``training`` are those that no split has and that are no twins. ``first`` says which of ``published`` the first data
    set holds, ``(n,)`` bool. ``bad`` counts the rows that were skipped.
    """

    training: LabelledFaces
    public: LabelledFaces
    published: LabelledFaces
    shared: Mapping[Split, NDArray[np.bool_]]
    twins: NDArray[np.bool_]
    first: NDArray[np.bool_]
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
    def near(self) -> int:
        """How many more pictures were removed from Training because they are twins."""
        return self.excluded - sum(self.left_out.values())

    @property
    def excluded(self) -> int:
        """How many Training pictures were removed because another split shows them too."""
        return int((~self.kept).sum())

    @property
    def kept(self) -> NDArray[np.bool_]:
        """Which faces of ``published`` are in ``training``, ``(n,)`` bool."""
        kept = ~self.twins
        for has in self.shared.values():
            kept &= ~has
        return kept

    def find_training(self, sha256: str) -> NDArray[np.bool_] | None:
        """Which faces of ``published`` have the hash of a run's or a bank's training faces; None if none have it.

        A file with fewer splits has fewer pictures to leave out. So a run made on one file fits another that has the
        same Training: every choice of the splits whose pictures were left out is tried, that of this file first. A
        run made on the first data set alone fits it when others are joined to it.
        """
        found = self._find(sha256)
        return found[0] if found else None

    def find_with_joined(self, sha256: str) -> NDArray[np.bool_] | None:
        """As ``find_training``, with the faces that are joined to the first data set, whether the run had them or not.

        ``find_training`` finds the hash of these faces too.
        """
        found = self._find(sha256)
        return found[1] if found else None

    def _find(self, sha256: str) -> tuple[NDArray[np.bool_], NDArray[np.bool_]] | None:
        reasons = [has for has in (*self.shared.values(), self.twins) if has.any()]
        for count in range(len(reasons), -1, -1):
            for held in combinations(reasons, count):
                left_out: NDArray[np.bool_] = np.any([np.zeros(len(self.published), bool), *held], axis=0)
                chosen = ~left_out
                for theirs in (chosen, chosen & self.first):
                    if self.published.select(theirs).sha256() == sha256:
                        return theirs, chosen
        return None

    def __str__(self) -> str:
        shared = ", ".join(f"{count:,} that {split} has too" for split, count in self.left_out.items())
        measured = f"{len(self.public):,} of {self.public.split} to measure accuracy"
        near = f", {self.near:,} near twins of {self.public.split}" if self.near else ""
        counts = f"{len(self.training):,} training faces, {measured}; left out of Training: {shared}{near}"
        return "\n".join((counts, *self._warnings()))

    def _warnings(self) -> Iterator[str]:
        if absent := _absent(self.training):
            yield f"warning: no training face shows {absent}, so the network cannot learn it"
        if absent := _absent(self.public):
            yield f"warning: {self.public.split} has no face of {absent}: the accuracy is that of the other labels"


def read_splits(*paths: Path, skip_bad: bool = False) -> Splits:
    """Read one data set for a training run, or several that are joined.

    Accuracy is measured on a split of the first data set, with the faces that the others have in that split. A tree of
    pictures that states no splits is all Training when it is not the first. Only the first keeps its rows, since votes
    are matched to these.

    FER2013 has several hundred pictures in more than one split, and near twins of others (train.data.twins). Training
    on them would make the measured accuracy too high, so they are removed from Training. With ``skip_bad``, bad rows
    are left out and listed on stderr; without it, the first one raises DataError. Raises UsageError when data is given
    twice, and what edge.evaluation.fer2013.read_data raises.
    """
    sources = [read_cached(path) for path in paths]
    for source in sources:
        if source.bad:
            _report_bad_rows(source, skip_bad)
    _refuse_repeated(sources)
    measured = next((split for split in MEASURED if split in sources[0].splits), Split.PUBLIC)
    sources[0].faces(Split.TRAINING), sources[0].faces(measured)  # they raise the error that says what there is
    data = _join(sources)
    public, published = data.splits[measured], data.splits[Split.TRAINING]
    contents = [face.tobytes() for face in published.pixels]
    shared: dict[Split, NDArray[np.bool_]] = {}
    for split in Split:
        if split is not Split.TRAINING and split in data.splits:
            theirs = {face.tobytes() for face in data.splits[split].pixels}
            shared[split] = np.array([content in theirs for content in contents], bool)
    first = np.arange(len(published)) < len(sources[0].splits[Split.TRAINING])
    twins = twins_of(published, sources[0].splits[Split.TRAINING], public)
    splits = Splits(published, public, published, shared, twins, first, len(data.bad))
    if not splits.kept.any():
        raise DataError(
            f"{paths[0]}: every picture of Training is in another split too, so there is nothing to train on"
        )
    return replace(splits, training=published.select(splits.kept))


def _absent(faces: LabelledFaces) -> str:
    """The labels that no face has."""
    return ", ".join(name for index, name in enumerate(faces.names) if not (faces.labels == index).any())


def _refuse_repeated(sources: Sequence[LabelledData]) -> None:
    """Raise UsageError for a data set whose faces one before it has too: they would count twice."""
    for first, second in combinations(sources, 2):
        hashes = {split: faces.sha256() for split, faces in first.splits.items()}
        if second.splits and all(hashes.get(split) == faces.sha256() for split, faces in second.splits.items()):
            raise UsageError(f"--data {second.source}: has the faces of {first.source}, which would count twice")


def _join(sources: Sequence[LabelledData]) -> LabelledData:
    """The faces of several data sets together, those of the first before the others'."""
    parts: dict[Split, list[LabelledFaces]] = {}
    for number, source in enumerate(sources):
        for split, faces in source.splits.items():
            place = Split.TRAINING if number and split is Split.UNSPLIT else split
            without_rows = replace(faces, rows=np.full(len(faces), NO_ROW)) if number else faces
            parts.setdefault(place, []).append(without_rows)
    splits = {split: _concatenate(found, split) for split, found in parts.items()}
    return LabelledData(sources[0].source, splits, tuple(bad for source in sources for bad in source.bad))


def _concatenate(parts: Sequence[LabelledFaces], split: Split) -> LabelledFaces:
    rows = [part.rows for part in parts if part.rows is not None]
    return LabelledFaces(
        np.concatenate([part.pixels for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate(rows) if len(rows) == len(parts) else None,
        split,
    )


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
