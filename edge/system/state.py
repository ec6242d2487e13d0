"""The folder for what must outlive a restart, and the small state file in it."""

import hashlib
import logging
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from edge.settings import StoreSettings
from edge.system.atomic_file import write_durably

_log = logging.getLogger(__name__)

INSTALLED_CONFIG: Final = Path("/etc/fer-edge/config.toml")
SERVICE_STATE: Final = Path("/var/lib/fer-edge")
"""The state folder of the service, for commands that a technician runs beside it."""

_FILE: Final = "state.json"
_LARGEST: Final = 1_000_000  # bytes; a whole file is far smaller


def device_config(given: Path | None, installed: Path = INSTALLED_CONFIG) -> Path | None:
    """The settings file of a command about this device: the given one, else the service's if it exists, else None."""
    return given or (installed if installed.is_file() else None)


class DeviceState(msgspec.Struct, frozen=True):
    """Whether the camera is paused, and the topic of the retained discovery message for Home Assistant."""

    paused: bool = False
    discovery: str = ""


def store_folder(store: StoreSettings, environ: Mapping[str, str]) -> Path:
    """The folder of the settings; else the one that systemd gives a service; else the user's (XDG base directories)."""
    if store.folder:
        return Path(store.folder)
    if service := environ.get("STATE_DIRECTORY"):
        return Path(service.partition(":")[0])
    if state := environ.get("XDG_STATE_HOME"):
        return Path(state) / "fer-edge"
    try:
        return Path.home() / ".local" / "state" / "fer-edge"
    except RuntimeError:  # an account without a home
        return SERVICE_STATE


class _StoredState(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of the state file. The version before wrote it without a ``checksum``."""

    paused: bool
    discovery: str = ""
    checksum: str | None = None


class StateStore:
    """A device's state in a small file, which after a power cut is either the old or the new one.

    A file that is damaged or lost may have said that the camera is paused. So the state is then paused, ``damage`` says
    why, and the file stays as it is until ``paused`` is decided again. A copy of the file keeps the discovery topic,
    and shows that there was a file.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._file = folder / f"{name}.{_FILE}"
        self._copy = folder / f"{name}+copy.{_FILE}"  # no device can have this name; *.state.json removes it too
        self.damage = ""
        """Why the stored state cannot be trusted, and what to do; empty when it can."""
        self.state = self._load()
        self._failed = bool(self.damage)
        self._lock = threading.Lock()

    def update(self, **changes: bool | str) -> bool:
        """Change fields of the state, and write the file if needed. Returns whether they are on the disk.

        For any thread.
        """
        with self._lock:
            return self._update(changes)

    def _update(self, changes: Mapping[str, bool | str]) -> bool:
        changed = msgspec.structs.replace(self.state, **changes)
        if changed == self.state and not self._failed:
            return True
        copying = changed.discovery != self.state.discovery or not self._copy.exists() or self._failed
        self.state = changed
        if self.damage and "paused" not in changes:
            return False  # a file that is whole would let the next start forget the damage
        self._failed = True
        content = _encode(changed)
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_durably(self._file, content, 0o600)
            if copying:
                write_durably(self._copy, content, 0o600)
        except OSError as error:
            _log.error("%s cannot be written: %s", self._file, error.strerror)
            return False
        self._failed = False
        self.damage = ""
        return True

    def _load(self) -> DeviceState:
        try:
            if state := _read(self._file):
                self._renew_copy(state)
                return state
            if not os.path.lexists(self._copy):
                return DeviceState()
            reason = f"is missing, but {self._copy.name} is there"
        except (OSError, ValueError, RecursionError) as error:
            reason = f"is damaged or cannot be read ({error})"
        self.damage = (
            f"{self._file} {reason}: it may have said that the camera is paused, so the camera stays closed. "
            'To open it, publish {"on":false} on .../command/pause; or stop the service, delete '
            f"{self._file.parent}/*.{_FILE}, and start it. If this comes again, replace the SD card"
        )
        _log.error("%s", self.damage)
        try:
            copied = _read(self._copy)
        except (OSError, ValueError, RecursionError):
            copied = None
        return DeviceState(paused=True, discovery=copied.discovery if copied else "")

    def _renew_copy(self, state: DeviceState) -> None:
        """Make a copy that is lost or damaged again: without one, the loss of the file too would open the camera."""
        try:
            if _read(self._copy):
                return
        except (OSError, ValueError, RecursionError):  # it is damaged
            pass
        try:
            write_durably(self._copy, _encode(state), 0o600)
        except OSError as error:
            _log.error("%s cannot be written: %s", self._copy, error.strerror)


def _encode(state: DeviceState) -> bytes:
    """The content of the state file: the state and its checksum."""
    return msgspec.json.encode({**msgspec.structs.asdict(state), "checksum": _checksum(state)})


def _checksum(state: DeviceState) -> str:
    return hashlib.sha256(msgspec.json.encode(state)).hexdigest()


def _read(file: Path) -> DeviceState | None:
    """The state in a file; None when there is none. Raises OSError, and ValueError when the file is damaged."""
    try:
        with file.open("rb") as opened:
            content = opened.read(_LARGEST + 1)
    except FileNotFoundError:
        if file.is_symlink():
            raise
        return None
    if len(content) > _LARGEST:
        raise ValueError(f"more than {_LARGEST} bytes")
    stored = msgspec.json.decode(content, type=_StoredState)
    state = DeviceState(stored.paused, stored.discovery)
    if stored.checksum is not None and stored.checksum != _checksum(state):
        raise ValueError("its checksum differs")
    return state
