"""The SQLite file of an outbox: its format, transactions, and what happens to a damaged one.

Written for SD cards: one append to SQLite's write-ahead log per commit (some 6 KB and one fsync). Each event has a
checksum. An inventory (edge.mqtt.outbox_inventory) tells at the next start which events are missing.
"""

import logging
import sqlite3
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote

from msgspec.structs import replace

from edge.mqtt.outbox_inventory import IdSet, Inventory, InventoryFile, decode, encode, first_inventory

_log = logging.getLogger(__name__)

_VERSION: Final = 2
_INVENTORY_ID: Final = 2**63 - 1
"""The row of the inventory: the last one, so that it is in the page that a commit writes anyway."""
_LOG_PAGES: Final = 64
"""So long (130 KB) is SQLite's log at most, before its content moves to the file itself."""
_IN_USE: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

_TABLES: Final = """
CREATE TABLE events (id INTEGER PRIMARY KEY, payload BLOB NOT NULL, checksum INTEGER);
"""
_TABLES_OF_VERSION_1: Final = """
ALTER TABLE events ADD COLUMN checksum INTEGER;
UPDATE events SET checksum = checksum_of(id, payload);
DROP TABLE counters;
"""
_COLUMNS: Final = "id, CAST(payload AS BLOB), CAST(checksum AS INTEGER)"  # whatever types damage has made of them


def is_used(path: Path) -> bool:
    """Whether another process has this outbox open."""
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", timeout=0, uri=True)) as db:
            db.execute("SELECT count(*) FROM sqlite_master")
    except sqlite3.Error as error:
        return is_in_use(error)
    return False


class StoredEvent(NamedTuple):
    """An event in the outbox; ids only grow."""

    id: int
    payload: bytes


class FoundEvents(NamedTuple):
    """Events that were read, and the ids of those whose checksum shows that they are damaged."""

    intact: list[StoredEvent]
    damaged: list[int]


@dataclass(frozen=True)
class FileContent:
    """What a file holds when it is opened: how many events, the largest id ever given (0 for none), and the counters.

    ``lost`` is how many events are missing.
    """

    events: int
    newest_id: int
    counters: Mapping[str, int]
    lost: int


@dataclass(frozen=True)
class _Stored:
    """The ids in the file, and its inventory, if it has one."""

    ids: IdSet
    inventory: Inventory | None


class DamagedFileError(sqlite3.DatabaseError):
    """The file can be read, but not understood: another version, or pages that contradict each other."""


class OutboxFile:
    """Events and counters in a SQLite file that one process at a time has open. Raises sqlite3.Error and OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._db: sqlite3.Connection | None = None
        self._copy = InventoryFile(path.with_name(f"{path.name}.inventory"))
        self._inventory: Inventory | None = None  # of the last commit that is known
        self._ids = IdSet()
        self._stale: list[int] = []  # rows of an earlier state of the file, which are deleted with the next commit

    @property
    def is_open(self) -> bool:
        """Whether the file is open."""
        return self._db is not None

    def open(self, delivered: Collection[int]) -> FileContent:
        """Open the file, or make a new one, and count what is missing apart from ``delivered`` ids.

        Raises DamagedFileError too.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _check_header(self.path)
        db = sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            stored = _prepared(db)
        except BaseException:
            db.close()
            raise
        self._db = db
        return self._take_stock(stored, delivered)

    def holds(self, number: int) -> bool:
        """Whether an event is in the file."""
        return number in self._ids

    def first_after(self, number: int, most: int, wanted: Callable[[int], bool]) -> FoundEvents:
        """Up to ``most`` wanted events with larger ids, oldest first; none while the file is closed."""
        found = FoundEvents([], [])
        if self._db is None:
            return found
        # A cursor, because how many unwanted rows come first is not known.
        query = f"SELECT {_COLUMNS} FROM events WHERE id > ? AND id < ? ORDER BY id"
        with closing(self._db.execute(query, (number, _INVENTORY_ID))) as rows:
            for event, payload, checksum in rows:
                if len(found.intact) >= most:
                    break
                if not (self.holds(event) and wanted(event)):
                    continue
                if checksum == _checksum(event, payload):
                    found.intact.append(StoredEvent(event, payload))
                else:
                    found.damaged.append(event)
        return found

    def commit(self, *, delete: Collection[int], add: Mapping[int, bytes], counters: Mapping[str, int]) -> None:
        """Delete and add events, and set counters, in one transaction. The file must be open."""
        assert self._inventory
        ids = self._ids.changed(delete, add)
        newest_id = max(self._inventory.newest_id, max(add, default=0))
        inventory = self._inventory.next(ids, newest_id, counters)
        with self._transaction() as db:
            db.executemany("DELETE FROM events WHERE id = ?", [(number,) for number in (*self._stale, *delete)])
            db.executemany("INSERT INTO events VALUES (?, ?, ?)", _rows(add))
            db.executemany("REPLACE INTO events VALUES (?, ?, ?)", _rows({_INVENTORY_ID: encode(inventory)}))
        self._ids, self._inventory, self._stale = ids, inventory, []
        self._copy.write(inventory)

    def close(self) -> None:
        """Close the file; never raises."""
        if self._db:
            try:
                self._db.close()
            except sqlite3.Error as error:
                _log.warning("%s: %s", self.path, error)
        self._db = None
        self._copy.close()

    def set_aside(self, reason: Exception) -> None:
        """Close a damaged file and rename it, so that it can be examined. Raises OSError when that fails."""
        self.close()
        aside = self.path.with_name(f"{self.path.name}.damaged")
        expected = _newest(self._inventory, self._copy.read())
        number = str(sum(last - first + 1 for first, last in expected.waiting)) if expected else "an unknown number of"
        _log.error("%s is damaged (%s); it is set aside as %s with %s events", self.path, reason, aside.name, number)
        self.path.replace(aside)
        self.path.with_name(f"{self.path.name}-wal").unlink(missing_ok=True)

    def _take_stock(self, stored: _Stored, delivered: Collection[int]) -> FileContent:
        """Compare what the file holds with what it must hold."""
        own, others = stored.inventory, _newest(self._inventory, self._copy.read())
        replaced = bool(own and others and own.outbox != others.outbox)  # by the file of another outbox
        expected = (others if replaced else _newest(own, others)) or first_inventory()
        waiting, ids = IdSet(expected.waiting), stored.ids
        missing = [number for number in waiting if (replaced or number not in ids) and number not in delivered]
        if expected.complete and expected.commits and not replaced:
            self._ids = IdSet.of(number for number in ids if number in waiting)
            self._stale = [number for number in ids if number not in waiting]
        else:
            self._ids, self._stale = ids, []
        newest_id = max((expected.newest_id, *(last for _, last in self._ids.ranges[-1:])))
        self._inventory = replace(expected, newest_id=newest_id)
        return FileContent(len(self._ids), newest_id, expected.counters, len(missing))

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


def _check_header(path: Path) -> None:
    """Raise DamagedFileError for a file that SQLite would only read (https://www.sqlite.org/fileformat.html)."""
    with suppress(FileNotFoundError), path.open("rb") as file:
        versions = file.read(20)[18:]
        if versions and versions not in (b"\1\1", b"\2\2"):
            raise DamagedFileError("unknown file format")


def _prepared(db: sqlite3.Connection) -> _Stored:
    try:
        _configure(db)
        return _prepare(db)
    except sqlite3.OperationalError as error:
        if _primary_code(error) == sqlite3.SQLITE_ERROR:  # in SQL that never changes: a table has gone
            raise DamagedFileError(str(error)) from error
        raise
    except UnicodeDecodeError as error:  # SQLite's message quotes what it cannot read
        raise DamagedFileError("malformed schema") from error


def _configure(db: sqlite3.Connection) -> None:
    # A frame of the log then spans fewer of the file system's 4 KB blocks: 6.2 KB an event instead of 8.2.
    db.execute("PRAGMA page_size = 2048")
    # Exclusive: one process only, and so no shared-memory file beside the log.
    db.execute("PRAGMA locking_mode = EXCLUSIVE")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")


def _prepare(db: sqlite3.Connection) -> _Stored:
    [version] = db.execute("PRAGMA user_version").fetchone()
    [check] = db.execute("PRAGMA quick_check(1)").fetchone()
    if version not in (0, 1, _VERSION) or check != "ok":
        raise DamagedFileError(f"version {version}, {check}")
    if version == 0:
        db.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {_VERSION}; COMMIT;")
    elif version == 1:
        _migrate(db)
    rows = db.execute("SELECT id FROM events WHERE id < ? ORDER BY id", (_INVENTORY_ID,))
    ids = IdSet.of(number for [number] in rows)
    found = db.execute(f"SELECT {_COLUMNS} FROM events WHERE id = ?", (_INVENTORY_ID,)).fetchone()
    return _Stored(ids, decode(found[1]) if found else None)


def _migrate(db: sqlite3.Connection) -> None:
    """Bring a file of version 1 to this version, in one transaction."""
    db.create_function("checksum_of", 2, _checksum, deterministic=True)
    ids = IdSet.of(number for [number] in db.execute("SELECT id FROM events ORDER BY id"))
    newest_id = ids.ranges[-1][1] if ids.ranges else 0
    counters = {
        name.decode(errors="replace"): value
        for name, value in db.execute("SELECT CAST(name AS BLOB), CAST(value AS INTEGER) FROM counters")
    }
    inventory = encode(first_inventory().next(ids, newest_id, counters))
    db.execute("BEGIN IMMEDIATE")
    try:
        for statement in _TABLES_OF_VERSION_1.split(";"):
            db.execute(statement)
        db.executemany("INSERT INTO events VALUES (?, ?, ?)", _rows({_INVENTORY_ID: inventory}))
        db.execute(f"PRAGMA user_version = {_VERSION}")
        db.execute("COMMIT")
    except sqlite3.Error:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _rows(events: Mapping[int, bytes]) -> list[tuple[int, bytes, int]]:
    return [(number, payload, _checksum(number, payload)) for number, payload in events.items()]


def _checksum(number: int, payload: bytes) -> int:
    """Of an event; its id is part of it, because damage may change that too."""
    return zlib.crc32(payload, zlib.crc32(b"%d" % number))


def _newest(*inventories: Inventory | None) -> Inventory | None:
    return max((one for one in inventories if one), key=lambda one: one.commits, default=None)


def _primary_code(error: Exception) -> int:
    """SQLite's primary result code, 0 for other errors (https://www.sqlite.org/rescode.html)."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
