"""The folder for what must outlive a restart, and the small state file in it."""

import logging
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


def device_config(given: Path | None, installed: Path = INSTALLED_CONFIG) -> Path | None:
    """The settings file of a command about this device: the given one, else the service's if it exists, else None."""
    return given or (installed if installed.is_file() else None)


def service_environ(config: Path | None, environ: Mapping[str, str]) -> Mapping[str, str]:
    """The environment in which a command uses the service's state folder, if it uses the service's settings file."""
    if config is None or config.resolve() != INSTALLED_CONFIG:
        return environ
    return {"STATE_DIRECTORY": str(SERVICE_STATE), **environ}


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


class StateStore:
    """A device's state in a small file, which after a power cut is either the old or the new one."""

    def __init__(self, folder: Path, name: str) -> None:
        self._file = folder / f"{name}.{_FILE}"
        self._failed = False
        self.state = self._read()

    def update(self, **changes: bool | str) -> bool:
        """Change fields of the state, and write the file if needed. Returns whether they are on the disk."""
        changed = msgspec.structs.replace(self.state, **changes)
        if changed == self.state and not self._failed:
            return True
        self.state = changed
        self._failed = True
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_durably(self._file, msgspec.json.encode(changed))
        except OSError as error:
            _log.error("%s cannot be written: %s", self._file, error.strerror)
            return False
        self._failed = False
        return True

    def _read(self) -> DeviceState:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=DeviceState)
        except FileNotFoundError:
            return DeviceState()
        except (OSError, msgspec.DecodeError) as error:
            _log.error("%s cannot be read, so the state starts empty: %s", self._file, error)
            return DeviceState()
