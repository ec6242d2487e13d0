"""Bundles for tests: sound ones under other names, and one whose golden outputs differ."""

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np

from edge.model.bundle import find_bundle

BUNDLED = find_bundle("student-small")


def accept(_: object) -> None:
    """A check that every bundle passes."""


def bundle_named(folder: Path, name: str) -> Path:
    """A sound bundle with another name, and so another fingerprint."""
    copy = Path(shutil.copytree(BUNDLED, folder / name))
    file = copy / "card.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"name": name}))
    return copy


def failing_bundle(folder: Path, name: str) -> Path:
    """A bundle that opens, but whose network does not give its golden outputs."""
    copy = bundle_named(folder, name)
    with np.load(copy / "golden.npz") as stored:
        parts = dict(stored)
    np.savez(copy / "golden.npz", **{**parts, "outputs": np.roll(parts["outputs"], 1, axis=1)})
    return copy


def zip_bundle(folder: Path, file: Path, under: str = "") -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for part in sorted(folder.iterdir()):
            archive.write(part, f"{under}{part.name}")
    return file
