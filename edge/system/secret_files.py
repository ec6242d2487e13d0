"""The secrets that settings name by file: which there are, and where the service and a technician find them.

This module imports no numpy: doctor uses it where numpy is broken.
"""

import errno
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from edge.settings import Settings
from edge.untrusted_file import read_regular

_LARGEST: Final = 2**16  # bytes


class SecretFile(NamedTuple):
    """A secret: table and key of the setting that names its file, and its name beside config.toml and for systemd."""

    table: str
    key: str
    name: str


SECRET_FILES: Final = (
    SecretFile("mqtt", "password_file", "mqtt-password"),
    SecretFile("mqtt", "key_file", "mqtt-key"),
    SecretFile("camera", "password_file", "camera-password"),
)


def credential(environ: Mapping[str, str], name: str) -> Path | None:
    """The file of a secret that systemd hands over (``LoadCredential=``); None when there is none or it is blank."""
    folder = environ.get("CREDENTIALS_DIRECTORY")
    file = Path(folder) / name if folder else None
    return file if file and file.is_file() and read_regular(file, _LARGEST).strip() else None


def read_password(file: str) -> str:
    """The password in a file, without what Windows adds: a second character at the end of its line, a mark before it.

    Raises OSError, with the file's name, when it cannot be read or is not UTF-8 text.
    """
    try:
        return read_regular(Path(file), _LARGEST).decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise OSError(errno.EILSEQ, "it is not UTF-8 text", file) from error


def has_passphrase(key_file: str) -> bool:
    """Whether this is the file of an encrypted private key, in PEM (RFC 7468, 11, and RFC 1421, 4.6.1.1)."""
    try:
        return b"ENCRYPTED" in read_regular(Path(key_file), _LARGEST)
    except OSError:
        return False


def with_credentials(settings: Settings, environ: Mapping[str, str]) -> Settings:
    """The settings with the files that systemd hands over; they go before those that the settings name."""
    for secret in SECRET_FILES:
        if file := credential(environ, secret.name):
            settings = _with_file(settings, secret, file)
    return settings


def with_secret_files(settings: Settings, config: Path | None) -> Settings:
    """The settings with the secrets that lie beside the settings file. They go before those that the settings name.

    An empty file is no secret, as for the service. One that this user may not read is taken where the settings name
    none, so that the user is told so when it is needed.
    """
    for secret in SECRET_FILES:
        named = getattr(getattr(settings, secret.table), secret.key)
        beside = config.parent / secret.name if config else None
        if beside and _holds_something(beside, if_unreadable=not named):
            settings = _with_file(settings, secret, beside)
    return settings


def _holds_something(file: Path, *, if_unreadable: bool) -> bool:
    try:
        return bool(read_regular(file, _LARGEST).strip())
    except PermissionError:
        return if_unreadable
    except OSError:
        return False


def _with_file(settings: Settings, secret: SecretFile, file: Path) -> Settings:
    table = msgspec.structs.replace(getattr(settings, secret.table), **{secret.key: str(file)})
    return msgspec.structs.replace(settings, **{secret.table: table})
