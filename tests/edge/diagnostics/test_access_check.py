"""The check of what the service's user may do with files, with real files and users."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.diagnostics.access_check import check_files
from edge.diagnostics.system_checks import check_disk, current_user
from edge.settings import CameraSettings, DetectSettings, ModelSettings, MqttSettings, Settings
from tests.edge.diagnostics.findings import level_of

NOBODY = 65534

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user can reach, with a settings file."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "config.toml").touch(0o644)
        yield folder


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        (Settings(detect=DetectSettings(model="/home/pi/yunet.onnx")), "detect.model: /home/pi/yunet.onnx"),
        (Settings(mqtt=MqttSettings(ca_file="/root/ca.pem")), "mqtt.ca_file: /root/ca.pem"),
        (Settings(camera=CameraSettings(source="/home/pi/visit.mp4")), "camera.source: /home/pi/visit.mp4"),
        (Settings(model=ModelSettings(bundle="/tmp/my-bundle")), "model.bundle: /tmp/my-bundle"),
    ],
)
def test_what_the_service_does_not_see_is_named(place: Path, settings: Settings, key: str) -> None:
    found = check_files(settings, place / "config.toml", current_user())
    assert level_of(found) == "fail"
    assert found.sentence == f"{key} is hidden from the service, which sees no home and no temporary folder"


def test_a_link_into_a_home_is_hidden_too(place: Path) -> None:
    (place / "ca.pem").symlink_to("/home/pi/ca.pem")
    settings = Settings(mqtt=MqttSettings(ca_file=str(place / "ca.pem")))
    assert "is hidden" in check_files(settings, place / "config.toml", current_user(), ("/home/",)).sentence


@pytest.mark.parametrize("source", ["demo", "picamera2:1", "/dev/video0", "rtsp://10.0.0.9/home/live"])
def test_what_is_no_file_is_not_looked_for(place: Path, source: str) -> None:
    settings = Settings(camera=CameraSettings(source=source), model=ModelSettings(bundle="student-small"))
    assert level_of(check_files(settings, place / "config.toml", current_user())) == "ok"


@needs_root
def test_settings_that_a_backup_has_closed_to_the_service_are_a_failure(place: Path) -> None:
    config = place / "config.toml"
    assert level_of(check_files(Settings(), config, "nobody")) == "ok"
    config.chmod(0o640)
    found = check_files(Settings(), config, "nobody")
    assert (level_of(found), found.sentence) == ("fail", f"nobody may not read {config}")


@needs_root
def test_a_file_that_only_root_may_read_is_a_failure(place: Path) -> None:
    bundle = place / "bundle"
    bundle.mkdir(0o755)
    for file in (place / "ca.pem", bundle / "model.tflite"):
        file.touch(0o644)
        settings = Settings(mqtt=MqttSettings(ca_file=str(place / "ca.pem")), model=ModelSettings(bundle=str(bundle)))
        assert level_of(check_files(settings, place / "config.toml", "nobody", ())) == "ok"
        file.chmod(0o600)
        found = check_files(settings, place / "config.toml", "nobody", ())
        assert level_of(found) == "fail"
        assert f"nobody may not read {file}" in found.sentence
        file.chmod(0o644)


@needs_root
def test_a_secret_beside_the_settings_is_handed_over_by_systemd(place: Path) -> None:
    (place / "mqtt-password").touch(0o600)
    settings = Settings(mqtt=MqttSettings(password_file=str(place / "mqtt-password")))
    assert level_of(check_files(settings, place / "config.toml", "nobody")) == "ok"


@needs_root
@pytest.mark.parametrize("name", ["fer-edge-kiosk.outbox.db", "fer-edge-kiosk.state.json"])
def test_state_that_root_has_restored_is_a_failure(place: Path, name: str) -> None:
    os.chown(place, NOBODY, NOBODY)
    (place / name).touch(0o600)
    found = check_disk(place, "nobody")
    assert level_of(found) == "fail"
    assert found.sentence == f"nobody may not write {place / name}"
    os.chown(place / name, NOBODY, NOBODY)
    assert "MB free" in check_disk(place, "nobody").sentence


@needs_root
def test_a_service_finds_out_itself_what_lies_in_a_folder_closed_to_it(place: Path) -> None:
    closed = place / "my secrets"
    closed.mkdir(0o700)
    settings = Settings(mqtt=MqttSettings(password_file=str(closed / "password")))
    os.seteuid(NOBODY)
    try:
        found = check_files(settings, place / "config.toml", "nobody", ())
    finally:
        os.seteuid(0)
    assert (level_of(found), found.sentence) == (
        "fail",
        f"mqtt.password_file: nobody may not read {closed / 'password'}",
    )
    assert found.remedy.endswith(f"sudo chmod g+r '{closed / 'password'}'"), "a shell takes the path for one word"


@needs_root
def test_a_user_without_an_account_is_known_by_its_number() -> None:
    """As in a container that is started with ``--user``."""
    script = (
        "import os; from pathlib import Path; from edge.diagnostics.system_checks import *\n"
        "os.setgroups([]); os.setresgid(*3 * [54321]); os.setresuid(*3 * [54321])\n"
        "user = current_user()\n"
        "print(user, groups_of(user), check_disk(Path('/proc'), user).level, check_disk(Path('/tmp'), user).level)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("54321 set() fail ok\n", "")
