"""The names by which a device is known: its base topic, its client id, and its device id."""

import hashlib
import re
import socket
from pathlib import Path
from typing import Final

import msgspec

from edge.mqtt.device_record import DeviceRecordStore
from edge.settings import MqttSettings, Settings
from edge.system import hardware
from edge.system.owner_rights import require_own_folder

BOARD: Final = "{board}"


def base_topic(settings: MqttSettings) -> str:
    """The topic under which all topics of this device are: ``PREFIX/DEVICE``."""
    return f"{settings.prefix}/{device_id(settings)}"


def client_id(settings: MqttSettings) -> str:
    """The MQTT client id of the service: another one for each base topic, or brokers would end each other's session."""
    base = base_topic(settings)
    return _unambiguous(base.replace("/", "-"), base)


def file_stem(settings: MqttSettings) -> str:
    """The stem of the device's files in the state folder."""
    return base_topic(settings).replace("/", "-")


def identity(base: str) -> str:
    """A name of only letters, digits, - and _ that no device with another base topic has; usually ``PREFIX-DEVICE``."""
    return _unambiguous(re.sub(r"[^a-zA-Z0-9_-]", "-", base), base)


def device_id(settings: MqttSettings, serial: Path = hardware.SERIAL) -> str:
    """The configured device name; else the board's name, which also stands for BOARD in a configured one.

    The board's name is its serial number (cloned SD cards share host names), or else the host's name.
    """
    return (settings.device or BOARD).replace(BOARD, hardware.text_of(serial) or socket.gethostname())


def with_device_name(
    settings: Settings, store: DeviceRecordStore, *, keep: bool = False, serial: Path = hardware.SERIAL
) -> Settings:
    """The settings with the board's name that ``store`` keeps, where a board without a serial number needs one.

    With ``keep`` the name is made and kept when there is none: a container has another host name at each start. Raises
    UsageError then for root in a folder of another user.
    """
    configured = settings.mqtt.device or BOARD
    if BOARD not in configured or hardware.text_of(serial):
        return settings
    name = store.record.name or socket.gethostname()
    if keep:
        require_own_folder(store.folder)
        store.update(msgspec.structs.replace(store.record, name=name))
    return msgspec.structs.replace(
        settings, mqtt=msgspec.structs.replace(settings.mqtt, device=configured.replace(BOARD, name))
    )


def _unambiguous(name: str, base: str) -> str:
    """The name made of a base topic, with a hash where another base topic would give it too.

    Without one, the first - after the usual prefix, or else the first one, is the slash.
    """
    usual = MqttSettings().prefix
    prefix, _, device = (usual, "-", name[len(usual) + 1 :]) if name.startswith(f"{usual}-") else name.partition("-")
    if f"{prefix}/{device}" == base:
        return name
    return f"{name}-{hashlib.sha256(base.encode()).hexdigest()[:8]}"
