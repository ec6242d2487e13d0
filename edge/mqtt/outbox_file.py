"""The SQLite file of an outbox: its format, transactions, and what happens to a damaged one.

Written for SD cards: one append to SQLite's write-ahead log per commit (some 6 KB and one fsync).
"""

import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice, starmap
from pathlib import Path
from typing import Final, NamedTuple

_log = logging.getLogger(__name__)

_VERSION: Final = 1
_IN_USE: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

_TABLES: Final = """
CREATE TABLE events (id INTEGER PRIMARY KEY, payload BLOB NOT NULL);
CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""


class StoredEvent(NamedTuple):
    """An event in the outbox; ids only grow."""

    id: int
    payload: bytes


@dataclass(frozen=True)
class FileContent:
    """What a file holds when it is opened: how many events, the largest id (0 for none), and the counters."""

    events: int
    newest_id: int
    counters: Mapping[str, int]


class DamagedFileError(sqlite3.DatabaseError):
    """The file can be read, but not understood: another version, or pages that contradict each other."""


class OutboxFile:
    """Events and counters in a SQLite file that one process at a time has open. Raises sqlite3.Error and OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._db: sqlite3.Connection | None = None

    @property
    def is_open(self) -> bool:
        """Whether the file is open."""
        return self._db is not None

    def open(self) -> FileContent:
        """Open the file, or make a new one. Raises DamagedFileError too."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            # A frame of the log then spans fewer of the file system's 4 KB blocks: 6.2 KB an event instead of 8.2.
            db.execute("PRAGMA page_size = 2048")
            # Exclusive: one process only, and so no shared-memory file beside the log.
            db.execute("PRAGMA locking_mode = EXCLUSIVE")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            content = _prepare(db)
        except BaseException:
            db.close()
            raise
        self._db = db
        return content

    def first_after(self, number: int, most: int, wanted: Callable[[StoredEvent], bool]) -> list[StoredEvent]:
        """Up to ``most`` wanted events with larger ids, oldest first; none while the file is closed."""
        if self._db is None:
            return []
        # A cursor, because how many unwanted rows come first is not known.
        with closing(self._db.execute("SELECT id, payload FROM events WHERE id > ? ORDER BY id", (number,))) as rows:
            return list(islice(filter(wanted, starmap(StoredEvent, rows)), most))

    def commit(self, *, delete: Iterable[int], add: Mapping[int, bytes], counters: Mapping[str, int]) -> None:
        """Delete and add events, and set counters, in one transaction. The file must be open."""
        with self._transaction() as db:
            db.executemany("DELETE FROM events WHERE id = ?", [(number,) for number in delete])
            db.executemany("INSERT INTO events VALUES (?, ?)", add.items())
            db.executemany("REPLACE INTO counters VALUES (?, ?)", counters.items())

    def close(self) -> None:
        """Close the file; never raises."""
        if self._db:
            try:
                self._db.close()
            except sqlite3.Error as error:
                _log.warning("%s: %s", self.path, error)
        self._db = None

    def set_aside(self, reason: Exception) -> None:
        """Close a damaged file and rename it, so that it can be examined. Raises OSError when that fails."""
        self.close()
        aside = self.path.with_name(f"{self.path.name}.damaged")
        _log.error("%s is damaged (%s); it is set aside as %s", self.path, reason, aside.name)
        self.path.replace(aside)
        self.path.with_name(f"{self.path.name}-wal").unlink(missing_ok=True)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        assert self._db
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
            self._db.execute("COMMIT")
        except sqlite3.Error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise


def is_in_use(error: Exception) -> bool:
    """Whether an error means that another process has the file open."""
    return _primary_code(error) in _IN_USE


def is_damaged(error: Exception) -> bool:
    """Whether an error means that the file's content is damaged."""
    return _primary_code(error) in _DAMAGED or isinstance(error, DamagedFileError)


def _prepare(db: sqlite3.Connection) -> FileContent:
    [version] = db.execute("PRAGMA user_version").fetchone()
    [check] = db.execute("PRAGMA quick_check(1)").fetchone()
    if version not in (0, _VERSION) or check != "ok":
        raise DamagedFileError(f"version {version}, {check}")
    if version == 0:
        db.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {_VERSION}; COMMIT;")
    events, newest = db.execute("SELECT count(*), ifnull(max(id), 0) FROM events").fetchone()
    return FileContent(events, newest, dict(db.execute("SELECT name, value FROM counters")))


def _primary_code(error: Exception) -> int:
    """SQLite's primary result code, 0 for other errors (https://www.sqlite.org/rescode.html)."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
