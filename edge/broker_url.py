"""The address of an MQTT broker: ``mqtt://``, ``mqtts://``, ``ws://`` or ``wss://``.

No message shows the address, because it may hold a secret where none belongs.
"""

from typing import Final, NamedTuple
from urllib.parse import SplitResult, urlsplit

from edge.errors import SettingsError

_PORTS: Final = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}
_USUAL_PATH: Final = "/mqtt"  # of most brokers' websockets


class BrokerAddress(NamedTuple):
    """Where a broker is. ``websocket_path`` has the query too, and is None without websockets."""

    host: str
    port: int
    tls: bool
    websocket_path: str | None


def parse_broker_url(url: str) -> BrokerAddress:
    """Understand an address. Raises SettingsError, which says what of it is not understood."""
    scheme, parts = _split(url)
    if not parts.hostname:
        raise _not_understood(scheme)
    websocket = scheme.startswith("ws")
    if not websocket and (parts.path.strip("/") or parts.query):
        raise SettingsError(
            f"mqtt.url: nothing may follow host and port of {scheme}://; topics begin with mqtt.prefix, and websockets "
            "are ws:// or wss://"
        )
    path = (parts.path or _USUAL_PATH) + (f"?{parts.query}" if parts.query else "")
    return BrokerAddress(
        parts.hostname, parts.port or _PORTS[scheme], scheme in ("mqtts", "wss"), path if websocket else None
    )


def _split(url: str) -> tuple[str, SplitResult]:
    scheme, separator, rest = url.partition("://")
    scheme = scheme.lower()
    if scheme not in _PORTS or not separator:
        named = f"{scheme}://" if separator and scheme.isalnum() else "an address"
        known = ", ".join(f"{known}://" for known in _PORTS)
        raise SettingsError(f"mqtt.url: {named} of a kind that is not known; known are {known}")
    if "@" in rest:
        raise SettingsError(
            "mqtt.url: give the user as mqtt.username, and the password in /etc/fer-edge/mqtt-password or "
            "mqtt.password_file, not in the address"
        )
    try:
        parts = urlsplit(url)
        usable = parts.port != 0 and "#" not in url and " " not in url and url.isprintable()
    except ValueError:
        usable = False
    if not usable:
        raise _not_understood(scheme)
    return scheme, parts


def _not_understood(scheme: str) -> SettingsError:
    return SettingsError(f"mqtt.url cannot be understood. It is like {scheme}://broker.local:{_PORTS[scheme]}")
