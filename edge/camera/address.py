"""Addresses of network cameras: what messages may show of them, and how user and password get into them.

``safe_source`` is the only way in which a source's text reaches a message. This module imports no OpenCV: doctor uses
it where OpenCV is broken.
"""

import re
from typing import Final
from urllib.parse import quote, urlsplit

from edge.errors import SourceError
from edge.settings import CameraSettings
from edge.system.secret_files import read_password

_SCHEMES: Final = ("http", "https", "rtsp", "rtsps", "rtmp", "tcp", "udp")
_BARE: Final = ("tcp", "udp")  # without users, and without a usual port; a udp address may have no host
_MASK: Final = "***"
_START: Final = re.compile(r"\s*(?:[A-Za-z][A-Za-z0-9+.-]*:/+|//)")
_NOT_A_PORT: Final = re.compile(r"(?:\[[^\]/]*\]|[^:/\[]*):(?!\d{1,5}(?:/|$))")
_STRAY_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")

_PERCENT_ENCODE: Final = (
    "this address cannot be parsed. Percent-encode : / ? # [ ] @ % and spaces in its user and password ('#' is %23), "
    "or give camera.username and camera.password_file, which need no encoding"
)


def safe_source(source: str) -> str:
    """The source for messages: without user, password, and whatever follows ``?``, ``#``, ``=``, ``;`` or ``&``.

    It does not parse, so no text makes it fail. In doubt it shows less. Paths of files stay as they are.
    """
    if source.startswith(("/", "./", "../")) and "//" not in source and ":/" not in source:
        return source
    start = _START.match(source)
    scheme = start.group() if start else ""
    user, at, place = source[len(scheme) :].rpartition("@")
    if "?" in user or "#" in user or ("/" in user and "=" in user):  # is the end of it a host, or of a password?
        return f"{scheme}{_MASK}"
    if cut := re.search(r"[?#=;&]" if scheme or at else r"[?&]", place):
        place = place[: cut.end()] + _MASK
    if scheme and (no_port := _NOT_A_PORT.match(place)):
        place = no_port.group() + _MASK
    return f"{scheme}{_MASK if user else ''}{at}{place}"


def is_stream(source: str) -> bool:
    """Whether the source is an address that fer-edge can stream from."""
    scheme, separator, _ = source.partition("://")
    return bool(separator) and scheme.lower() in _SCHEMES


def require_known_scheme(source: str) -> None:
    """Raise SourceError if the source is an address of another kind than fer-edge can stream from."""
    scheme, separator, _ = source.partition("://")
    if separator and "/" not in scheme and not is_stream(source):
        known = ", ".join(f"{scheme}://" for scheme in _SCHEMES)
        raise SourceError(f"source {safe_source(source)!r}: unknown kind of address; known are {known}")


def stream_address(camera: CameraSettings) -> str:
    """The address to connect to, with user and password percent-encoded.

    Raises SourceError when it cannot be parsed, when the password's file cannot be read, or when both the address and
    the settings name a user.
    """
    scheme, _, rest = camera.source.partition("://")
    address = f"{scheme.lower()}://{rest}"
    require_parsable(address)
    if not camera.username:
        return address
    if address.startswith(tuple(f"{bare}://" for bare in _BARE)):
        raise SourceError(f"{safe_source(address)}: such a stream has no users. Remove camera.username")
    if "@" in urlsplit(address).netloc:
        raise SourceError(
            f"{safe_source(address)}: the address has a user, and camera.username is set too. Remove one of them"
        )
    password = _password(camera)
    user = quote(camera.username, safe="") + (f":{quote(password, safe='')}" if password else "")
    return address.replace("://", f"://{user}@", 1)


def require_parsable(address: str) -> None:
    """Raise SourceError unless FFmpeg would understand the address as its author meant it."""
    try:
        parts = urlsplit(address)
        understood = bool(parts.hostname or parts.scheme == "udp") and parts.port != 0
    except ValueError:
        understood = False
    if understood and parts.scheme in _BARE and not parts.port:
        example = "udp://@:8888" if parts.scheme == "udp" else "tcp://10.0.0.7:8888"
        raise SourceError(f"{safe_source(address)}: give the port too, as in {example}")
    unusual = "#" in address or not address.isprintable() or " " in address
    if not understood or unusual or _STRAY_PERCENT.search(urlsplit(address).netloc):
        raise SourceError(f"{safe_source(address)}: {_PERCENT_ENCODE}")


def may_be_misread(address: str) -> bool:
    """Whether an ``@`` stands where it separates nothing, as when a password contains ``/`` or ``?``."""
    parts = urlsplit(address)
    return "@" not in parts.netloc and "@" in address


def _password(camera: CameraSettings) -> str:
    if not camera.password_file:
        return ""
    try:
        return read_password(camera.password_file)
    except OSError as error:
        raise SourceError(f"camera.password_file: {camera.password_file} cannot be read: {error.strerror}") from error
