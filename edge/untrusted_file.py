"""Reading files that someone else has made: only regular files, and never more of them than is of use.

A named pipe may never open and a device may never end, so they are refused by what they are, not by their names.
"""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

MALFORMED_JSON: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for content that is not what was expected; the last one for thousands of nested brackets."""

_PIECE: Final = 2**16  # bytes

_KINDS: Final = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_regular(file: Path) -> BinaryIO:
    """Open a regular file, or a link to one, for reading. Raises OSError, for anything else too."""
    require_regular(file)
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe that took its place is not awaited
    return os.fdopen(descriptor, "rb")


def require_regular(file: Path) -> None:
    """Raise OSError unless this is a regular file, or a link to one."""
    mode = file.stat().st_mode
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, f"this is {_KINDS.get(stat.S_IFMT(mode), 'something')}, not a file", str(file))


def read_regular(file: Path, most: int) -> bytes:
    """The content of a regular file of at most ``most`` bytes. Raises OSError for any other.

    It takes the memory of the file, not of ``most``, because Python allocates what it is asked to read. A file may
    state no size, as in /proc, or grow; the rest comes in pieces.
    """
    with open_regular(file) as opened:
        content = opened.read(min(os.fstat(opened.fileno()).st_size, most) + 1)
        while len(content) <= most and (piece := opened.read(min(_PIECE, most + 1 - len(content)))):
            content += piece
    if len(content) > most:
        raise OSError(errno.EFBIG, f"larger than {most:,} bytes", str(file))
    return content


def bounded_lines(opened: BinaryIO, most: int) -> Iterator[bytes]:
    """The lines of a file. Raises OSError for one of more than ``most`` bytes, before it is read whole."""
    while line := opened.readline(most + 1):
        if len(line) > most:
            raise OSError(errno.EFBIG, f"a line is longer than {most:,} bytes")
        yield line


def is_folder(path: Path) -> bool:
    """Whether this is a folder; False for names that are too long, for which ``Path.is_dir`` raises."""
    return os.path.isdir(path)  # noqa: PTH112


def is_file(path: Path) -> bool:
    """Whether this is a regular file; False for names that are too long, for which ``Path.is_file`` raises."""
    return os.path.isfile(path)  # noqa: PTH113


def is_char_device(path: Path) -> bool:
    """Whether this is a character device; False for names that are too long."""
    try:
        return stat.S_ISCHR(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def is_forbidden(path: Path) -> bool:
    """Whether this user may not read what is here, or not enter a folder that leads here, and so cannot know."""
    try:
        path.stat()
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False
    return not os.access(path, os.R_OK, effective_ids=True)  # root may have the rights of another user
