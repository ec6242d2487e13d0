import socket
from pathlib import Path

from edge.mqtt.topics import client_id, device_id
from edge.settings import MqttSettings


def test_the_device_is_named_by_the_settings_else_by_its_serial_else_by_its_host(tmp_path: Path) -> None:
    serial = tmp_path / "serial-number"
    assert device_id(MqttSettings(), serial) == socket.gethostname()
    serial.write_bytes(b"10000000abcdef01\0")  # as a Raspberry Pi's kernel gives it
    assert device_id(MqttSettings(), serial) == "10000000abcdef01"
    assert device_id(MqttSettings(device="kiosk"), serial) == "kiosk"
    assert device_id(MqttSettings(device="{board}-door"), serial) == "10000000abcdef01-door"
    assert client_id(MqttSettings(prefix="house/hall", device="kiosk")) == "house-hall-kiosk"
