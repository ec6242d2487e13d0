"""Where a device keeps what must outlive a restart, and the little that it keeps beside the outbox."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from edge.settings import MqttSettings, StoreSettings
from edge.system.atomic_file import write_durably

_log = logging.getLogger(__name__)

INSTALLED_CONFIG: Final = Path("/etc/fer-edge/config.toml")
SERVICE_STATE: Final = Path("/var/lib/fer-edge")
"""Where the service's settings and state are, for commands that a technician runs beside it."""

_FILE: Final = "state.json"


def device_config(given: Path | None, installed: Path = INSTALLED_CONFIG) -> Path | None:
    """The settings file of a command about this device: the one that was given, or else the service's, if there."""
    return given or (installed if installed.is_file() else None)


def service_environ(config: Path | None, environ: Mapping[str, str]) -> Mapping[str, str]:
    """The environment in which a command keeps and finds what the service does, when it is given its settings file."""
    if config is None or config.resolve() != INSTALLED_CONFIG:
        return environ
    return {"STATE_DIRECTORY": str(SERVICE_STATE), **environ}


def with_secret_files(settings: MqttSettings, config: Path | None) -> MqttSettings:
    """The settings with the password and key files that lie beside the settings file, unless they name others."""
    for key, name in (("password_file", "mqtt-password"), ("key_file", "mqtt-key")):
        beside = config.parent / name if config else None
        if beside and beside.exists() and not getattr(settings, key):
            settings = msgspec.structs.replace(settings, **{key: str(beside)})
    return settings


class DeviceState(msgspec.Struct, frozen=True):
    """Whether the camera is paused, and the topic on which Home Assistant was told of this device."""

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
    """Reads and writes a small file so that after a power cut it is either the old or the new one."""

    def __init__(self, folder: Path, name: str) -> None:
        self._file = folder / f"{name}.{_FILE}"
        self._failed = False
        self.kept = self._read()

    def keep(self, **changes: bool | str) -> bool:
        """Change what is kept; what is on the disk already is not written again. Returns whether it is there."""
        changed = msgspec.structs.replace(self.kept, **changes)
        if changed == self.kept and not self._failed:
            return True
        self.kept = changed
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
            _log.error("%s cannot be read, so nothing is remembered: %s", self._file, error)
            return DeviceState()
