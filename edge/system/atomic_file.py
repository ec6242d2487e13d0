"""Files that after a power cut are either the old or the new ones: written beside, synced, renamed."""

import contextlib
import os
from pathlib import Path


def write_durably(file: Path, content: bytes, mode: int | None = None) -> None:
    """Replace a file's content in one step; its folder must exist. Raises OSError, and leaves the old file then."""
    new = file.with_suffix(".new")
    try:
        with new.open("wb") as opened:
            opened.write(content)
            opened.flush()
            if mode is not None:
                os.fchmod(opened.fileno(), mode)
            os.fsync(opened.fileno())
        new.replace(file)
    except OSError:
        with contextlib.suppress(OSError):
            new.unlink()  # a full disk needs the room
        raise
    sync_folder(file.parent)


def sync_folder(folder: Path) -> None:
    """Write a folder's entries to the disk (fsync)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
