"""Every secret is found beside the settings file, and where systemd hands it over."""

from pathlib import Path

import msgspec
import pytest

from edge.settings import Section, Settings
from edge.system.secret_files import SECRET_FILES, SecretFile, with_credentials, with_secret_files
from tests.conftest import ROOT


def value(settings: Settings, secret: SecretFile) -> str:
    return str(getattr(getattr(settings, secret.table), secret.key))


def other(secret: SecretFile) -> Settings:
    table = msgspec.structs.replace(getattr(Settings(), secret.table), **{secret.key: "other"})
    return msgspec.structs.replace(Settings(), **{secret.table: table})


@pytest.mark.parametrize("secret", SECRET_FILES)
def test_a_secret_beside_the_settings_counts_unless_they_name_another(tmp_path: Path, secret: SecretFile) -> None:
    config, file = tmp_path / "config.toml", tmp_path / secret.name
    assert with_secret_files(Settings(), config) == Settings()
    assert with_secret_files(Settings(), None) == Settings()
    file.write_text("\n")
    assert with_secret_files(Settings(), config) == Settings(), "the file that service install makes is empty"
    file.write_text("SECRET\n")
    assert value(with_secret_files(Settings(), config), secret) == str(file)
    assert value(with_secret_files(other(secret), config), secret) == "other"


@pytest.mark.parametrize("secret", SECRET_FILES)
def test_a_secret_of_systemd_goes_before_the_settings(tmp_path: Path, secret: SecretFile) -> None:
    environ, file = {"CREDENTIALS_DIRECTORY": str(tmp_path)}, tmp_path / secret.name
    file.write_text("\n")
    assert with_credentials(other(secret), environ) == other(secret)
    file.write_text("SECRET\n")
    assert value(with_credentials(other(secret), environ), secret) == str(file)
    assert with_credentials(other(secret), {}) == other(secret)


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
