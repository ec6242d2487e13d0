"""Reading a bundle that somebody hands over, folder or zip: only its own files, bounded, and nothing through links."""

import lzma
import os
import stat
import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Final

from edge.errors import BundleError
from edge.model.bundle import CARD_FILE, EDGE_TPU_FILE, GOLDEN_FILE, MODEL_FILE

_MIB: Final = 2**20

LARGEST: Final = {
    MODEL_FILE: 32 * _MIB,
    EDGE_TPU_FILE: 32 * _MIB,
    CARD_FILE: _MIB,
    GOLDEN_FILE: 4 * _MIB,
    "labels.txt": _MIB // 16,
    "report.html": 8 * _MIB,
}
"""The files of a bundle, and how many bytes each may have; whatever else is there is left behind."""

_LARGEST_ZIP: Final = sum(LARGEST.values())
_MOST_ENTRIES: Final = 1000
_BROKEN: Final = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,  # an encrypted entry, or a way of compression that Python does not know
    struct.error,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
)


def read_bundle_archive(source: Path) -> dict[str, bytes]:
    """The files of a bundle by name, from a folder or a zip of one.

    Raises BundleError when there is no bundle, when a file is larger than LARGEST says, and when a zip has links or
    names that lead out of it.
    """
    if source.is_dir():
        files = {name: _read_file(source / name, most) for name, most in LARGEST.items() if _is_there(source / name)}
    else:
        files = _read_zip(source)
    if CARD_FILE not in files:
        raise BundleError(f"{source}: no bundle, it has no {CARD_FILE}")
    return files


def _is_there(file: Path) -> bool:
    return os.path.lexists(file)


def _read_file(file: Path, most: int) -> bytes:
    try:
        if not stat.S_ISREG(file.lstat().st_mode) and not file.is_symlink():
            raise BundleError(f"{file}: not a regular file")
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as opened:  # noqa: PTH123  a path would follow links
            content = opened.read(most + 1)
    except OSError as error:
        what = "a link, which is not followed" if file.is_symlink() else f"cannot be read: {error.strerror}"
        raise BundleError(f"{file}: {what}") from error
    return _bounded(content, most, file)


def _bounded(content: bytes, most: int, name: object) -> bytes:
    if len(content) > most:
        raise BundleError(f"{name}: larger than {most} bytes, so it is no part of a bundle")
    return content


def _read_zip(source: Path) -> dict[str, bytes]:
    try:
        if source.stat().st_size > _LARGEST_ZIP:
            raise BundleError(f"{source}: larger than {_LARGEST_ZIP} bytes, so it is no bundle")
        with zipfile.ZipFile(source) as archive:
            entries = archive.infolist()
            if len(entries) > _MOST_ENTRIES:
                raise BundleError(f"{source}: {len(entries)} entries, so it is no bundle")
            wanted = _wanted(source, entries)
            files = {}
            for name, entry in wanted.items():
                with archive.open(entry) as opened:  # what its header says about its size is not believed
                    files[name] = _bounded(opened.read(LARGEST[name] + 1), LARGEST[name], f"{source}: {name}")
            return files
    except _BROKEN as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise BundleError(f"{source}: neither a bundle's folder nor a readable zip of one: {reason}") from error


def _wanted(source: Path, entries: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    """The entries that are a bundle's files, at the top or in the folder that holds the card."""
    tops = set()
    for entry in entries:
        path = PurePosixPath(entry.filename)
        if path.is_absolute() or ".." in path.parts or "\\" in entry.filename or ":" in entry.filename:
            raise BundleError(f"{source}: {entry.filename!r} leads out of the zip: who made this is not to be trusted")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise BundleError(f"{source}: {entry.filename!r} is a link; a bundle has none")
        if path.name == CARD_FILE and len(path.parts) <= 2:
            tops.add(path.parent)
    if len(tops) != 1:
        found = f"{len(tops)} files {CARD_FILE}" if tops else f"no {CARD_FILE}"
        raise BundleError(f"{source}: {found} at its top or in its folders, so it is not one bundle")
    [top] = tops
    wanted: dict[str, zipfile.ZipInfo] = {}
    for entry in entries:
        path = PurePosixPath(entry.filename)
        if path.parent != top or path.name not in LARGEST or entry.is_dir():
            continue
        if path.name in wanted:
            raise BundleError(f"{source}: two files {path.name} in it")
        wanted[path.name] = entry
    return wanted
