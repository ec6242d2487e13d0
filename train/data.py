"""The data of a training run: parsed once and cached outside the repository, without pictures that would leak."""

import hashlib
import os
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge.fer2013 import LabelledFaces, read_faces


@dataclass(frozen=True)
class Splits:
    """Faces to learn from, faces to measure on, and how many Training pictures PublicTest holds too (left out)."""

    training: LabelledFaces
    public: LabelledFaces
    excluded: int


def read_splits(path: Path) -> Splits:
    """Read Training and PublicTest.

    FER2013 has several hundred pictures in both; learning from them would measure memory, so Training loses them.
    Raises DataError as edge.fer2013.read_faces does.
    """
    digest = _digest(path) if path.is_file() else None
    training, public = (read_cached(path, split, digest) for split in ("Training", "PublicTest"))
    measured = {face.tobytes() for face in public.pixels}
    kept = np.array([face.tobytes() not in measured for face in training.pixels])
    return Splits(training.select(kept), public, int((~kept).sum()))


def read_cached(path: Path, split: str, digest: str | None) -> LabelledFaces:
    """Read one split as edge.fer2013.read_faces does; content that was parsed before comes from the cache.

    ``digest`` is the file's sha256, or None for what is not cached. The cache may be deleted at any time.
    """
    if digest is None:
        return read_faces(path, split)
    file = cache_folder() / f"{digest[:24]}-{split}.npz"
    try:
        with file.open("rb") as content, np.load(content, allow_pickle=False) as stored:
            return LabelledFaces(stored["pixels"], stored["labels"], stored["rows"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        pass  # not there yet, or cut short: parse again
    print(f"parsing {path}, {split}", file=sys.stderr, flush=True)
    faces = read_faces(path, split)
    file.parent.mkdir(parents=True, exist_ok=True)
    making = file.with_name(f"{os.getpid()}-{file.name}")
    np.savez(making, pixels=faces.pixels, labels=faces.labels, rows=faces.rows)
    making.replace(file)
    return faces


def _digest(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def cache_folder() -> Path:
    """Where parsed data is kept: ``$XDG_CACHE_HOME/fer-edge/data``, by default under ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fer-edge" / "data"
