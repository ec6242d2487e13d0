"""`[mqtt] url` in place of host, port and TLS."""

import sys
from pathlib import Path

import pytest

from edge.diagnostics.broker_check import check_broker
from edge.errors import SettingsError
from edge.settings import load_settings
from tests.conftest import free_port


def load(tmp_path: Path, *lines: str):  # noqa: ANN201
    file = tmp_path / "config.toml"
    file.write_text("\n".join(("[mqtt]", *lines)))
    return load_settings(file).mqtt


@pytest.mark.parametrize(
    ("url", "host", "port", "tls", "path"),
    [
        ("mqtt://broker.local", "broker.local", 1883, False, None),
        ("mqtt://broker.local:1884/", "broker.local", 1884, False, None),
        ("MQTTS://10.0.0.7", "10.0.0.7", 8883, True, None),
        ("mqtts://[fd00::7]:8884", "fd00::7", 8884, True, None),
        ("ws://broker.local:9001", "broker.local", 9001, False, "/mqtt"),
        ("ws://broker.local/", "broker.local", 80, False, "/"),
        ("wss://broker.local/live/mqtt?key=1", "broker.local", 443, True, "/live/mqtt?key=1"),
    ],
)
def test_an_address_gives_host_port_and_tls(
    tmp_path: Path, url: str, host: str, port: int, tls: bool, path: str | None
) -> None:
    mqtt = load(tmp_path, f'url = "{url}"')
    assert (mqtt.host, mqtt.port, mqtt.encrypted, mqtt.websocket_path) == (host, port, tls, path)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('url = "tcp://SECRET.lan"', "tcp:// of a kind that is not known; known are mqtt://, mqtts://, ws://, wss://"),
        ('url = "SECRET.lan"', "an address of a kind that is not known"),
        ('url = "mqtt://kiosk:SECRET@broker"', "give the user as mqtt.username"),
        ('url = "mqtt://kiosk:SE/CRET@broker"', "give the user as mqtt.username"),
        ('url = "mqtt://kiosk:SE[CRET@broker"', "give the user as mqtt.username"),
        ('url = "mqtt://"', "cannot be understood"),
        ('url = "mqtt://broker:SECRET"', "cannot be understood"),
        ('url = "mqtt://broker:0"', "cannot be understood"),
        ('url = "ws://broker/#SECRET"', "cannot be understood"),
        ('url = "mqtt://broker/SECRET"', "nothing may follow"),
        ('url = "mqtts://broker?key=SECRET"', "nothing may follow"),
        ('url = "mqtt://broker"\nhost = "SECRET"', "in place of mqtt.host"),
        ('url = "mqtt://broker"\nport = 1883', "in place of mqtt.port"),
        ('url = "mqtts://broker"\ntls = true', "in place of mqtt.tls"),
        ('url = "ws://broker"\nca_file = "ca.pem"', "give mqtts, wss"),
    ],
)
def test_what_is_not_understood_is_said_without_a_secret(tmp_path: Path, line: str, sentence: str) -> None:
    with pytest.raises(SettingsError) as raised:
        load(tmp_path, line)
    assert sentence in str(raised.value)
    assert "config.toml: mqtt.url" in str(raised.value)
    assert "SECRET" not in str(raised.value)


def test_without_an_address_host_and_port_count(tmp_path: Path) -> None:
    mqtt = load(tmp_path, 'host = "broker.local"', "port = 8883", "tls = true")
    assert (mqtt.host, mqtt.port, mqtt.encrypted, mqtt.websocket_path) == ("broker.local", 8883, True, None)


def test_doctor_shows_nothing_of_an_address_but_host_and_port(tmp_path: Path) -> None:
    port = free_port()
    mqtt = load(tmp_path, f'url = "ws://127.0.0.1:{port}/SECRET?key=SECRET"')
    found = check_broker((sys.executable,), mqtt, needed=True)
    assert f"127.0.0.1:{port} cannot be reached" in found.sentence
    assert "SECRET" not in f"{found.sentence} {found.remedy}"
