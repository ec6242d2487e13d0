import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from edge.app.start_check import check_start
from edge.diagnostics.package_check import install_command
from edge.errors import FerEdgeError
from edge.model.bundle import DEFAULT, open_bundle
from edge.model.registry import ModelRegistry, state_folder
from edge.settings import (
    CameraSettings,
    DetectSettings,
    MetricsSettings,
    ModelSettings,
    MqttSettings,
    Preset,
    Settings,
    StoreSettings,
)
from tests.edge.model.bundles import AFFECTNET, accept, relabelled_bundle

SNEER = Preset(name="sneer", expression="contempt")


def fails(settings: Settings, **environ: str) -> str:
    """Why a start with these settings would end; empty when it would not."""
    try:
        check_start(settings, environ)
    except FerEdgeError as error:
        return str(error)
    return ""


def test_metrics_without_their_package_say_what_installs_it(tmp_path: Path) -> None:
    (tmp_path / "prometheus_client.py").write_text("raise ImportError('no such package')")
    code = "from edge.app.start_check import load_exporter; load_exporter()"
    environ = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False)
    command = install_command("prometheus-client")
    assert f"SettingsError: metrics.enabled: no such package. Install it: {command}" in done.stderr


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(store=StoreSettings(folder=str(tmp_path)))


Certificate = Callable[[str], tuple[str, str]]


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    """Makes a certificate and its key, and returns their files."""

    def make(name: str) -> tuple[str, str]:
        files = str(tmp_path / f"{name}.crt"), str(tmp_path / f"{name}.key")
        words = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=kiosk", "-out", files[0], "-keyout"]
        subprocess.run(["openssl", *words, files[1]], check=True, capture_output=True)
        return files

    return make


def test_usual_settings_can_start(settings: Settings) -> None:
    assert fails(settings) == ""
    assert fails(msgspec.structs.replace(settings, metrics=MetricsSettings(enabled=True))) == ""


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"preset": (SNEER,)}, f"preset 'sneer': the model {DEFAULT} has no expression 'contempt'"),
        ({"model": ModelSettings(bundle="absent")}, "absent"),
        ({"detect": DetectSettings(detector="yunet", model="absent.onnx")}, "detect.model: absent.onnx is missing"),
        ({"camera": CameraSettings(source="picamera2:left")}, "picamera2:1 for the second camera"),
        ({"mqtt": MqttSettings(username="kiosk", password_file="absent")}, "mqtt: absent cannot be used"),
        ({"mqtt": MqttSettings(ca_file="absent")}, "mqtt: absent cannot be used"),
        ({"mqtt": MqttSettings(cert_file="absent", key_file="absent")}, "mqtt: absent cannot be used"),
        ({"mqtt": MqttSettings(cert_file="absent")}, "mqtt.cert_file: absent is missing"),
    ],
)
def test_what_a_start_needs_and_does_not_find_is_named(
    settings: Settings, more: dict[str, msgspec.Struct], reason: str
) -> None:
    assert reason in fails(msgspec.structs.replace(settings, **more))


def test_a_key_with_a_passphrase_is_refused_without_a_question(
    settings: Settings, certificate: Certificate, tmp_path: Path
) -> None:
    cert_file, key_file = certificate("kiosk")
    closed = str(tmp_path / "closed.key")
    words = ["pkey", "-in", key_file, "-aes256", "-passout", "pass:secret", "-out", closed]
    subprocess.run(["openssl", *words], check=True, capture_output=True)
    told = fails(msgspec.structs.replace(settings, mqtt=MqttSettings(cert_file=cert_file, key_file=closed)))
    assert f"mqtt: {closed} cannot be used: it has a passphrase" in told
    old = str(tmp_path / "old.key")
    words = ["rsa", "-traditional", "-in", key_file, "-aes256", "-passout", "pass:secret", "-out", old]
    subprocess.run(["openssl", *words], check=True, capture_output=True)
    assert "it has a passphrase" in fails(
        msgspec.structs.replace(settings, mqtt=MqttSettings(cert_file=cert_file, key_file=old))
    )


def test_a_certificate_is_matched_with_the_key_that_a_start_will_have(
    settings: Settings, certificate: Certificate, tmp_path: Path
) -> None:
    (_, former_key), (renewed, renewed_key) = certificate("former"), certificate("renewed")

    def with_mqtt(mqtt: MqttSettings) -> Settings:
        return msgspec.structs.replace(settings, mqtt=mqtt)

    assert fails(with_mqtt(MqttSettings(cert_file=renewed, key_file=renewed_key))) == ""
    told = fails(with_mqtt(MqttSettings(cert_file=renewed, key_file=former_key)))
    assert f"mqtt: {renewed} cannot be used with the key in {former_key}: " in told
    told = fails(with_mqtt(MqttSettings(ca_file=renewed_key, cert_file=renewed, key_file=renewed_key)))
    assert f"mqtt: {renewed_key} cannot be used: " in told
    assert "Is it a certificate of the authority" in told
    (tmp_path / "credentials").mkdir()
    Path(former_key).rename(tmp_path / "credentials" / "mqtt-key")
    passed_on = {"CREDENTIALS_DIRECTORY": str(tmp_path / "credentials")}
    assert fails(with_mqtt(MqttSettings(cert_file=renewed)), **passed_on) == "", "systemd reads the key anew"


def test_a_model_that_another_one_replaces_needs_no_expression(settings: Settings, tmp_path: Path) -> None:
    """A start then goes on without the presets that the other one lacks."""
    wanted = msgspec.structs.replace(settings, preset=(SNEER,))
    registry = ModelRegistry(state_folder(settings.store, {}))
    name = registry.install(relabelled_bundle(tmp_path, "other", AFFECTNET), accept)
    assert fails(wanted) == ""
    assert "'smirk'" in fails(msgspec.structs.replace(settings, preset=(Preset(name="smirk", expression="happy"),)))
    network = next(registry.folder_of(name).glob("*.tflite"))
    network.write_bytes(b"broken")
    with pytest.raises(FerEdgeError):
        open_bundle(registry.folder_of(name))
    assert fails(wanted) == ""
    registry.refuse_choice("broken")
    assert fails(wanted) == ""
