"""Write a bundle's folder: all of it, or nothing."""

import shutil
import tempfile
from pathlib import Path
from typing import Final

import msgspec

from edge.errors import UsageError
from edge.model.bundle import CARD_FILE, MODEL_FILE, Card, Golden, open_bundle
from export.golden import write_golden

LABELS_FILE: Final = "labels.txt"
REPORT_FILE: Final = "report.html"

_REQUIRED_BYTES: Final = 60_000_000  # a ResNet50 and its report, twice


def check_writable(out: Path) -> None:
    """Check before minutes of work that a bundle can be written to ``out``. Raises UsageError."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} exists and is not an empty folder. Give another --out, or remove it.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out.parent):
            free = shutil.disk_usage(out.parent).free
    except OSError as error:
        raise UsageError(f"{out}: cannot be written: {error.strerror}") from error
    if free < _REQUIRED_BYTES:
        raise UsageError(
            f"{out}: only {free / 1e6:.1f} MB are free there; making a bundle needs {_REQUIRED_BYTES / 1e6:.0f} MB"
        )


def write_bundle(out: Path, file: bytes, card: Card, golden: Golden, report: str) -> None:
    """Write all files into a temporary folder beside ``out``, open that as a device does, then rename it.

    ``file`` is the int8 network, ``report`` the HTML of the report. Raises UsageError when it cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(dir=out.parent) as name:
            folder = Path(name) / out.name
            folder.mkdir()
            (folder / MODEL_FILE).write_bytes(file)
            (folder / CARD_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(card)) + b"\n")
            (folder / LABELS_FILE).write_text("".join(f"{label}\n" for label in card.labels))
            (folder / REPORT_FILE).write_text(report)
            write_golden(folder, golden)
            open_bundle(folder)
            if out.exists():
                out.rmdir()
            shutil.move(folder, out)
    except OSError as error:
        raise UsageError(
            f"{out}: cannot be written: {error.strerror or error}. Nothing is left half-written."
        ) from error
