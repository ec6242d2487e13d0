"""Telling a broker: availability by last will, retained state, events at QoS 1. Nothing here waits for the network.

Topics, under ``PREFIX/DEVICE``: ``availability`` (retained, ``online``/``offline``), ``state`` (retained JSON: how many
faces, and what the one that has been there longest shows), ``event`` (not retained, see edge.records.Event) and
``fault`` (retained, see edge.records.Fault: why the service ended; empty while it works).
"""

import logging
import socket
import threading
import time
from pathlib import Path
from typing import Any, Final

import msgspec
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge.errors import SettingsError
from edge.events import to_json
from edge.records import Event, Expression, Fault
from edge.settings import Mqtt

_log = logging.getLogger(__name__)

_KEEPALIVE: Final = 30
_LONGEST_RETRY: Final = 30
_MOST_QUEUED: Final = 10_000
_SERIAL: Final = Path("/proc/device-tree/serial-number")


class State(msgspec.Struct, frozen=True):
    """The retained state: faces in view, and the expression of the one that has been there longest."""

    faces: int
    track: int | None = None
    expression: str | None = None
    confidence: float | None = None


class MqttSink:
    """Publishes events; the connection is made, and made again, in paho's own thread.

    Raises SettingsError when the password or certificate file cannot be used.
    """

    def __init__(self, settings: Mqtt) -> None:
        self._settings = settings
        self._base = f"{settings.prefix}/{device_id(settings)}"
        self._faces: dict[int, Expression] = {}
        self._sent: set[int] = set()
        self._acknowledged: set[int] = set()
        self._said = ""
        self._client = self._make_client()
        self._client.connect_async(settings.host, settings.port, keepalive=_KEEPALIVE)
        self._client.loop_start()

    def tell(self, event: Event) -> None:
        """Queue an event and the state that follows from it; returns at once, connected or not."""
        self._publish("event", to_json(event), retain=False)
        if event.kind == "left":
            self._faces.pop(event.track, None)
        else:
            self._faces[event.track] = event.expression
        self._publish("state", msgspec.json.encode(self._state()), retain=True)

    def fault(self, fault: Fault | None) -> None:
        """Queue the retained fault; None says that there is none (an empty payload, which ends its retention)."""
        self._publish("fault", msgspec.json.encode(fault) if fault else b"", retain=True)

    def close(self, timeout: float) -> int:
        """Within ``timeout`` seconds let the broker acknowledge everything, say offline, and disconnect.

        Returns how many messages the broker has not acknowledged.
        """
        deadline = time.monotonic() + timeout
        offline_takes = min(1.0, timeout / 4)
        while self.unacknowledged() and time.monotonic() < deadline - offline_takes:
            time.sleep(0.02)
        left = self.unacknowledged()
        if self._client.is_connected():
            offline = self._client.publish(f"{self._base}/availability", "offline", qos=1, retain=True)
            offline.wait_for_publish(offline_takes)
        self._client.disconnect()
        # paho's thread may sit in a name look-up or a connect that nothing interrupts: join it only so long.
        stopping = threading.Thread(target=self._client.loop_stop, daemon=True)
        stopping.start()
        stopping.join(max(0.1, deadline - time.monotonic()))
        return left

    def unacknowledged(self) -> int:
        """Messages handed over that the broker has not acknowledged yet."""
        return len(self._sent - self._acknowledged)

    def _publish(self, topic: str, payload: bytes, retain: bool) -> None:
        # No lock: paho calls _on_publish while it holds its own, which publish() needs too.
        done = self._sent & self._acknowledged
        self._sent -= done
        self._acknowledged -= done
        self._sent.add(self._client.publish(f"{self._base}/{topic}", payload, qos=1, retain=retain).mid)

    def _state(self) -> State:
        if not self._faces:
            return State(faces=0)
        track = min(self._faces)
        expression = self._faces[track]
        return State(len(self._faces), track, expression.label, expression.confidence)

    def _make_client(self) -> paho.Client:
        settings = self._settings
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id=self._base.replace("/", "-"), protocol=paho.MQTTv5)
        client.will_set(f"{self._base}/availability", "offline", qos=1, retain=True)
        client.reconnect_delay_set(1, _LONGEST_RETRY)
        client.max_queued_messages_set(_MOST_QUEUED)
        secure(client, settings)
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        return client

    def _on_connect(self, client: paho.Client, _data: Any, _flags: Any, reason: ReasonCode, _p: Any) -> None:
        if reason.is_failure:
            self._say(
                f"the MQTT broker at {self._where()} refuses the connection: {reason}. "
                "Check mqtt.username and mqtt.password_file; trying again."
            )
            return
        self._say(f"connected to the MQTT broker at {self._where()}")
        client.publish(f"{self._base}/state", msgspec.json.encode(self._state()), qos=1, retain=True)
        client.publish(f"{self._base}/availability", "online", qos=1, retain=True)

    def _on_connect_fail(self, _client: paho.Client, _data: Any) -> None:
        self._say(
            f"no MQTT broker answers at {self._where()}. Is it running, are mqtt.host and mqtt.port right? "
            "Events are kept; trying again."
        )

    def _on_disconnect(self, _client: paho.Client, _data: Any, _flags: Any, reason: ReasonCode, _p: Any) -> None:
        if reason.is_failure:
            self._say(f"lost the MQTT broker at {self._where()}: {reason}. Events are kept; trying again.")

    def _on_publish(self, _client: paho.Client, _data: Any, mid: int, _reason: ReasonCode, _p: Properties) -> None:
        self._acknowledged.add(mid)

    def _say(self, sentence: str) -> None:
        """Log a change of the connection; the same failure over and over is logged once."""
        if sentence != self._said:
            self._said = sentence
            _log.warning(sentence)

    def _where(self) -> str:
        return f"{self._settings.host}:{self._settings.port}"


def secure(client: paho.Client, settings: Mqtt) -> None:
    """Give a client the user, the password and the certificate authority that the settings name.

    Raises SettingsError when one of the files cannot be used.
    """
    try:
        if settings.username:
            file = settings.password_file
            client.username_pw_set(settings.username, Path(file).read_text().rstrip("\n") if file else None)
        if settings.ca_file:
            client.tls_set(ca_certs=settings.ca_file)
    except OSError as error:
        raise SettingsError(f"mqtt: {error.filename or settings.ca_file} cannot be used: {error}") from error


def device_id(settings: Mqtt) -> str:
    """The configured device name; else the board's serial number (cloned SD cards share host names); else the host."""
    if settings.device:
        return settings.device
    try:
        return _SERIAL.read_text().strip("\0\n ")
    except OSError:
        return socket.gethostname()
