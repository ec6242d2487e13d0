"""What an outbox's file must contain, so that events that a worn card has lost are noticed and counted.

The inventory is kept twice: in the SQLite file, and in a small file beside it that is written after each commit. SQLite
silently returns to an earlier state when its write-ahead log is damaged; the other copy then tells what is missing.
"""

import logging
import os
import secrets
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, TypeAlias

import msgspec

_log = logging.getLogger(__name__)

_SLOT: Final = 4096
_CHECKSUM: Final = 8  # hexadecimal digits
_MOST_RANGES: Final = 64
"""A thousand bytes in each commit at worst. Events that wait one after another are one range."""

IdRange: TypeAlias = tuple[int, int]
"""The first and the last of consecutive ids."""


class IdSet:
    """A set of ids that grows at its end: an immutable sequence of ranges."""

    def __init__(self, ranges: Iterable[IdRange] = ()) -> None:
        self.ranges = list(ranges)

    @classmethod
    def of(cls, ids: Iterable[int]) -> "IdSet":
        """A set of ascending ids."""
        return cls().changed((), ids)

    def changed(self, remove: Iterable[int], add: Iterable[int]) -> "IdSet":
        """Without some ids, and with others, which are ascending and larger than all."""
        ranges = self.ranges.copy()
        for number in remove:
            place = _place(ranges, number)
            if place is not None:
                first, last = ranges[place]
                ranges[place : place + 1] = [
                    part for part in ((first, number - 1), (number + 1, last)) if part[0] <= part[1]
                ]
        for number in add:
            if ranges and ranges[-1][1] == number - 1:
                ranges[-1] = (ranges[-1][0], number)
            else:
                ranges.append((number, number))
        return IdSet(ranges)

    def __contains__(self, number: int) -> bool:
        return _place(self.ranges, number) is not None

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in self.ranges)

    def __iter__(self) -> Iterator[int]:
        return (number for first, last in self.ranges for number in range(first, last + 1))


class Inventory(msgspec.Struct, frozen=True):
    """What the file contains after a number of ``commits``.

    ``outbox`` is a random name that distinguishes this outbox from others. ``newest_id`` is the largest id ever given.
    ``waiting`` are the ids of the events; when those are scattered over too many ranges, it has only the newest ranges,
    and is not ``complete``. ``counters`` outlive restarts.
    """

    outbox: str
    commits: int
    newest_id: int
    waiting: list[IdRange]
    complete: bool
    counters: dict[str, int]

    def next(self, waiting: IdSet, newest_id: int, counters: Mapping[str, int]) -> "Inventory":
        """The inventory after one more commit."""
        ranges = waiting.ranges[-_MOST_RANGES:]
        complete = len(ranges) == len(waiting.ranges)
        return Inventory(self.outbox, self.commits + 1, newest_id, ranges, complete, dict(counters))


def first_inventory() -> Inventory:
    """Of an outbox that has never held anything."""
    return Inventory(secrets.token_hex(4), 0, 0, [], True, {})


def encode(inventory: Inventory) -> bytes:
    """As bytes with a checksum."""
    content = msgspec.json.encode(inventory)
    return b"%08x%s" % (zlib.crc32(content), content)


def decode(stored: bytes) -> Inventory | None:
    """The inventory, or None when the bytes are damaged."""
    try:
        if int(stored[:_CHECKSUM], 16) == zlib.crc32(stored[_CHECKSUM:]):
            return msgspec.json.decode(stored[_CHECKSUM:], type=Inventory)
    except ValueError:  # of msgspec and of int()
        pass
    return None


class InventoryFile:
    """The copy beside the SQLite file. Two places in it are written in turn, so that one is always whole.

    It is not synced with each commit, which would double the waiting for the card: the kernel writes it within about
    half a minute. A killed process loses nothing by that, a power cut the newest state.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None
        self._error = ""

    def read(self) -> Inventory | None:
        """The newest inventory; None when there is none, or none that is intact."""
        try:
            content = self.path.read_bytes()[: 2 * _SLOT]
        except OSError:
            return None
        slots = (decode(content[at : at + _SLOT].rstrip(b"\0")) for at in (0, _SLOT))
        return max((slot for slot in slots if slot), key=lambda slot: slot.commits, default=None)

    def write(self, inventory: Inventory) -> None:
        """Write the inventory of a commit that has just succeeded; a failure is only logged, once."""
        content = encode(inventory).ljust(_SLOT, b"\0")
        try:
            if self._file is None:
                self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            os.pwrite(self._file, content, inventory.commits % 2 * _SLOT)
            self._error = ""
        except OSError as error:
            if str(error) != self._error:
                _log.warning("%s: events that are lost may not be counted: %s", self.path, error)
            self._error = str(error)

    def close(self) -> None:
        """Sync and close the file; never raises."""
        if self._file is not None:
            try:
                os.fdatasync(self._file)
            except OSError as error:
                _log.warning("%s: %s", self.path, error)
            os.close(self._file)
        self._file = None


def _place(ranges: list[IdRange], number: int) -> int | None:
    """The index of the range that contains an id."""
    place = bisect_right(ranges, number, key=lambda one: one[0]) - 1
    return place if place >= 0 and number <= ranges[place][1] else None
