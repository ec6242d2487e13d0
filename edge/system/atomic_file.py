"""Files that after a power cut are either the old or the new ones: written beside, synced, renamed.

And whether a file can be written, asked before the work whose result it is for.
"""

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


def require_writable(file: Path) -> None:
    """Raise OSError unless this file can be written. It stays as it is, and one that is not there is not made."""
    is_new = not os.path.lexists(file)
    os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666))
    if is_new:
        file.unlink()


def sync_folder(folder: Path) -> None:
    """Write a folder's entries to the disk (fsync)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
