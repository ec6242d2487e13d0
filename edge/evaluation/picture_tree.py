"""The files of a folder tree of pictures."""

import logging
import os
from collections import Counter, deque
from pathlib import Path, PurePath

from edge.camera.picture_file import PICTURES
from edge.untrusted_file import is_folder

_log = logging.getLogger(__name__)


def pictures(folder: Path) -> list[str]:
    """The picture files anywhere below ``folder``, as sorted relative paths; hidden files and folders are ignored."""
    return [file for file in _files(folder) if _is_picture(file)]


def passed_over(path: Path) -> str:
    """How many files of a tree are no pictures, and of which kinds; empty when there are none."""
    others = [file for file in _files(path) if not _is_picture(file)] if path.is_dir() else []
    kinds = Counter(PurePath(file).suffix.lower() or "no suffix" for file in others).most_common(5)
    counts = ", ".join(f"{count:,} {kind}" for kind, count in kinds)
    return f"passed over {len(others):,} of other kinds than pictures: {counts}, such as {others[0]}" if others else ""


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
