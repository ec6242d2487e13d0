"""A durable queue of events on their way to the broker.

The contract: an event whose commit returned is given out by :meth:`Outbox.take`, again after every lost connection and
every restart, until it is acknowledged. Otherwise it is counted: as dropped when there are more than the stated number,
as lost when the file is damaged.

Acknowledged events are deleted along with the next commit, or after a minute without one. A crash before that has them
sent twice.
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Sequence
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

from edge.errors import StoreError
from edge.mqtt.figures import OutboxFigures
from edge.mqtt.outbox_file import FileContent, OutboxFile, StoredEvent, is_damaged, is_in_use

_log = logging.getLogger(__name__)

_CLEANUP_COUNT: Final = 256
FIRST_RETRY: Final = 1.0
"""Seconds from the first failure of the disk to the next attempt; each failure doubles it."""
_LONGEST_RETRY: Final = 60.0


class OutboxCounts(NamedTuple):
    """How many events wait, and how many were ever added, at one and the same moment."""

    waiting: int
    added: int


class DiskStatus:
    """What is wrong with the disk, and when to try it again: after a time that doubles up to a minute."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self.error = ""
        """Why events are in memory only; empty while the disk takes them."""
        self.damage = ""
        """How many committed events are lost since the start, because the file was damaged; empty for none."""
        self._path = path
        self._clock = clock
        self._lost = 0
        self.retry_now()

    @property
    def retry_due(self) -> bool:
        """Whether it may be tried now."""
        return self._clock() >= self.retry_at

    def retry_now(self) -> None:
        """Allow the next attempt at once."""
        self.retry_at = self._clock()
        self._retry_after = FIRST_RETRY

    def works(self) -> None:
        """An attempt has succeeded."""
        self.error = ""
        self.retry_now()

    def failed(self, error: Exception) -> None:
        """An attempt has failed; the next one is postponed."""
        message = f"events are kept in memory only, because {self._path} cannot be written: {error}"
        if message != self.error:
            _log.error(message)
        self.error = message
        self.retry_at = self._clock() + self._retry_after
        self._retry_after = min(_LONGEST_RETRY, 2 * self._retry_after)

    def lost(self, events: int) -> None:
        """Committed events are gone."""
        if events:
            self._lost += events
            self.damage = (
                f"{self._path} was damaged. Events that waited in it and are lost: {self._lost}. "
                "The memory card may be worn: replace it."
            )
            _log.error(self.damage)


class OutboxCounters:
    """Counts of an outbox that outlive restarts."""

    def __init__(self, disk: DiskStatus) -> None:
        self._disk = disk
        self.values = {"dropped": 0, "damaged": 0, "lost": 0, "failed": 0}
        self._stored: dict[str, int] | None = None

    @property
    def changed(self) -> bool:
        """Whether they differ from what is on disk."""
        return self.values != self._stored

    def count(self, name: str, events: int = 1) -> None:
        """Count something."""
        self.values[name] += events

    def lose(self, events: int) -> None:
        """Count committed events that are gone."""
        self.count("lost", events)
        self._disk.lost(events)

    def found(self, content: FileContent) -> None:
        """The file has been opened; what it holds is of earlier processes, when that happens for the first time."""
        first = self._stored is None
        self._stored = {name: content.counters.get(name, 0) for name in self.values}
        if first:
            for name, value in self._stored.items():
                self.count(name, value)
        self.lose(content.lost)

    def committed(self) -> None:
        """They are on disk now."""
        self._stored = dict(self.values)


class Outbox:
    """A queue of payloads on disk, for one process at a time and for several threads of it.

    New events are in memory until one transaction writes them to the disk. On a disk that is full, broken or read-only
    they stay there and are sent from there, and the transaction is tried again later; ``disk.error`` then says what is
    wrong. A damaged file is set aside, and what it has lost is counted; ``disk.damage`` says how much. Raises
    StoreError when another process has the file open.
    """

    def __init__(self, path: Path, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.disk = DiskStatus(path, clock)
        self.counts = OutboxCounts(0, 0)
        """Read without the lock, which is held while the disk is written."""
        self._file = OutboxFile(path)
        self._most = most
        self._lock = threading.RLock()
        self._closed = False
        self._memory: dict[int, bytes] = {}
        self._waiting = 0
        self._done: set[int] = set()  # acknowledged or dropped, and still on disk
        self._taken: set[int] = set()
        self._cursor = 0  # every event up to this id was taken or is done
        self._next_id = 1
        self._counters = OutboxCounters(self.disk)
        try:
            self._open()
        except (sqlite3.Error, OSError) as error:
            if is_in_use(error):
                raise _in_use(path) from error
            self._disk_failed(error)
        self.flush()

    @property
    def figures(self) -> OutboxFigures:
        """Figures of now; like ``counts``, never waits for the disk."""
        durable = self._file.is_open and not self.disk.error
        return OutboxFigures(waiting=self.counts.waiting, most=self._most, durable=durable, **self._counters.values)

    @property
    def needs_cleanup(self) -> bool:
        """Whether so many acknowledged events are still on disk that deleting them should not wait."""
        return len(self._done) >= _CLEANUP_COUNT

    def add(self, payloads: Sequence[bytes]) -> bool:
        """Add events, newest last; returns whether they were committed (else they are in memory, see ``disk``)."""
        with self._lock:
            for payload in payloads:
                self._memory[self._next_id] = payload
                self._next_id += 1
            self._waiting += len(payloads)
            self._drop_excess()
            self.counts = OutboxCounts(self._waiting, self.counts.added + len(payloads))
            self.flush()
            return not self._memory

    def flush(self) -> None:
        """Write new events to the disk, and delete acknowledged ones there, in one transaction."""
        with self._lock:
            if self._closed or not self.disk.retry_due:
                return
            self._try_to_commit()
            if not self._file.is_open and not self.disk.error:  # the damaged file was set aside
                self._try_to_commit()

    def take(self, most: int) -> list[StoredEvent]:
        """Up to ``most`` of the oldest events that are not taken yet, in order."""
        with self._lock:
            found = self._available(self._cursor, most)
            self._taken.update(event.id for event in found)
            if found:
                self._cursor = found[-1].id
            self._publish_counts()
            return found

    def give_back(self, *ids: int) -> None:
        """Let taken events be taken again."""
        with self._lock:
            self._taken.difference_update(ids)
            self._cursor = min((self._cursor, *(number - 1 for number in ids)))

    def skip(self, number: int) -> None:
        """Give back a taken event, which is not to be taken again before :meth:`start_over`."""
        with self._lock:
            self._taken.discard(number)

    def start_over(self) -> None:
        """Let all events be taken again, from the oldest on: those in flight may be lost."""
        with self._lock:
            self._taken.clear()
            self._cursor = 0

    def acknowledge(self, number: int) -> None:
        """Remove a taken event: it has arrived."""
        with self._lock:
            if number in self._taken:
                self._taken.discard(number)
                self._remove(number)
                self._publish_counts()

    def close(self) -> None:
        """Flush, and close the file. Events that are not on disk then are lost, which is logged."""
        with self._lock:
            self.disk.retry_now()
            self._taken.clear()
            self.flush()
            self._closed = True
            if self._memory:
                _log.error("%d events are lost with this process: %s", len(self._memory), self.disk.error)
            self._file.close()

    def _publish_counts(self) -> None:
        self.counts = OutboxCounts(self._waiting, self.counts.added)

    def _available(self, after: int, most: int) -> list[StoredEvent]:
        """The oldest events with larger ids that are neither taken nor done, in order."""
        on_disk: list[StoredEvent] = []
        try:
            on_disk, damaged = self._file.first_after(after, most, self._is_available)
            self._lose(damaged)
        except sqlite3.Error as error:
            self._disk_failed(error)
        newer = (number for number in self._memory if number > after and self._is_available(number))
        room = most - len(on_disk)
        return on_disk + [StoredEvent(number, self._memory[number]) for number in islice(newer, room)]

    def _is_available(self, number: int) -> bool:
        return number not in self._taken and number not in self._done

    def _lose(self, damaged: Collection[int]) -> None:
        for number in damaged:
            self._remove(number)
        self._counters.lose(len(damaged))

    def _drop_excess(self) -> None:
        excess = self._waiting - self._most
        for event in self._available(0, excess) if excess > 0 else ():
            if self._waiting > self._most:  # looking for them may have found damaged ones
                self._remove(event.id)
                self._counters.count("dropped")

    def _remove(self, number: int) -> None:
        self._waiting -= 1
        if self._memory.pop(number, None) is None:
            self._done.add(number)

    def _try_to_commit(self) -> None:
        """Commit what has changed; an error is kept in ``disk``, and the next attempt is postponed."""
        if not self._file.is_open and self._taken:
            return  # opening may renumber events in memory, but those in flight must keep their ids
        try:
            if not self._file.is_open:
                self._open()
            if self._memory or self._done or self._counters.changed:
                self._commit()
        except (sqlite3.Error, OSError) as error:
            self._disk_failed(error)
        else:
            if self.disk.error:
                self._cursor = 0  # events that could not be read may have been passed over
            self.disk.works()

    def _commit(self) -> None:
        self._file.commit(delete=self._done, add=self._memory, counters=self._counters.values)
        self._memory.clear()
        self._done.clear()
        self._counters.committed()

    def _open(self) -> None:
        content = self._file.open(delivered=self._done)
        self._counters.found(content)
        self._done = set(filter(self._file.holds, self._done))
        self._renumber(content)
        self._waiting = content.events - len(self._done) + len(self._memory)
        self._publish_counts()
        self._cursor = 0

    def _renumber(self, content: FileContent) -> None:
        """Give events in memory larger ids than those on disk have."""
        if content.newest_id >= min(self._memory, default=self._next_id):
            self._memory = dict(enumerate(self._memory.values(), content.newest_id + 1))
            self._next_id = content.newest_id + 1 + len(self._memory)

    def _disk_failed(self, error: Exception) -> None:
        if is_damaged(error):
            self._set_aside(error)
            return
        self._counters.count("failed")
        self.disk.failed(error)

    def _set_aside(self, error: Exception) -> None:
        """Set the damaged file aside. Once no event is in flight, a new one is made, and what is lost is counted."""
        try:
            self._file.set_aside(error)
        except OSError as other:
            self._disk_failed(other)
            return
        self._counters.count("damaged")
        self._waiting = len(self._memory.keys() | self._taken)
        self._publish_counts()


def _in_use(path: Path) -> StoreError:
    return StoreError(
        f"{path} is in use: does another fer-edge run with this device name? Stop it, or give mqtt.device."
    )
