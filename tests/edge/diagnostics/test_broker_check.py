"""The check of the broker, with real brokers."""

import subprocess
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edge.diagnostics.broker_check import check_broker
from edge.mqtt.outbox import Outbox
from edge.mqtt.publisher import MqttPublisher
from edge.settings import MqttSettings
from tests.conftest import Broker, free_port, wait_until
from tests.edge.diagnostics.findings import PYTHON, level_of
from tests.edge.mqtt.scripted_broker import refusing


def test_no_broker() -> None:
    settings = MqttSettings(host="127.0.0.1", port=free_port())
    found = check_broker(PYTHON, settings, needed=True)
    assert level_of(found) == "fail"
    assert "cannot be reached" in found.sentence
    assert level_of(check_broker(PYTHON, settings, needed=False)) == "warn", (
        "a broker is optional without a settings file"
    )


def test_a_missing_password_file(tmp_path: Path) -> None:
    settings = MqttSettings(host="127.0.0.1", username="kiosk", password_file=str(tmp_path / "none"))
    assert "cannot be used" in check_broker(PYTHON, settings, needed=True).sentence


@pytest.mark.slow
def test_a_broker_that_accepts(broker: Broker) -> None:
    found = check_broker(PYTHON, MqttSettings(host="127.0.0.1", port=broker.port), needed=True)
    assert level_of(found) == "ok", found


@pytest.fixture
def guarded_broker(broker: Broker, tmp_path: Path) -> Broker:
    """A broker with one user, kiosk, whose password is in the file ``right``."""
    (tmp_path / "right").write_text("a secret\n")
    (tmp_path / "wrong").write_text("another\n")
    subprocess.run(["mosquitto_passwd", "-b", "-c", tmp_path / "users", "kiosk", "a secret"], check=True)
    broker.stop()
    broker.options = f"{broker.options.replace('anonymous true', 'anonymous false')}\npassword_file {tmp_path}/users"
    broker.start()
    return broker


@pytest.mark.slow
@pytest.mark.parametrize(
    ("user", "password", "level", "words"),
    [
        ("kiosk", "right", "ok", "accepts user kiosk"),
        ("kiosk", "wrong", "fail", "refuses user kiosk"),
        ("", "", "fail", "refuses a device without a user name"),
    ],
)
def test_a_broker_with_passwords(
    guarded_broker: Broker, tmp_path: Path, user: str, password: str, level: str, words: str
) -> None:
    file = str(tmp_path / password) if password else ""
    settings = MqttSettings(host="127.0.0.1", port=guarded_broker.port, username=user, password_file=file)
    found = check_broker(PYTHON, settings, needed=True)
    assert level_of(found) == level, found
    assert words in found.sentence
    assert found.remedy.endswith(file or "/etc/fer-edge/mqtt-password") or level == "ok"


def self_signed(folder: Path, name: str) -> Path:
    """A self-signed certificate for 127.0.0.1, with its key beside it."""
    made = folder / f"{name}.pem"
    options = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
    files = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", folder / f"{name}.key", "-out", made]
    subprocess.run(["openssl", "req", *options, *files], check=True, capture_output=True)
    return made


@pytest.fixture
def tls_broker(broker: Broker, tmp_path: Path) -> Broker:
    """A broker that uses only TLS, with the certificate ``ours``; ``other`` is a certificate that it does not have."""
    self_signed(tmp_path, "other")
    certificate = self_signed(tmp_path, "ours")
    broker.stop()
    broker.options += f"\ncertfile {certificate}\nkeyfile {tmp_path}/ours.key"
    broker.start()
    return broker


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ca", "level", "words"),
    [
        ("ours.pem", "ok", ", TLS"),
        ("other.pem", "fail", "certificate verify failed"),
        ("", "fail", "gives no MQTT answer"),
    ],
)
def test_a_broker_with_tls(tls_broker: Broker, tmp_path: Path, ca: str, level: str, words: str) -> None:
    settings = MqttSettings(host="127.0.0.1", port=tls_broker.port, ca_file=str(tmp_path / ca) if ca else "")
    found = check_broker(PYTHON, settings, needed=True)
    assert level_of(found) == level, found
    assert words in found.sentence


@pytest.mark.slow
def test_tls_with_a_broker_that_has_none(broker: Broker, tmp_path: Path) -> None:
    settings = MqttSettings(host="127.0.0.1", port=broker.port, ca_file=str(self_signed(tmp_path, "ours")))
    found = check_broker(PYTHON, settings, needed=True)
    assert level_of(found) == "fail"
    assert "TLS" in found.sentence


@pytest.mark.parametrize(
    ("protocol", "code", "reason", "remedy"),
    [
        ("5", 0x84, "Unsupported protocol version", 'give mqtt.protocol = "3.1.1"'),
        ("5", 0x97, "Quota exceeded", "raise the broker's quota"),
        ("3.1.1", 2, "Client identifier not valid", "choose another mqtt.device"),
        (
            "3.1.1",
            4,
            "Bad user name or password",
            "check mqtt.username and the password in /etc/fer-edge/mqtt-password",
        ),
    ],
)
def test_the_remedy_fits_the_refusal(protocol: str, code: int, reason: str, remedy: str) -> None:
    with refusing(protocol, code) as port:
        settings = MqttSettings(host="127.0.0.1", port=port, protocol=protocol)
        found = check_broker(PYTHON, settings, needed=True)
    assert found.sentence.endswith(f"refuses a device without a user name: {reason}")
    assert found.remedy.startswith(remedy)


@pytest.mark.slow
def test_a_running_service_stays_connected(broker: Broker, tmp_path: Path) -> None:
    """A client with the same id would make the broker disconnect it."""
    settings = MqttSettings(host="127.0.0.1", port=broker.port, device="kiosk")
    seen: list[bytes] = []
    watcher = paho.Client(CallbackAPIVersion.VERSION2)
    watcher.on_connect = lambda client, *_: client.subscribe("fer-edge/kiosk/availability", qos=1)
    watcher.on_message = lambda _client, _data, message: seen.append(message.payload)
    watcher.connect("127.0.0.1", broker.port)
    watcher.loop_start()
    service = MqttPublisher(settings, Outbox(tmp_path / "outbox.db", 10))
    service.set_camera(is_open=True)
    service.start()
    wait_until(lambda: seen == [b"online"], 10)
    assert check_broker(PYTHON, settings, needed=True).level == "ok"
    service.close(5)
    wait_until(lambda: seen[-1] == b"offline", 10)
    watcher.loop_stop()
    watcher.disconnect()
    assert seen == [b"online", b"offline"]
