"""Checks of system, board, settings and groups; what a Raspberry Pi reports is in files given as arguments."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge.diagnostics.finding import Finding
from edge.diagnostics.system_checks import (
    check_clock,
    check_config,
    check_disk,
    check_groups,
    check_python,
    check_secrets,
    check_system,
    check_throttling,
    current_user,
    groups_of,
    judge_disk,
    service_user,
)
from edge.settings import CameraSettings, MqttSettings, Settings
from edge.system.secret_files import SECRET_FILES, with_secret_files
from edge.system.state import SERVICE_STATE
from tests.edge.diagnostics.findings import level_of

NEEDED = {"mqtt-password": "mqtt.username", "mqtt-key": "mqtt.cert_file", "camera-password": "camera.username"}

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def test_the_system_and_the_board_are_named(tmp_path: Path) -> None:
    (tmp_path / "os-release").write_text('NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n')
    (tmp_path / "model").write_text("Raspberry Pi 4 Model B Rev 1.4\0")
    found = check_system(tmp_path / "os-release", tmp_path / "model", "aarch64")
    assert found == Finding("system", "ok", "Debian GNU/Linux 12 (bookworm), aarch64, Raspberry Pi 4 Model B Rev 1.4")
    absent = check_system(tmp_path / "none", tmp_path / "none", "armv7l")
    assert level_of(absent) == "warn"
    assert "not a Raspberry Pi" in absent.sentence


@pytest.mark.parametrize(
    ("version", "environment", "level"),
    [("3.11.2", "/opt/fer-edge", "ok"), ("3.13.5", "/opt/fer-edge", "ok"), ("3.11.2", None, "warn")],
)
def test_python(version: str, environment: str | None, level: str) -> None:
    assert level_of(check_python(version, environment)) == level


def test_an_untested_python_is_a_warning() -> None:
    assert level_of(check_python("3.14.0", "/opt/fer-edge")) == "warn"


def test_clock() -> None:
    assert level_of(check_clock(synced=True)) == "ok"
    assert level_of(check_clock(synced=False)) == "warn"


@pytest.mark.parametrize(
    ("flags", "level", "words"),
    [
        ("0x0", "ok", "full power and full speed since boot"),
        ("0x50000", "warn", "since boot: under-voltage, throttled"),
        ("0x50005", "fail", "now: under-voltage, throttled"),
    ],
)
def test_throttling_from_vcgencmd(flags: str, level: str, words: str) -> None:
    found = check_throttling(("echo", f"throttled={flags}"), [])
    assert level_of(found) == level
    assert words in found.sentence


@pytest.mark.parametrize("vcgencmd", ["no-such-vcgencmd", "false"])
@pytest.mark.parametrize(
    ("kernel", "level", "sentence"),
    [
        (None, "ok", "this board does not report it"),
        ([], "ok", "no limit now; only {} knows what was since boot"),
        (["under-voltage"], "fail", "now: under-voltage"),
    ],
)
def test_throttling_from_the_kernel_is_only_that_of_now(
    vcgencmd: str, kernel: list[str] | None, level: str, sentence: str
) -> None:
    found = check_throttling((vcgencmd,), kernel)
    assert (level_of(found), found.sentence) == (level, sentence.format(vcgencmd))


@pytest.mark.parametrize(("free", "level"), [(20, "fail"), (100, "warn"), (5000, "ok")])
def test_disk(free: int, level: str) -> None:
    assert level_of(judge_disk(Path("/var/lib/fer-edge"), free)) == level


def test_disk_of_a_folder_that_does_not_exist_yet(tmp_path: Path) -> None:
    found = check_disk(tmp_path / "a" / "b", current_user())
    assert str(tmp_path / "a" / "b") in found.sentence
    assert "MB free" in found.sentence


@needs_root
def test_a_state_folder_that_its_user_may_not_write_in_is_a_failure() -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
        folder = Path(name)
        for mode in (0o755, 0o700):
            folder.chmod(mode)
            found = check_disk(folder / "state", "nobody")
            assert level_of(found) == "fail"
            assert found.sentence == f"{folder / 'state'}: nobody may not write in {folder}"
        folder.chmod(0o777)
        assert "MB free" in check_disk(folder / "state", "nobody").sentence


def test_a_file_in_the_place_of_the_state_folder_is_a_failure(tmp_path: Path) -> None:
    file = tmp_path / "state"
    file.touch()
    for state in (file, file / "kiosk"):
        found = check_disk(state, current_user())
        assert level_of(found) == "fail"
        assert found.sentence == f"{file} is not a folder, so nothing can be kept in {state}"
        assert "store.folder" in found.remedy


def test_the_state_folder_of_a_service_is_made_by_systemd() -> None:
    assert "MB free" in check_disk(SERVICE_STATE / "absent", "nobody").sentence


def test_config(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.toml", tmp_path / "bad.toml"
    good.write_text('[camera]\nsource = "demo"\n')
    bad.write_text('[camera]\nsauce = "demo"\n')
    found, settings = check_config(good, tmp_path / "none")
    assert level_of(found) == "ok"
    assert settings
    assert settings.camera.source == "demo"
    found, settings = check_config(bad, tmp_path / "none")
    assert level_of(found) == "fail"
    assert "did you mean camera.source?" in found.sentence
    assert settings is None


@needs_root
def test_settings_that_this_user_may_not_read_are_checked_with_sudo() -> None:
    with tempfile.TemporaryDirectory() as name, rights_of_nobody():
        found, _ = check_config(Path(name, "config.toml"), Path(name, "none"))
    assert found.sentence.endswith("cannot be read: Permission denied")
    assert found.remedy == f"sudo fer-edge doctor --config {name}/config.toml"


@contextmanager
def rights_of_nobody() -> Iterator[None]:
    """Let root have the rights of nobody meanwhile."""
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_checking_the_defaults_beside_an_installed_config_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "config.toml").touch()
    assert level_of(check_config(None, tmp_path / "config.toml")[0]) == "warn"
    assert level_of(check_config(None, tmp_path / "none")[0]) == "ok"


def test_groups() -> None:
    groups, usb = {"video", "plugdev", "fer-edge"}, CameraSettings(source="/dev/video0")
    assert level_of(check_groups("fer-edge", groups, groups, usb)) == "ok", "no group render here"
    lacking = check_groups("fer-edge", {"plugdev"}, groups, usb)
    assert level_of(lacking) == "fail"
    assert lacking.remedy == "sudo usermod -aG video fer-edge"
    assert level_of(check_groups("fer-edge", {"plugdev"}, groups, CameraSettings(source="demo"))) == "warn"
    assert level_of(check_groups("root", set(), groups, usb)) == "ok"


def test_the_groups_of_the_current_user() -> None:
    user = service_user("no-such-user")
    assert subprocess.run(["id", "-gn", user], capture_output=True, text=True, check=True).stdout.strip() in (
        groups_of(user)
    )


def test_a_secret_that_every_user_may_read_is_named() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # pytest's own folders are closed to others
        password, key = Path(name) / "password", Path(name) / "key"
        named = MqttSettings(username="kiosk", password_file=str(password), cert_file="cert.pem", key_file=str(key))
        settings = Settings(mqtt=named)
        assert level_of(check_secrets(Settings())) == level_of(check_secrets(settings)) == "ok"
        for file in (password, key):
            file.write_text("sesame")
        password.chmod(0o640)
        key.chmod(0o644)
        assert level_of(check_secrets(settings)) == "ok", "the folder is closed"
        Path(name).chmod(0o755)
        found = check_secrets(settings)
        assert (found.level, found.remedy) == ("warn", f"sudo chmod o-rwx {key}")
        assert f"may read {key}" in found.sentence
        key.chmod(0o600)
        assert level_of(check_secrets(settings)) == "ok"


def test_a_secret_that_nothing_uses_is_named_with_what_it_needs(tmp_path: Path) -> None:
    """Settings that name it are refused; one beside them would be ignored without a word."""
    config = tmp_path / "config.toml"
    for secret in SECRET_FILES:
        file = tmp_path / secret.name
        file.write_text("\n")  # as service install makes it
        assert level_of(check_secrets(with_secret_files(Settings(), config))) == "ok"
        file.write_text("sesame")
        found = check_secrets(with_secret_files(Settings(), config))
        needed = NEEDED[secret.name]
        assert (found.level, found.sentence) == ("warn", f"{file} is not used without {needed}")
        assert found.remedy == f"set {needed}, or empty the file"
        file.unlink()
