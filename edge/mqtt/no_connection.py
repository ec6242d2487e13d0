"""Why the broker could not be reached, in words that say what to check."""

import ssl
from typing import Final

from edge.settings import MqttSettings

_CREDENTIALS: Final = "mqtt.username and mqtt.password_file"
_UNKNOWN: Final = "look into the broker's log"
_OTHER_PROTOCOL: Final = {"5": "3.1.1", "3.1.1": "5"}
_WAIT: Final = "wait: the broker is starting, or has too much to do"
_MOVED: Final = "give mqtt.host or mqtt.url the broker's new address"
_HINTS: Final = {  # of MQTT 5.0, 3.2.2.2; paho gives those of MQTT 3.1.1 the same numbers
    0x85: "choose another mqtt.device or mqtt.prefix: the broker does not allow the client id made of them",
    0x86: "check {credentials}",
    0x87: "check this device's rights at the broker, {credentials}",  # mosquitto says it of a wrong password
    0x88: _WAIT,
    0x89: _WAIT,
    0x8A: "lift the ban of this device at the broker",
    0x8C: "have the broker accept a user with a password, or a certificate",
    0x90: "choose another mqtt.device or mqtt.prefix: the broker does not allow the topic made of them",
    0x97: "raise the broker's quota for this device, such as that of connections",
    0x9A: "choose a broker with retained messages",
    0x9B: "choose a broker with QoS 1",
    0x9C: _MOVED,
    0x9D: _MOVED,
    0x9F: _WAIT,
}
_ABOUT_THE_PROTOCOL: Final = (0x81, 0x82, 0x84)  # malformed packet, protocol error, unsupported version


def no_connection(address: str, error: OSError | ValueError) -> str:
    """Why no connection was made, and what to check."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"the certificate of the MQTT broker at {address} is not trusted: {error.verify_message}. Does "
            "mqtt.ca_file name the authority that signed it, is mqtt.host the name in it, is this device's clock right?"
        )
    if isinstance(error, ssl.SSLError):
        return f"no MQTT broker answers at {address}: TLS failed: {error}. Check mqtt.port, mqtt.tls and mqtt.ca_file."
    where = "mqtt.url, or mqtt.host and mqtt.port"
    return f"no MQTT broker answers at {address}: {error}. Is it running, is its address right ({where})?"


def refusal_hint(code: int, settings: MqttSettings, credentials: str = _CREDENTIALS) -> str:
    """What to do when the broker answers a connection with this reason code of MQTT 5: a clause without a full stop.

    ``credentials`` says where the device's name and password are.
    """
    if code in _ABOUT_THE_PROTOCOL:
        return f'give mqtt.protocol = "{_OTHER_PROTOCOL[settings.protocol]}"'
    return _HINTS.get(code, _UNKNOWN).format(credentials=credentials)


def closed_early(address: str, code: int, settings: MqttSettings) -> str:
    """The connection has ended before the broker accepted it: why, and what to check.

    ``code`` is paho's reason; it says "protocol error" (0x82) of an answer that the client does not understand. Among
    these is the refusal of MQTT 3.1.1 as a version.
    """
    if code in _ABOUT_THE_PROTOCOL:
        other = _OTHER_PROTOCOL[settings.protocol]
        return (
            f"{address} gives no answer of MQTT {settings.protocol}. Is it a broker "
            f'(mqtt.port), and does it want mqtt.protocol = "{other}"?'
        )
    wanted = "a certificate of this device (mqtt.cert_file)" if settings.encrypted else "TLS (mqtt.tls)"
    return f"{address} closes the connection without a reason. Does it want {wanted}?"


def unusable_file(settings: MqttSettings, error: OSError | ValueError) -> str:
    """Which of the files for TLS and the password cannot be used, and why: OpenSSL names none."""
    reason = getattr(error, "strerror", None) or error
    if file := getattr(error, "filename", None):
        return f"{file} cannot be used: {reason}"
    try:
        ssl.create_default_context(cafile=settings.ca_file or None)
    except ssl.SSLError:
        return f"{settings.ca_file} cannot be used: {reason}. Is it a certificate of the authority, as PEM?"
    key = settings.key_file or settings.cert_file
    return f"{settings.cert_file} cannot be used with the key in {key}: {reason}. Do they belong together, both as PEM?"
