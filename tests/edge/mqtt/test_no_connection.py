"""What the log says when a broker refuses the connection: what to do about this very refusal."""

import logging

import pytest

from edge.mqtt.backoff import Backoff
from edge.mqtt.connection import BrokerConnection
from edge.settings import MqttSettings
from tests.conftest import wait_until
from tests.edge.mqtt.scripted_broker import Heard, listening_to, refusing


def logged(protocol: str, code: int, caplog: pytest.LogCaptureFixture) -> str:
    with caplog.at_level(logging.WARNING), refusing(protocol, code) as port:
        settings = MqttSettings(host="127.0.0.1", port=port, protocol=protocol)
        device = BrokerConnection(
            settings, "kiosk", will="w", subscriptions=listening_to(), backoff=Backoff(0.05, 0.05), listener=Heard()
        )
        device.start()
        wait_until(lambda: caplog.messages, 5)
        device.stop()
        device.join(5)
    return caplog.messages[0]


@pytest.mark.parametrize(
    ("protocol", "code", "reason", "hint"),
    [
        ("3.1.1", 2, "Client identifier not valid", "choose another mqtt.device"),
        ("3.1.1", 3, "Server unavailable", "wait"),
        ("3.1.1", 4, "Bad user name or password", "check mqtt.username and mqtt.password_file"),
        ("3.1.1", 5, "Not authorized", "mqtt.username and mqtt.password_file"),
        ("5", 0x01, "Unsupported protocol version", 'give mqtt.protocol = "3.1.1"'),  # a broker of MQTT 3.1.1
        ("5", 0x82, "Protocol error", 'give mqtt.protocol = "3.1.1"'),
        ("5", 0x83, "Implementation specific error", "the broker's log"),
        ("5", 0x84, "Unsupported protocol version", 'give mqtt.protocol = "3.1.1"'),
        ("5", 0x85, "Client identifier not valid", "choose another mqtt.device"),
        ("5", 0x86, "Bad user name or password", "check mqtt.username and mqtt.password_file"),
        ("5", 0x87, "Not authorized", "rights at the broker, mqtt.username and mqtt.password_file"),
        ("5", 0x89, "Server busy", "wait"),
        ("5", 0x8A, "Banned", "lift the ban"),
        ("5", 0x90, "Topic name invalid", "mqtt.prefix"),
        ("5", 0x97, "Quota exceeded", "raise the broker's quota"),
        ("5", 0x9A, "Retain not supported", "retained messages"),
        ("5", 0x9D, "Server moved", "mqtt.host or mqtt.url"),
    ],
)
def test_the_hint_fits_the_code(
    protocol: str, code: int, reason: str, hint: str, caplog: pytest.LogCaptureFixture
) -> None:
    sentence = logged(protocol, code, caplog)
    assert f"refuses the connection: {reason}; " in sentence
    assert hint in sentence
    assert ("password" in sentence) == (code in {4, 5, 0x86, 0x87})


def test_a_broker_without_mqtt_3_1_1_is_no_broker_that_wants_tls(caplog: pytest.LogCaptureFixture) -> None:
    sentence = logged("3.1.1", 1, caplog)
    assert 'mqtt.protocol = "5"' in sentence
    assert "TLS" not in sentence
