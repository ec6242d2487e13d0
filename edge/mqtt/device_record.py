"""What one device of the state folder was called, and what it has left at the broker: ``device.json`` there.

A name that has changed, or an entity that is offered no more, can only be removed by somebody who remembers it.
"""

import glob
import logging
import threading
from pathlib import Path
from typing import Final

import msgspec

from edge.mqtt.outbox_file import is_used
from edge.system.atomic_file import write_durably
from edge.system.owner_rights import rights_of_owner

_log = logging.getLogger(__name__)

_FILE: Final = "device.json"
_LARGEST: Final = 1_000_000  # bytes; a whole file is far smaller


class DeviceRecord(msgspec.Struct, frozen=True):
    """``name`` is the one that a computer without a serial number has been given.

    All else is about the last description for Home Assistant: its ``topic``, the ``base`` topic and the client ``stem``
    of the device, the serial number of its ``board``, and the platform of each of its ``components``.
    """

    name: str = ""
    topic: str = ""
    base: str = ""
    stem: str = ""
    board: str = ""
    components: dict[str, str] = {}


class DeviceRecordStore:
    """Keeps the record in a folder. A file that is damaged or missing is an empty record; the next update makes it.

    For any thread.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / _FILE
        self.record = self._read()
        self._lock = threading.Lock()
        self._refused = False

    def update(self, changed: DeviceRecord) -> None:
        """Take another record, and write the file if needed; only log an error when that fails."""
        with self._lock:
            if changed == self.record:
                return
            self.record = changed
            self._write()

    def write_again(self) -> None:
        """Write what the disk did not take before. Does not wait for another thread that is doing so."""
        if not self._refused:
            return
        with self._lock:
            if self._refused:
                self._write()

    def _write(self) -> None:
        self._refused = False
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_durably(self._file, msgspec.json.encode(self.record))
        except OSError as error:
            self._refused = True
            _log.error("%s cannot be written: %s", self._file, error.strerror)

    def _read(self) -> DeviceRecord:
        try:
            with rights_of_owner(self._file.parent), self._file.open("rb") as opened:
                return msgspec.json.decode(opened.read(_LARGEST), type=DeviceRecord)
        except FileNotFoundError:
            return DeviceRecord()
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            _log.warning("%s cannot be read, and is made anew: %s", self._file, error)
            return DeviceRecord()


def former_topics(record: DeviceRecord, now: DeviceRecord, folder: Path) -> list[str]:
    """The retained topics to remove, because the device in this folder now has another name, or describes nothing.

    What a card was cloned from keeps its description: it has another board. So does another device that runs now, or
    whose folder a device uses that describes nothing.
    """
    renamed = record.base != now.base
    if not record.topic or record.topic == now.topic or record.board != now.board or (renamed and not now.topic):
        return []
    if record.stem != now.stem and any(is_used(file) for file in folder.glob(f"{glob.escape(record.stem)}*.outbox.db")):
        return []
    return [record.topic, *([f"{record.base}/homeassistant/fault"] if renamed or not now.topic else [])]
