"""One connection to a broker, made and made again by one thread. Only that thread touches paho's client.

paho keeps the protocol, and nothing else: each connection has a client of its own, so that paho never queues or sends
again by itself. What is to be sent, and sent again, is decided by the Talk.
"""

import contextlib
import logging
import random
import select
import socket
import ssl
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
from edge.settings import MqttSettings

_log = logging.getLogger(__name__)

_WAIT: Final = 1.0  # the longest that paho's keep-alive is not looked after
_CONNACK_SECONDS: Final = 10.0
_LASTING: Final = 30.0  # a connection that ends sooner does not make the waiting short again
_SOON: Final = 10.0  # two devices that throw each other out wait as the back-off does: below 2, 4, 8 s at first
_SUSPICIOUS: Final = 3  # so many connections in a row that end so soon, and nothing else amiss, may be two such devices
_LARGEST_RECEIVED: Final = 8192  # bytes; nothing that a device is told is nearly as long
_USUAL_WINDOW: Final = 20  # of mosquitto and others; MQTT 3.1.1 has no way to say it
_BLAMING: Final = (0x81, 0x82, 0x83, 0x87, 0x90, 0x95, 0x97, 0x99)  # MQTT 5.0, 2.4: malformed .. too large .. quota
_WITHOUT_A_WORD: Final = 0x80  # what paho makes of a socket that was closed
_TAKEN_OVER: Final = 0x8E  # MQTT 5.0, 3.1.4: another connection has come with this client id
_ABOUT_THE_DEVICE: Final = (0x87, 0x97)  # not authorized, quota exceeded: not about this very message
_PROTOCOLS: Final = {"5": paho.MQTTv5, "3.1.1": paho.MQTTv311}


class Backoff:
    """Seconds to wait after failures in a row: random below a limit that doubles, so that many devices spread out.

    "Full jitter" of https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/.
    """

    def __init__(self, first: float = 2.0, longest: float = 60.0, chance: Callable[[], float] = random.random) -> None:
        self._first = first
        self._longest = longest
        self._chance = chance
        self._failures = 0

    def next(self) -> float:
        """How long to wait after one more failure."""
        limit = min(self._longest, self._first * 2.0 ** min(self._failures, 30))
        self._failures += 1
        return limit * (0.1 + 0.9 * self._chance())

    def reset(self) -> None:
        """It worked."""
        self._failures = 0


@dataclass(frozen=True)
class Limits:
    """What the broker takes: so many unacknowledged messages at once, of at most so many bytes (None: any)."""

    window: int = _USUAL_WINDOW
    packet: int | None = None


class ConnectionListener(Protocol):
    """What a Link carries. Every method is called in the link's thread, and must not wait for the network."""

    def connected(self, limits: Limits) -> None:
        """A connection was accepted; nothing that was sent before is under way any more."""
        ...

    def lost(self, *, blamed: bool) -> None:
        """The connection has ended; ``blamed`` when that was said to be for what was sent."""
        ...

    def turn(self) -> float:
        """Send what is due; returns the seconds after which there may be more without a wake."""
        ...

    def answered(self, mid: int, refusal: str, *, everything: bool) -> None:
        """The broker has answered a publish; ``refusal`` is empty when it has acknowledged it.

        ``everything`` says that it would refuse any other message too.
        """
        ...

    def received(self, topic: str, payload: bytes, retained: bool) -> None:
        """A message has come on a subscribed topic."""
        ...


class BrokerConnection(threading.Thread):
    """Keeps a connection up until it is stopped; says each change of its fate once.

    ``will`` is the topic of the availability, which the broker sets to ``offline`` when this connection breaks.
    """

    def __init__(self, settings: MqttSettings, name: str, will: str, topics: tuple[str, ...], backoff: Backoff) -> None:
        super().__init__(name="mqtt", daemon=True)
        self.talk: ConnectionListener
        self._settings = settings
        self._id = name
        self._will = will
        self._topics = topics
        self._backoff = backoff
        self._waker: socket.socket | None = None
        self._stopping = threading.Event()
        self._client: paho.Client | None = None
        self._accepted: float | None = None
        self._refused = self._blamed = False
        self._said = ""
        self._short_ones = 0  # in a row, with no attempt between them that failed

    @property
    def up(self) -> bool:
        """Whether a broker has accepted this connection."""
        return self._accepted is not None

    def wake(self) -> None:
        """There is something to send. For any thread."""
        if waker := self._waker:
            with contextlib.suppress(OSError):  # awake enough, or ended
                waker.send(b"\0")

    def stop(self) -> None:
        """Disconnect in order, and end. For any thread; does not wait."""
        self._stopping.set()
        self.wake()

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, qos: int = 1) -> int:
        """Send a message on the connection that is up; returns its packet id. Only for the talk's methods."""
        assert self._client
        return self._client.publish(topic, payload, qos=qos, retain=retain).mid

    def drop(self, why: str) -> None:
        """Break the connection, to make a new one. Only for the talk's methods."""
        self._say(f"{why}: connecting again to the MQTT broker at {self._where()}")
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
                self._say(f"{error}; trying again.")
            if self._accepted is not None:
                self.talk.lost(blamed=self._blamed)
                if time.monotonic() - self._accepted >= _LASTING:
                    self._backoff.reset()
            else:
                self._short_ones = 0
            self._accepted = self._client = None
            self._stopping.wait(self._backoff.next())

    def _connection(self, woken: socket.socket) -> None:
        """One connection from its beginning to its end."""
        self._refused = self._blamed = False
        self._client = client = self._make_client()
        settings = self._settings
        try:
            client.connect(settings.host, settings.port, settings.keepalive, properties=_asked_of(settings))
        except (OSError, ValueError) as error:
            tls = " TLS failed:" if isinstance(error, ssl.SSLError) else ""
            self._say(
                f"no MQTT broker answers at {self._where()}:{tls} {error}. Is it running, are mqtt.host and mqtt.port "
                "right? Events are kept; trying again."
            )
            return
        deadline = time.monotonic() + _CONNACK_SECONDS
        while not self._stopping.is_set() and self._serve(client, woken):
            if self._accepted is None and time.monotonic() > deadline:
                self._say(f"{self._where()} gives no MQTT answer. Events are kept; trying again.")
                break
        client.disconnect()
        client.loop_misc()

    def _serve(self, client: paho.Client, woken: socket.socket) -> bool:
        """Wait for something to do, and do it; returns whether the connection still is there."""
        wait = min(_WAIT, max(0.0, self.talk.turn())) if self.up else _WAIT
        open_socket: Any = client.socket()
        if open_socket is None or open_socket.fileno() < 0:
            return False
        if isinstance(open_socket, ssl.SSLSocket) and open_socket.pending():
            wait = 0.0  # already decrypted: select would not tell
        ready, writable, _ = select.select([open_socket, woken], [open_socket] if client.want_write() else [], [], wait)
        if woken in ready:
            woken.recv(4096)
        if writable:
            client.loop_write()
        if open_socket in ready or wait == 0.0:
            client.loop_read()
        client.loop_misc()
        return client.socket() is not None

    def _make_client(self) -> paho.Client:
        client = new_client(self._settings, self._id)
        client.will_set(self._will, "offline", qos=1, retain=True)
        client.max_inflight_messages_set(0)  # the talk counts them
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        return client

    def _on_connect(self, client: paho.Client, _d: Any, _f: Any, reason: ReasonCode, properties: Any) -> None:
        if reason.is_failure:
            hint = (
                'Give mqtt.protocol = "3.1.1"'
                if "protocol" in str(reason).lower()
                else "Check mqtt.username and mqtt.password_file"
            )
            self._refused = True
            self._say(f"the MQTT broker at {self._where()} refuses the connection: {reason}. {hint}; trying again.")
            return
        self._say(f"connected to the MQTT broker at {self._where()}")
        self._accepted = time.monotonic()
        window = getattr(properties, "ReceiveMaximum", _USUAL_WINDOW)
        self.talk.connected(Limits(min(window, _USUAL_WINDOW), getattr(properties, "MaximumPacketSize", None)))
        if self._topics:
            client.subscribe([(topic, 1) for topic in self._topics])

    def _on_disconnect(self, _client: paho.Client, _data: Any, _flags: Any, reason: ReasonCode, _p: Any) -> None:
        if not reason.is_failure or self._refused:
            return
        if not self.up:
            wanted = "a certificate of this device (mqtt.cert_file)" if self._settings.encrypted else "TLS (mqtt.tls)"
            self._say(f"{self._where()} ends the connection without a word. Does it want {wanted}? Trying again.")
        else:
            self._blamed = reason.value in _BLAMING
            hint = " Does another device have the same name?" if self._was_thrown_out(reason) else ""
            self._say(f"lost the MQTT broker at {self._where()}: {reason}.{hint} Events are kept; trying again.")

    def _was_thrown_out(self, reason: ReasonCode) -> bool:
        """Whether another device with this name is likely to be what has ended the connection.

        A broker of MQTT 5 should say so; mosquitto 2.0 closes without a word, as one of 3.1.1 does, and as it looks
        when a network breaks. Then it is likely only when that comes again and again soon after connecting, with no
        attempt between that fails, as it would while a network or a broker is away.
        """
        if reason.value == _TAKEN_OVER:
            return True
        soon = self._accepted is not None and time.monotonic() - self._accepted < _SOON
        self._short_ones = self._short_ones + 1 if soon and reason.value == _WITHOUT_A_WORD else 0
        return self._short_ones >= _SUSPICIOUS

    def _on_subscribe(self, _client: paho.Client, _d: Any, _mid: int, reasons: list[ReasonCode], _p: Any) -> None:
        for topic, reason in zip(self._topics, reasons, strict=False):
            if reason.is_failure:
                _log.warning("the MQTT broker does not let this device listen to %s: %s", topic, reason)

    def _on_publish(self, _client: paho.Client, _data: Any, mid: int, reason: ReasonCode, _p: Properties) -> None:
        self.talk.answered(mid, str(reason) if reason.is_failure else "", everything=reason.value in _ABOUT_THE_DEVICE)

    def _on_message(self, _client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        self.talk.received(message.topic, bytes(message.payload), message.retain)

    def _say(self, sentence: str) -> None:
        """Log a change of the connection; the same failure over and over is logged once."""
        if sentence != self._said:
            self._said = sentence
            _log.warning(sentence)

    def _where(self) -> str:
        return f"{self._settings.host}:{self._settings.port}"


def new_client(settings: MqttSettings, client_id: str) -> paho.Client:
    """A client with the protocol, the user, the password and the certificates that the settings name.

    It starts with a clean session. Raises SettingsError when one of the files cannot be used.
    """
    client = paho.Client(
        CallbackAPIVersion.VERSION2,
        client_id=client_id,
        protocol=_PROTOCOLS[settings.protocol],
        reconnect_on_failure=False,
    )
    try:
        if settings.username:
            file = settings.password_file
            client.username_pw_set(settings.username, Path(file).read_text().rstrip("\n") if file else None)
        if settings.encrypted:
            client.tls_set(
                ca_certs=settings.ca_file or None,
                certfile=settings.cert_file or None,
                keyfile=settings.key_file or None,
            )
    except (OSError, ValueError) as error:
        file = getattr(error, "filename", None) or settings.cert_file or settings.ca_file
        raise SettingsError(f"mqtt: {file} cannot be used: {error}") from error
    return client


def publish_retained(
    settings: MqttSettings, client_id: str, payloads: Mapping[str, bytes], seconds: float = 10.0
) -> None:
    """Connect, publish retained payloads by their topics, wait until the broker has them, and disconnect.

    For commands that are not the service. Raises DeliveryError when that does not come off within ``seconds``.
    """
    where = f"the MQTT broker at {settings.host}:{settings.port}"
    client = new_client(settings, client_id)
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
        raise DeliveryError(f"{where} refuses the connection: {connected[0]}")
    sent = [client.publish(topic, payload, qos=1, retain=True).mid for topic, payload in payloads.items()]
    until(lambda: all(mid in answers for mid in sent))
    client.disconnect()
    if refused := [str(reason) for reason in answers.values() if reason.is_failure]:
        raise DeliveryError(f"{where} refuses the result: {refused[0]}. May this device publish to {min(payloads)}?")


def _asked_of(settings: MqttSettings) -> Properties | None:
    if settings.protocol != "5":
        return None
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.MaximumPacketSize = _LARGEST_RECEIVED
    return properties
