"""Read a bundle from an untrusted folder or zip: only a bundle's own files, of bounded size, and no links."""

import lzma
import os
import stat
import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final

from edge.errors import BundleError
from edge.model.bundle import CARD_FILE, MAX_BYTES
from edge.untrusted_file import is_folder, open_regular

_MAX_ZIP_BYTES: Final = sum(MAX_BYTES.values())
_MAX_ENTRIES: Final = 1000
_UNREADABLE: Final = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,  # an encrypted entry, or a compression method that Python does not know
    struct.error,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
)
"""What Python's readers raise for a file that is damaged or no zip."""


def read_bundle_archive(source: Path) -> dict[str, bytes]:
    """Read the files of a bundle from a folder, or from a zip of one. Returns their contents by name.

    Raises BundleError when there is no bundle, when a file is larger than MAX_BYTES, and when a zip has links or
    names that lead out of it.
    """
    if is_folder(source):
        files = {name: _read_file(source / name, most) for name, most in MAX_BYTES.items() if _exists(source / name)}
    else:
        files = _read_zip(source)
    if CARD_FILE not in files:
        raise BundleError(f"{source}: this is no bundle, because it has no {CARD_FILE}")
    return files


def _exists(file: Path) -> bool:
    """Whether a file of any kind is there, a broken link too."""
    return os.path.lexists(file)


def _read_file(file: Path, max_bytes: int) -> bytes:
    try:
        if not stat.S_ISREG(file.lstat().st_mode) and not file.is_symlink():
            raise BundleError(f"{file}: not a regular file")
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as opened:  # noqa: PTH123  a path would follow links
            content = opened.read(max_bytes + 1)
    except OSError as error:
        reason = "a link, which is not followed" if file.is_symlink() else f"cannot be read: {error.strerror}"
        raise BundleError(f"{file}: {reason}") from error
    return _require_size(content, max_bytes, file)


def _require_size(content: bytes, max_bytes: int, name: object) -> bytes:
    if len(content) > max_bytes:
        raise BundleError(f"{name}: larger than {max_bytes} bytes, which no file of a bundle is")
    return content


def _read_zip(source: Path) -> dict[str, bytes]:
    try:
        with open_regular(source) as stored, zipfile.ZipFile(_require_zip_size(source, stored)) as archive:
            entries = archive.infolist()
            if len(entries) > _MAX_ENTRIES:
                raise BundleError(f"{source}: {len(entries)} entries, which no bundle has")
            files = {}
            for name, entry in _bundle_entries(source, entries).items():
                with archive.open(entry) as opened:  # the size that its header states is not trusted
                    content = opened.read(MAX_BYTES[name] + 1)
                files[name] = _require_size(content, MAX_BYTES[name], f"{source}: {name}")
            return files
    except _UNREADABLE as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise BundleError(f"{source}: neither a bundle's folder nor a readable zip of one: {reason}") from error


def _require_zip_size(source: Path, stored: BinaryIO) -> BinaryIO:
    if os.fstat(stored.fileno()).st_size > _MAX_ZIP_BYTES:
        raise BundleError(f"{source}: larger than {_MAX_ZIP_BYTES} bytes, which no bundle is")
    return stored


def _bundle_entries(source: Path, entries: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    """The entries that are a bundle's files, by file name; they are beside the card."""
    top = _bundle_folder(source, entries)
    found: dict[str, zipfile.ZipInfo] = {}
    for entry in entries:
        path = PurePosixPath(entry.filename)
        if path.parent != top or path.name not in MAX_BYTES or entry.is_dir():
            continue
        if path.name in found:
            raise BundleError(f"{source}: it has two files {path.name}")
        found[path.name] = entry
    return found


def _bundle_folder(source: Path, entries: list[zipfile.ZipInfo]) -> PurePosixPath:
    """The folder of the one card, at the top or one level below. Raises BundleError for names not to be trusted."""
    folders = set()
    for entry in entries:
        path = PurePosixPath(entry.filename)
        if path.is_absolute() or ".." in path.parts or "\\" in entry.filename or ":" in entry.filename:
            raise BundleError(f"{source}: {entry.filename!r} leads out of the zip: do not trust who made this")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise BundleError(f"{source}: {entry.filename!r} is a link; a bundle has none")
        if path.name == CARD_FILE and len(path.parts) <= 2:
            folders.add(path.parent)
    if len(folders) != 1:
        found = f"{len(folders)} files {CARD_FILE}" if folders else f"no {CARD_FILE}"
        raise BundleError(f"{source}: {found} at its top or in its folders, so it is not one bundle")
    return folders.pop()
