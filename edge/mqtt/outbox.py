"""Events on their way to the broker, kept on disk: what was committed is sent until it is acknowledged.

The contract: an event whose commit returned is given out by :meth:`Outbox.take`, again after every lost connection and
every restart, until it is acknowledged, or it is dropped because there are more than the stated number, and counted.

Written for SD cards: one append to SQLite's write-ahead log per commit (some 6 KB and one fsync); acknowledged events
are deleted along with the next commit, or when nothing came for a minute. A crash in between has them sent twice.
"""

import itertools
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from edge.errors import StoreError

_log = logging.getLogger(__name__)

_VERSION: Final = 1
_IN_USE: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_TIDY_SECONDS: Final = 60.0
_TIDY_COUNT: Final = 256
_FIRST_RETRY: Final = 1.0
_LONGEST_RETRY: Final = 60.0

_TABLES: Final = """
CREATE TABLE events (id INTEGER PRIMARY KEY, payload BLOB NOT NULL);
CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""


class Stored(NamedTuple):
    """An event in the outbox; ids only grow."""

    id: int
    payload: bytes


class StoredCounts(NamedTuple):
    """How many events wait, and how many were ever added, at one and the same moment."""

    waiting: int
    added: int


class OutboxFigures(msgspec.Struct, frozen=True):
    """How the outbox is: how many events wait and may wait, were dropped for that; how often its file was damaged.

    ``failed`` counts attempts that the disk refused: full, read-only or broken. The counts outlive restarts.
    ``durable`` is false while the disk does not take events: those that wait are then in memory only.
    """

    waiting: int
    most: int
    dropped: int
    damaged: int
    failed: int
    durable: bool


class Outbox:
    """A queue of payloads on disk, for one process at a time and for several threads of it.

    Everything new is in memory until one transaction brings it to the disk. A disk that is full, broken or read-only
    therefore only means that it stays there, is sent from there, and that the transaction is tried again later;
    ``trouble`` then says what is wrong. A damaged file is set aside. Raises StoreError when another process has it.
    """

    def __init__(self, file: Path, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.trouble = ""
        self.tally = StoredCounts(0, 0)
        self._file = file
        self._most = most
        self._clock = clock
        self._lock = threading.RLock()
        self._db: sqlite3.Connection | None = None
        self._closed = False
        self._memory: dict[int, bytes] = {}
        self._count = 0
        self._done: set[int] = set()
        self._taken: set[int] = set()
        self._cursor = 0
        self._next = 1
        self._counters = {"dropped": 0, "damaged": 0, "failed": 0}
        self._stored_counters = dict(self._counters)
        self._retry_after = _FIRST_RETRY
        self._retry_at = clock()
        try:
            self._connect()
        except (sqlite3.Error, OSError) as error:
            if _code(error) in _IN_USE:
                raise StoreError(
                    f"{file} is in use: does another fer-edge run with this device name? Stop it, or give mqtt.device."
                ) from error
            self._endure(error)
        self.settle()

    @property
    def figures(self) -> OutboxFigures:
        """How it is; as ``tally``, never waits for the disk."""
        durable = self._db is not None and not self.trouble
        return OutboxFigures(waiting=self._waiting, most=self._most, durable=durable, **self._counters)

    @property
    def untidy(self) -> bool:
        """Whether so many acknowledged events are still on disk that deleting them should not wait."""
        return len(self._done) >= _TIDY_COUNT

    def add(self, payloads: Sequence[bytes]) -> bool:
        """Keep events, newest last; returns whether they were committed (else they are in memory, see ``trouble``)."""
        with self._lock:
            for payload in payloads:
                self._memory[self._next] = payload
                self._next += 1
            self._count += len(payloads)
            self._drop_excess()
            self.tally = StoredCounts(self._count, self.tally.added + len(payloads))
            self.settle()
            return not self._memory

    def settle(self) -> None:
        """Bring to the disk what is not there yet, and delete there what is done with, in one transaction."""
        with self._lock:
            if self._closed or self._clock() < self._retry_at:
                return
            self._attempt()
            if self._db is None and not self.trouble:  # the damaged file was set aside
                self._attempt()

    def take(self, most: int) -> list[Stored]:
        """Up to ``most`` of the oldest events that are not taken yet, in order."""
        with self._lock:
            found = self._first_free(self._cursor, most)
            self._taken.update(stored.id for stored in found)
            if found:
                self._cursor = found[-1].id
            return found

    def give_back(self, *ids: int) -> None:
        """Let taken events be taken again."""
        with self._lock:
            self._taken.difference_update(ids)
            self._cursor = min((self._cursor, *(number - 1 for number in ids)))

    def leave(self, number: int) -> None:
        """Don't hold a taken event any more, and don't let it be taken before :meth:`start_over` either."""
        with self._lock:
            self._taken.discard(number)

    def start_over(self) -> None:
        """Let everything be taken again, from the oldest on: what was on its way may be lost."""
        with self._lock:
            self._taken.clear()
            self._cursor = 0

    def acknowledge(self, number: int) -> None:
        """An event that was taken has arrived, and is not needed any more."""
        with self._lock:
            if number in self._taken:
                self._taken.discard(number)
                self._forget(number)
                self._recounted(self._count)

    def close(self) -> None:
        """Settle, and let go of the file. Whatever is not on disk by then is lost, and said to be."""
        with self._lock:
            self._retry_at = self._clock()
            self._taken.clear()
            self.settle()
            self._closed = True
            if self._memory:
                _log.error("%d events are lost with this process: %s", len(self._memory), self.trouble)
            self._disconnect()

    @property
    def _waiting(self) -> int:
        return self.tally.waiting

    def _recounted(self, waiting: int) -> None:
        self._count = waiting
        self.tally = StoredCounts(waiting, self.tally.added)

    def _first_free(self, after: int, most: int) -> list[Stored]:
        """The oldest events with larger ids that are neither taken nor done with, in order."""
        found: list[Stored] = []
        try:
            if self._db:
                # A cursor, because how many rows have to be passed over is not known.
                rows = self._db.execute("SELECT id, payload FROM events WHERE id > ? ORDER BY id", (after,))
                found = list(islice(filter(self._free, itertools.starmap(Stored, rows)), most))
                rows.close()
        except sqlite3.Error as error:
            self._endure(error)
        newer = (Stored(number, payload) for number, payload in self._memory.items() if number > after)
        return found + list(islice(filter(self._free, newer), most - len(found)))

    def _free(self, stored: Stored) -> bool:
        return stored.id not in self._taken and stored.id not in self._done

    def _drop_excess(self) -> None:
        excess = self._count - self._most
        for stored in self._first_free(0, excess) if excess > 0 else ():
            self._forget(stored.id)
            self._counters["dropped"] += 1

    def _forget(self, number: int) -> None:
        self._count -= 1
        if self._memory.pop(number, None) is None:
            self._done.add(number)

    def _attempt(self) -> None:
        """What the disk does wrong is kept in ``trouble``, and tried again later."""
        if self._db is None and self._taken:
            return  # opening may give events in memory other ids, which those on their way must keep
        try:
            db = self._db or self._connect()
            if self._memory or self._done or self._counters != self._stored_counters:
                self._transact(db)
        except (sqlite3.Error, OSError) as error:
            self._endure(error)
        else:
            if self.trouble:
                self._cursor = 0  # what could not be read may have been passed over
            self.trouble = ""
            self._retry_after = _FIRST_RETRY

    def _transact(self, db: sqlite3.Connection) -> None:
        db.execute("BEGIN IMMEDIATE")
        try:
            db.executemany("DELETE FROM events WHERE id = ?", [(number,) for number in self._done])
            db.executemany("INSERT INTO events VALUES (?, ?)", self._memory.items())
            if self._counters != self._stored_counters:
                db.executemany("REPLACE INTO counters VALUES (?, ?)", self._counters.items())
            db.execute("COMMIT")
        except sqlite3.Error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        self._memory.clear()
        self._done.clear()
        self._stored_counters = dict(self._counters)

    def _connect(self) -> sqlite3.Connection:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(self._file, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            # A frame of the log then spans fewer of the file system's 4 KB blocks: 6.2 KB an event instead of 8.2.
            db.execute("PRAGMA page_size = 2048")
            # Exclusive: one process only, and so no shared-memory file beside the log.
            db.execute("PRAGMA locking_mode = EXCLUSIVE")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            self._prepare(db)
        except BaseException:
            db.close()
            raise
        self._db = db
        return db

    def _prepare(self, db: sqlite3.Connection) -> None:
        [version] = db.execute("PRAGMA user_version").fetchone()
        [check] = db.execute("PRAGMA quick_check(1)").fetchone()
        if version not in (0, _VERSION) or check != "ok":
            raise _Damaged(f"version {version}, {check}")
        if version == 0:
            db.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {_VERSION}; COMMIT;")
        on_disk, newest = db.execute("SELECT count(*), ifnull(max(id), 0) FROM events").fetchone()
        stored = dict(db.execute("SELECT name, value FROM counters"))
        self._stored_counters = {name: stored.get(name, 0) for name in self._counters}
        for name, value in self._stored_counters.items():
            self._counters[name] += value
        if newest >= min(self._memory, default=self._next):
            self._memory = dict(enumerate(self._memory.values(), newest + 1))
            self._next = newest + 1 + len(self._memory)
        self._recounted(on_disk - len(self._done) + len(self._memory))
        self._cursor = 0

    def _disconnect(self) -> None:
        if self._db:
            try:
                self._db.close()
            except sqlite3.Error as error:
                _log.warning("%s: %s", self._file, error)
        self._db = None

    def _endure(self, error: Exception) -> None:
        if _code(error) in _DAMAGED or isinstance(error, _Damaged):
            self._set_aside(error)
            return
        trouble = f"events are kept in memory only, because {self._file} cannot be written: {error}"
        if trouble != self.trouble:
            _log.error(trouble)
        self.trouble = trouble
        self._counters["failed"] += 1
        self._retry_at = self._clock() + self._retry_after
        self._retry_after = min(_LONGEST_RETRY, 2 * self._retry_after)

    def _set_aside(self, error: Exception) -> None:
        """Keep the damaged file for whoever wants to look at it; the next attempt begins a new one."""
        self._disconnect()
        aside = self._file.with_name(f"{self._file.name}.damaged")
        _log.error("%s is damaged (%s); it is set aside as %s", self._file, error, aside.name)
        try:
            self._file.replace(aside)
            self._file.with_name(f"{self._file.name}-wal").unlink(missing_ok=True)
        except OSError as other:
            self._endure(other)
            return
        self._counters["damaged"] += 1
        self._stored_counters = {}
        self._recounted(len(self._memory))
        self._done.clear()
        self._taken.intersection_update(self._memory)


def _code(error: Exception) -> int:
    """SQLite's primary result code, 0 for other errors."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


class _Damaged(sqlite3.DatabaseError):
    """The file can be read, and what is in it is wrong."""


class Committer(threading.Thread):
    """Brings events into an outbox, so that whoever tells them never waits for a disk.

    Events that come while a commit runs go into the next one together. ``moved`` is called after each commit, or try.
    """

    def __init__(self, outbox: Outbox, moved: Callable[[], None]) -> None:
        super().__init__(name="outbox", daemon=True)
        self._outbox = outbox
        self._moved = moved
        self._changed = threading.Condition()
        self._queue: deque[bytes] = deque()
        self._told = outbox.tally.added
        self._asked = self._closing = False

    @property
    def waiting(self) -> int:
        """Events that the outbox does not have yet."""
        return self._told - self._outbox.tally.added

    @property
    def undelivered(self) -> int:
        """Those, and what waits in the outbox; none is counted twice on its way from here to there."""
        tally = self._outbox.tally
        return self._told - tally.added + tally.waiting

    def put(self, payload: bytes) -> None:
        """Take an event; returns at once."""
        with self._changed:
            self._queue.append(payload)
            self._told += 1
            self._changed.notify()

    def tidy(self) -> None:
        """Delete from the disk now what was acknowledged."""
        with self._changed:
            self._asked = True
            self._changed.notify()

    def close(self, seconds: float) -> None:
        """Commit what is left, and end; a disk that hangs is not waited for longer."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self.join(seconds)

    def run(self) -> None:
        """Commit until closed."""
        while True:
            with self._changed:
                patience = _TIDY_SECONDS if self._outbox.figures.durable else _FIRST_RETRY
                self._changed.wait_for(lambda: self._queue or self._asked or self._closing, patience)
                batch = list(self._queue)
                self._queue.clear()
                self._asked = False
                closing = self._closing
            if batch:
                self._outbox.add(batch)
            else:
                self._outbox.settle()
            self._moved()
            if closing and not self._queue:
                return
