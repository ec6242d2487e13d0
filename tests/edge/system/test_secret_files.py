"""Every secret is found beside the settings file, and where systemd hands it over."""

import os
import tempfile
from pathlib import Path

import msgspec
import pytest

from edge.camera.address import stream_address
from edge.errors import SettingsError, SourceError
from edge.mqtt.connection import new_client
from edge.settings import CameraSettings, MqttSettings, Section, Settings
from edge.system.owner_rights import rights_of_owner
from edge.system.secret_files import SECRET_FILES, SecretFile, read_password, with_credentials, with_secret_files
from tests.conftest import ROOT


def value(settings: Settings, secret: SecretFile) -> str:
    return str(getattr(getattr(settings, secret.table), secret.key))


def other(secret: SecretFile) -> Settings:
    table = msgspec.structs.replace(getattr(Settings(), secret.table), **{secret.key: "other"})
    return msgspec.structs.replace(Settings(), **{secret.table: table})


@pytest.mark.parametrize("secret", SECRET_FILES)
def test_a_secret_beside_the_settings_counts_as_for_the_service(tmp_path: Path, secret: SecretFile) -> None:
    config, file = tmp_path / "config.toml", tmp_path / secret.name
    assert with_secret_files(Settings(), config) == Settings()
    assert with_secret_files(Settings(), None) == Settings()
    file.write_text("\n")
    assert with_secret_files(Settings(), config) == Settings(), "the file that service install makes is empty"
    assert value(with_secret_files(other(secret), config), secret) == "other"
    file.write_text("SECRET\n")
    assert value(with_secret_files(Settings(), config), secret) == str(file)
    assert value(with_secret_files(other(secret), config), secret) == str(file)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("secret", SECRET_FILES)
def test_a_secret_that_this_user_may_not_read_counts_only_where_the_settings_name_none(secret: SecretFile) -> None:
    with tempfile.TemporaryDirectory() as name:
        config, file = Path(name, "config.toml"), Path(name, secret.name)
        os.chown(name, 65534, 65534)
        file.touch(0o600)
        with rights_of_owner(config.parent):
            assert value(with_secret_files(Settings(), config), secret) == str(file), "its user is to be told"
            assert value(with_secret_files(other(secret), config), secret) == "other"


@pytest.mark.parametrize("secret", SECRET_FILES)
def test_a_secret_of_systemd_goes_before_the_settings(tmp_path: Path, secret: SecretFile) -> None:
    environ, file = {"CREDENTIALS_DIRECTORY": str(tmp_path)}, tmp_path / secret.name
    file.write_text("\n")
    assert with_credentials(other(secret), environ) == other(secret)
    file.write_text("SECRET\n")
    assert value(with_credentials(other(secret), environ), secret) == str(file)
    assert with_credentials(other(secret), {}) == other(secret)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_password_ends_before_the_end_of_its_line(tmp_path: Path, end: str, encoding: str) -> None:
    file = tmp_path / "password"
    file.write_bytes(f" geheim ä{end}".encode(encoding))
    assert read_password(str(file)) == " geheim ä"


def test_a_password_that_is_not_utf_8_is_named_by_its_file_to_broker_and_camera(tmp_path: Path) -> None:
    file = str(tmp_path / "password")
    Path(file).write_bytes("geheim ä".encode("latin-1"))
    with pytest.raises(SettingsError, match=f"mqtt: {file} cannot be used: it is not UTF-8 text$"):
        new_client(MqttSettings(username="kiosk", password_file=file), "kiosk")
    with pytest.raises(SourceError, match=rf"camera\.password_file: {file} cannot be read: it is not UTF-8 text$"):
        stream_address(CameraSettings("http://cam/", username="kiosk", password_file=file))


def test_the_table_has_every_secret_of_the_settings_and_the_unit_hands_over_each() -> None:
    tables = {name: getattr(Settings(), name) for name in Settings.__struct_fields__}
    keys = {
        (name, key)
        for name, table in tables.items()
        if isinstance(table, Section)
        for key in table.__struct_fields__
        if key in ("password_file", "key_file")
    }
    assert keys == {(secret.table, secret.key) for secret in SECRET_FILES}
    unit = (ROOT / "systemd" / "fer-edge.service").read_text()
    for secret in SECRET_FILES:
        assert f"LoadCredential={secret.name}:/etc/fer-edge/{secret.name}\nSetCredential={secret.name}:\\n\n" in unit
