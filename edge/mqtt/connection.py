"""A connection to a broker, made again whenever it breaks, by one thread. Only that thread uses paho's client.

paho implements the protocol and nothing else: each connection has a client of its own, so that paho never queues or
repeats a message by itself. The ConnectionListener decides what is sent, and what is sent again.
"""

import contextlib
import logging
import select
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge.errors import DeliveryError, SettingsError
from edge.mqtt.backoff import Backoff
from edge.mqtt.bounded_client import BoundedClient
from edge.mqtt.no_connection import closed_early, no_connection, refusal_hint, unusable_file
from edge.mqtt.subscriptions import Subscriptions
from edge.settings import MqttSettings
from edge.system.secret_files import has_passphrase, read_password
from edge.untrusted_file import require_regular

_log = logging.getLogger(__name__)

_WAIT: Final = 1.0  # at most, between two calls of paho that keep the connection alive
_GATHER: Final = 0.05  # after a message from others; what comes meanwhile is read at once: a flood costs less
_CONNACK_SECONDS: Final = 10.0
_STABLE: Final = 30.0  # seconds; only a connection that lasts as long resets the back-off
_SHORT: Final = 10.0  # seconds; two devices with one client id disconnect each other within the first back-offs
_SUSPICIOUS: Final = 3  # so many short connections in a row, without a failed attempt, may be two such devices
_LARGEST_RECEIVED: Final = 8192  # bytes; no message to a device is nearly as long
_USUAL_WINDOW: Final = 20  # of mosquitto and others; an MQTT 3.1.1 broker cannot state its own
_BLAMING: Final = (0x81, 0x82, 0x83, 0x87, 0x90, 0x95, 0x97, 0x99)  # MQTT 5.0, 2.4: malformed .. too large .. quota
_CLOSED_SOCKET: Final = 0x80  # paho's code when the broker closes the socket without a DISCONNECT packet
_TAKEN_OVER: Final = 0x8E  # MQTT 5.0, 3.1.4: another connection has come with this client id
_ABOUT_THE_DEVICE: Final = (0x87, 0x97)  # not authorized, quota exceeded: any other message would be refused too
_PROTOCOLS: Final = {"5": paho.MQTTv5, "3.1.1": paho.MQTTv311}


@dataclass(frozen=True)
class Limits:
    """What the broker accepts: ``window`` unacknowledged messages, each of ``packet`` bytes at most (None: any)."""

    window: int = _USUAL_WINDOW
    packet: int | None = None


class TakeoverDetector:
    """Says when another device with the same client id ends the connections, or may do so. Durations are in seconds.

    An MQTT 5 broker should give that reason. mosquitto 2.0 and brokers of MQTT 3.1.1 only close the socket, as a broken
    network does. Then several short connections in a row are all that is known. A network or a broker that is away
    makes attempts between them fail.
    """

    def __init__(self) -> None:
        self._short_connections = 0

    def ended(self, reason: int, seconds: float) -> str:
        """A connection of this length was ended for this reason; returns a sentence for the log, or nothing."""
        if reason == _TAKEN_OVER:
            return " Another device has connected with the same name (mqtt.device)."
        short = seconds < _SHORT and reason == _CLOSED_SOCKET
        self._short_connections = self._short_connections + 1 if short else 0
        if self._short_connections < _SUSPICIOUS:
            return ""
        return " Connections are short again and again: is the network bad, or has another device the same name?"

    def attempt_failed(self) -> None:
        """No connection was made."""
        self._short_connections = 0


class ConnectionListener(Protocol):
    """Decides what a connection sends. Every method is called in its thread, and must not wait for the network."""

    def connected(self, limits: Limits) -> None:
        """The broker has accepted a connection; nothing that was sent before is in flight any more."""
        ...

    def lost(self, *, blamed: bool) -> None:
        """The connection has ended; ``blamed`` when the broker said that it was because of what was sent."""
        ...

    def send_due(self, connection: "BrokerConnection") -> float:
        """Publish what is due; returns the seconds after which there may be more without a wake."""
        ...

    def answered(self, mid: int, refusal: str, *, everything: bool) -> None:
        """The broker has answered the message with this packet id; ``refusal`` is empty when it has accepted it.

        ``everything`` says that it would refuse any other message too.
        """
        ...

    def received(self, topic: str, payload: bytes, retained: bool) -> None:
        """A message has come on a subscribed topic."""
        ...


class BrokerConnection(threading.Thread):
    """Keeps a connection up until it is stopped, and logs each change of its state once.

    ``will`` is the topic of the availability, which the broker sets to ``offline`` when this connection breaks;
    ``subscriptions`` are what it listens to.
    """

    def __init__(
        self,
        settings: MqttSettings,
        client_id: str,
        *,
        will: str,
        subscriptions: Subscriptions,
        backoff: Backoff,
        listener: ConnectionListener,
    ) -> None:
        super().__init__(name="mqtt", daemon=True)
        self._listener = listener
        self._settings = settings
        self._client_id = client_id
        self._will = will
        self._subscriptions = subscriptions
        self._backoff = backoff
        self._waker: socket.socket | None = None
        self._stopping = threading.Event()
        self._in_order = True
        self._client: BoundedClient | None = None
        self._accepted: float | None = None
        self._refused = self._blamed = self._message_came = False
        self._last_logged = ""
        self._takeovers = TakeoverDetector()

    @property
    def up(self) -> bool:
        """Whether a broker has accepted this connection."""
        return self._accepted is not None

    def wake(self) -> None:
        """Have the listener send what is due. For any thread."""
        if waker := self._waker:
            with contextlib.suppress(OSError):  # it is awake already, or has ended
                waker.send(b"\0")

    def stop(self, *, in_order: bool = True) -> None:
        """End the connection, and this thread. For any thread; does not wait.

        Without ``in_order`` it ends as if it broke: then the broker publishes the will, which it else throws away.
        """
        self._in_order = in_order
        self._stopping.set()
        self.wake()

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, qos: int = 1) -> int:
        """Send a message on the connection that is up; returns its packet id. Only for the listener's methods."""
        assert self._client
        return self._client.publish(topic, payload, qos=qos, retain=retain).mid

    def drop(self, reason: str) -> None:
        """Break the connection, to make a new one. Only for the listener's methods."""
        self._log_once(f"{reason}: connecting again to the MQTT broker at {self._address}")
        if self._client and (open_socket := self._client.socket()):
            open_socket.close()

    def run(self) -> None:
        """Connect, again and again, until stopped."""
        self._waker, woken = socket.socketpair()
        with self._waker, woken:
            self._waker.setblocking(False)
            woken.setblocking(False)
            self._run(woken)

    def _run(self, woken: socket.socket) -> None:
        while not self._stopping.is_set():
            try:
                self._connection(woken)
            except SettingsError as error:  # a password file that is just being replaced
                self._log_once(f"{error}; trying again.")
            if self._accepted is None:
                self._takeovers.attempt_failed()
            else:
                self._listener.lost(blamed=self._blamed)
                if time.monotonic() - self._accepted >= _STABLE:
                    self._backoff.reset()
            self._accepted = self._client = None
            self._stopping.wait(self._backoff.next())

    def _connection(self, woken: socket.socket) -> None:
        """Make one connection and serve it until it ends."""
        self._refused = self._blamed = False
        self._client = client = self._make_client()
        settings = self._settings
        try:
            client.connect(settings.host, settings.port, settings.keepalive, properties=_connect_properties(settings))
        except (OSError, ValueError) as error:
            self._log_once(f"{no_connection(self._address, error)} Events are kept; trying again.")
            return
        deadline = time.monotonic() + _CONNACK_SECONDS
        while not self._stopping.is_set() and self._serve(client, woken):
            if self._accepted is None and time.monotonic() > deadline:
                self._log_once(f"{self._address} gives no MQTT answer. Events are kept; trying again.")
                break
        if self._in_order:
            client.disconnect()
            client.loop_misc()
        elif open_socket := client.socket():
            open_socket.close()

    def _serve(self, client: BoundedClient, woken: socket.socket) -> bool:
        """Wait for something to do, and do it; returns whether the connection is still open."""
        wait = _WAIT
        if self.up:
            self._subscriptions.ask_again(client, time.monotonic())
            wait = min(wait, max(0.0, self._listener.send_due(self)))
        open_socket: Any = client.socket()
        if open_socket is None or open_socket.fileno() < 0:
            return False
        if client.unread or (hasattr(open_socket, "pending") and open_socket.pending()):
            wait = 0.0  # already received or decrypted, so select would not report it
        ready, writable, _ = select.select([open_socket, woken], [open_socket] if client.want_write() else [], [], wait)
        if woken in ready:
            woken.recv(4096)
        if writable:
            client.loop_write()
        if open_socket in ready or wait == 0.0:
            self._message_came = False
            client.read_packets()
            if self._message_came:
                self._stopping.wait(_GATHER)
        client.loop_misc()
        return client.socket() is not None

    def _make_client(self) -> BoundedClient:
        client = new_client(self._settings, self._client_id)
        client.will_set(self._will, "offline", qos=1, retain=True)
        client.max_inflight_messages_set(0)  # no limit: the listener keeps the window
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        return client

    def _on_connect(self, client: paho.Client, _d: Any, _f: Any, reason: ReasonCode, properties: Any) -> None:
        if reason.is_failure:
            self._refused = True
            hint = refusal_hint(reason.value, self._settings)
            self._log_once(
                f"the MQTT broker at {self._address} refuses the connection: {reason}; {hint}. Trying again."
            )
            return
        self._log_once(f"connected to the MQTT broker at {self._address}")
        self._accepted = time.monotonic()
        window = getattr(properties, "ReceiveMaximum", _USUAL_WINDOW)
        self._listener.connected(Limits(min(window, _USUAL_WINDOW), getattr(properties, "MaximumPacketSize", None)))
        self._subscriptions.begin(client)

    def _on_disconnect(self, _client: paho.Client, _data: Any, _flags: Any, reason: ReasonCode, _p: Any) -> None:
        if not reason.is_failure or self._refused:
            return
        if self._accepted is None:
            self._log_once(f"{closed_early(self._address, reason.value, self._settings)} Trying again.")
        else:
            self._blamed = reason.value in _BLAMING
            hint = self._takeovers.ended(reason.value, time.monotonic() - self._accepted)
            self._log_once(f"lost the MQTT broker at {self._address}: {reason}.{hint} Events are kept; trying again.")

    def _on_subscribe(self, _client: paho.Client, _d: Any, mid: int, reasons: list[ReasonCode], _p: Any) -> None:
        self._subscriptions.answered(mid, reasons, time.monotonic())

    def _on_publish(self, _client: paho.Client, _data: Any, mid: int, reason: ReasonCode, _p: Properties) -> None:
        self._listener.answered(
            mid, str(reason) if reason.is_failure else "", everything=reason.value in _ABOUT_THE_DEVICE
        )

    def _on_message(self, _client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        self._message_came = True
        try:
            topic = message.topic  # paho decodes it here
        except UnicodeDecodeError:  # MQTT forbids it, and a broker that lets it pass must not end this device
            self._log_once(f"the MQTT broker at {self._address} sends a topic that is not UTF-8; it is ignored")
            return
        self._listener.received(topic, bytes(message.payload), message.retain)

    def _log_once(self, message: str) -> None:
        """Log a change of the connection; a failure that repeats is logged once."""
        if message != self._last_logged:
            self._last_logged = message
            _log.warning(message)

    @property
    def _address(self) -> str:
        return f"{self._settings.host}:{self._settings.port}"


def new_client(settings: MqttSettings, client_id: str) -> BoundedClient:
    """A client with the protocol, the user, the password and the certificates that the settings name.

    It starts with a clean session. Raises SettingsError when one of the files cannot be used.
    """
    client = BoundedClient(
        CallbackAPIVersion.VERSION2,
        client_id=client_id,
        protocol=_PROTOCOLS[settings.protocol],
        reconnect_on_failure=False,
        transport="tcp" if settings.websocket_path is None else "websockets",
    )
    if settings.websocket_path:
        client.ws_set_options(settings.websocket_path)
    try:
        if settings.username:
            file = settings.password_file
            client.username_pw_set(settings.username, read_password(file) if file else None)
        if settings.encrypted:
            for file in filter(None, (settings.ca_file, settings.cert_file, settings.key_file)):
                require_regular(Path(file))  # OpenSSL would wait for a pipe, and read a device without end
            client.tls_set(
                ca_certs=settings.ca_file or None,
                certfile=settings.cert_file or None,
                keyfile=settings.key_file or None,
                keyfile_password="",  # nobody is there to whom OpenSSL could put its question
            )
    except (OSError, ValueError) as error:
        if has_passphrase(settings.key_file):
            raise SettingsError(
                f"mqtt: {settings.key_file} cannot be used: it has a passphrase, and nobody is there to enter it. "
                "Write it without one: openssl pkey -in KEY -out mqtt-key"
            ) from error
        raise SettingsError(f"mqtt: {unusable_file(settings, error)}") from error
    return client


def publish_retained(
    client: BoundedClient, settings: MqttSettings, payloads: Mapping[str, bytes], seconds: float = 10.0
) -> None:
    """Connect a new client, publish retained payloads by their topics, wait until the broker has them, and disconnect.

    For commands beside the service. Raises DeliveryError when that does not succeed within ``seconds``.
    """
    where = f"the MQTT broker at {settings.host}:{settings.port}"
    answers: dict[int, ReasonCode] = {}
    connected: list[ReasonCode] = []
    client.on_connect = lambda _client, _data, _flags, reason, _properties: connected.append(reason)
    client.on_publish = lambda _client, _data, mid, reason, _properties: answers.update({mid: reason})
    deadline = time.monotonic() + seconds

    def until(condition: Callable[[], object]) -> None:
        while not condition():
            if time.monotonic() > deadline or client.loop(0.1) != paho.MQTT_ERR_SUCCESS:
                raise DeliveryError(f"{where} did not take the result within {seconds:.0f} s. Is it running?")

    try:
        client.connect_timeout = seconds
        client.connect(settings.host, settings.port)
    except OSError as error:
        raise DeliveryError(f"{where} cannot be reached: {error.strerror or error}") from error
    until(lambda: connected)
    if connected[0].is_failure:
        hint = refusal_hint(connected[0].value, settings)
        raise DeliveryError(f"{where} refuses the connection: {connected[0]}; {hint}.")
    sent = [client.publish(topic, payload, qos=1, retain=True).mid for topic, payload in payloads.items()]
    until(lambda: all(mid in answers for mid in sent))
    client.disconnect()
    if refused := [str(reason) for reason in answers.values() if reason.is_failure]:
        raise DeliveryError(f"{where} refuses the result: {refused[0]}. May this device publish to {min(payloads)}?")


def _connect_properties(settings: MqttSettings) -> Properties | None:
    if settings.protocol != "5":
        return None
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.MaximumPacketSize = _LARGEST_RECEIVED
    return properties
