"""Read a CSV table: plain, compressed with gzip or xz, or the only CSV file in a zip or tar archive.

The format is detected from the content, not from the file's name. Everything streams, so a table of any size takes
little memory. A small compressed file can unpack to anything: so the length and the number of rows are bounded.
"""

import csv
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Final, TextIO

from edge.errors import DataError
from edge.untrusted_file import open_regular

_LONGEST_ROW: Final = 2**20  # characters; FER2013's have ten thousand
_MAX_ROWS: Final = 2_000_000  # FER2013 has 35,887; AffectNet, the largest of its kind, 440,000

_UNREADABLE: Final = (
    OSError,
    EOFError,
    ValueError,  # malformed archive headers; text that is not UTF-8
    RuntimeError,  # an encrypted zip, or a compression method that Python does not know
    struct.error,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    tarfile.TarError,
    csv.Error,
)
"""What Python's readers raise for a file that is damaged or of another format."""


@dataclass(frozen=True, slots=True)
class CsvRow:
    """One row of a table.

    ``number`` counts data rows from 0, ``line`` the lines of the text from 1, as in an editor. ``values`` has every
    column of the header; it is empty where the row is too short.
    """

    number: int
    line: int
    values: Mapping[str, str]

    def __str__(self) -> str:
        return f"data row {self.number} (line {self.line})"


def read_table(
    path: Path, kind: str, required: Sequence[str], preferred: Sequence[str] = (), *, optional: Sequence[str] = ()
) -> Iterator[CsvRow]:
    """Yield the rows of a CSV. Spaces around names and values, and lines without a value, are ignored.

    The names of ``required`` and ``optional`` columns are read in upper or lower case; rows have them as given here.

    ``kind`` names the expected table in errors; ``preferred`` are the names of the file to read from an archive with
    several CSV files. Raises DataError when the file cannot be read, a ``required`` column is missing, a column is
    there twice, or an archive does not hold one CSV file.
    """
    progress = ""
    try:
        with _open_text(path, preferred) as text:
            lines = _Lines(text)
            reader = csv.reader(lines)
            rows = (fields for fields in reader if any(map(str.strip, fields)))
            header = _header(path, kind, next(rows, []), required, optional)
            for number, fields in enumerate(rows):
                if number == _MAX_ROWS:
                    raise DataError(f"{path}: has more than {_MAX_ROWS:,} rows. Give fewer faces")
                lines.begin_row()
                values = dict.fromkeys(header, "") | dict(zip(header, map(str.strip, fields), strict=False))
                row = CsvRow(number, reader.line_num, values)
                yield row
                progress = f" after {row}"
    except _UNREADABLE as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DataError(f"{path}: cannot be read{progress}: {reason}") from error


class _Lines:
    """The lines of a text. Raises ValueError when those of one row are too long, before they are read whole."""

    def __init__(self, text: TextIO) -> None:
        self._text = text
        self._left = _LONGEST_ROW

    def begin_row(self) -> None:
        """The next line begins a row."""
        self._left = _LONGEST_ROW

    def __iter__(self) -> Iterator[str]:
        while line := self._text.readline(self._left + 1):
            self._left -= len(line)
            if self._left < 0:
                raise ValueError(f"the next row is longer than {_LONGEST_ROW:,} characters")
            yield line


def _header(
    path: Path, kind: str, names: Sequence[str], required: Sequence[str], optional: Sequence[str]
) -> Sequence[str]:
    """The names of a table's columns, those that are known spelt as known."""
    known = {name.lower(): name for name in (*required, *optional)}
    header = [known.get(name.strip().lower(), name.strip()) for name in names]
    missing = [name for name in required if name not in header]
    if missing:
        found = ", ".join(header)[:80] or "an empty file"
        raise DataError(f"{path}: not a {kind} CSV: no column {', '.join(missing)}; found {found!r}")
    twice = [name for name in known.values() if header.count(name) > 1]
    if twice:
        raise DataError(f"{path}: more than one column {', '.join(twice)}, in upper or lower case; keep one")
    return header


@contextmanager
def _open_text(path: Path, preferred: Sequence[str]) -> Iterator[TextIO]:
    with ExitStack() as opened:
        content = _open_content(path, preferred, opened)
        yield opened.enter_context(io.TextIOWrapper(content, encoding="utf-8-sig", newline=""))


def _open_content(path: Path, preferred: Sequence[str], opened: ExitStack) -> IO[bytes] | gzip.GzipFile | lzma.LZMAFile:
    """Open the CSV's bytes, which the caller closes; files underneath are closed by ``opened``."""
    raw = opened.enter_context(open_regular(path))
    magic = raw.read(6)
    raw.seek(0)
    if magic.startswith(b"PK"):
        zipped = opened.enter_context(zipfile.ZipFile(raw))
        return zipped.open(_choose_member(path, zipped.namelist(), preferred))
    if tarfile.is_tarfile(path):  # compressed or not
        tar = opened.enter_context(tarfile.open(path))  # noqa: SIM115  the exit stack closes it
        files = {member.name: member for member in tar if member.isfile()}
        content = tar.extractfile(files[_choose_member(path, list(files), preferred)])
        assert content is not None  # a regular file always opens
        return content
    if magic.startswith(b"\x1f\x8b"):
        return gzip.open(raw)
    if magic.startswith(b"\xfd7zXZ\x00"):
        return lzma.open(raw)
    return raw


def _choose_member(path: Path, names: Sequence[str], preferred: Sequence[str]) -> str:
    """The only CSV of an archive, or the only one with a preferred name when there are several."""
    files = {name: PurePosixPath(name).name for name in names}
    tables = [name for name, file in files.items() if file.lower().endswith(".csv") and not file.startswith(".")]
    for candidates in (tables, [name for name in tables if files[name] in preferred]):
        if len(candidates) == 1:
            return candidates[0]
    held = f" ({', '.join(tables[:5])})" if tables else ""
    raise DataError(f"{path}: holds {len(tables)} CSV files{held}, expected one. Unpack it and give one of its files.")
