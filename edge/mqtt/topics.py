"""The names by which a device is known: its base topic, its client id, and its device id."""

import socket
from pathlib import Path
from typing import Final

from edge.settings import MqttSettings
from edge.system import hardware

BOARD: Final = "{board}"


def base_topic(settings: MqttSettings) -> str:
    """The topic under which all topics of this device are: ``PREFIX/DEVICE``."""
    return f"{settings.prefix}/{device_id(settings)}"


def client_id(settings: MqttSettings) -> str:
    """The MQTT client id of the service, and the stem of its files in the state folder."""
    return base_topic(settings).replace("/", "-")


def device_id(settings: MqttSettings, serial: Path = hardware.SERIAL) -> str:
    """The configured device name; else the board's name, which also stands for BOARD in a configured one.

    The board's name is its serial number (cloned SD cards share host names), or else the host's name.
    """
    return (settings.device or BOARD).replace(BOARD, hardware.text_of(serial) or socket.gethostname())
