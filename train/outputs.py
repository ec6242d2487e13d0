"""The files that commands write: checked before minutes of work, and an error of writing told as the user's."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from edge.errors import UsageError


def check_output(file: Path, *read: Path) -> None:
    """Raise UsageError when this file cannot be written, or is one of those that are ``read``.

    The folder that it is to be in must exist.
    """
    with writing(file):
        if any(file.exists() and one.exists() and file.samefile(one) for one in read):
            raise UsageError(f"{file}: is read by this command, and would be lost. Give another name")
        if not file.parent.is_dir():
            raise UsageError(f"{file}: cannot be written: there is no folder {file.parent}")
        if file.is_dir():
            raise UsageError(f"{file}: cannot be written: it is a folder")
        for place in (file,) if _is_device(file) else (file, _where_it_leads(file).parent):
            if place.exists() and not os.access(place, os.W_OK):
                raise UsageError(f"{file}: cannot be written: {place} is read-only for this user")


def check_folder(folder: Path) -> None:
    """Raise UsageError when a folder for runs is not there, and cannot be made."""
    with writing(folder):
        place = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    if not place.is_dir():
        raise UsageError(f"{folder}: no folder can be made there: {place} is a file. Give another --out")
    if not os.access(place, os.W_OK | os.X_OK):
        raise UsageError(f"{folder}: no folder can be made there: {place} is read-only for this user")


def make_folder(folder: Path) -> None:
    """Make a folder for runs, if it is not there. Raises UsageError when that is not possible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: no folder can be made there: {error}. Give another --out") from error


@contextmanager
def writing(file: Path) -> Iterator[None]:
    """A context in which ``file`` is written: an error of it, such as a full disk, becomes a UsageError."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"{file}: cannot be written: {error.strerror or error}") from error


@contextmanager
def replacing(file: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of ``file`` when it is whole. Raises UsageError as ``writing`` does.

    Where ``file`` is a link, that is the file that it leads to. A device or a pipe, such as /dev/stdout, is written as
    it is: root would replace it by a file.
    """
    with writing(file):
        if _is_device(file):
            with file.open("wb") as target:
                yield target
            return
        whole = _where_it_leads(file)
        partial = whole.with_name(f"{os.getpid()}-{whole.name}")
        try:
            with partial.open("wb") as target:
                yield target
            partial.replace(whole)
        finally:
            partial.unlink(missing_ok=True)


def _is_device(file: Path) -> bool:
    """Whether there is something of this name that is no file and no folder."""
    return file.exists() and not file.is_file() and not file.is_dir()


def _where_it_leads(file: Path) -> Path:
    """The file itself, or what is at the end of a link."""
    return Path(os.path.realpath(file)) if file.is_symlink() else file
