"""Subscribers to a real broker."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.conftest import wait_until


class Listener:
    """A subscriber that records every message: (topic, payload, retained). With a ``name`` its session outlives it."""

    def __init__(self, port: int, name: str = "", user: tuple[str, str] | None = None) -> None:
        self.messages: list[tuple[str, str, bool]] = []
        self._ids: list[str] = []
        self._ready = False
        self.client = paho.Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=paho.MQTTv5)
        self.client.reconnect_delay_set(1, 1)
        self.client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        self.client.on_subscribe = lambda *_: setattr(self, "_ready", True)
        self.client.on_message = lambda _c, _d, message: self._note(message)
        if user:
            self.client.username_pw_set(*user)
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 3600 if name else 0
        self.client.connect("127.0.0.1", port, clean_start=not name, properties=properties)
        self.client.loop_start()
        wait_until(lambda: self._ready, 5)

    def of(self, topic: str) -> list[str]:
        return [payload for heard, payload, _retained in self.messages if heard == f"fer-edge/kiosk/{topic}"]

    def last(self, topic: str) -> str | None:
        return next(iter(self.of(topic)[::-1]), None)

    def json(self, topic: str) -> list[dict[str, Any]]:
        return [json.loads(payload) for payload in self.of(topic) if payload]

    def ids(self) -> list[str]:
        """Of all events so far; read as they come, since tests ask for thousands again and again."""
        return list(self._ids)

    def _note(self, message: paho.MQTTMessage) -> None:
        payload = message.payload.decode()
        self.messages.append((message.topic, payload, message.retain))
        if message.topic == "fer-edge/kiosk/event":
            self._ids.append(json.loads(payload)["id"])

    def send(self, topic: str, payload: str = "", *, retain: bool = False) -> None:
        self.client.publish(f"fer-edge/kiosk/{topic}", payload, qos=1, retain=retain).wait_for_publish(5)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@contextmanager
def listening(port: int, name: str = "", user: tuple[str, str] | None = None) -> Iterator[Listener]:
    listener = Listener(port, name, user)
    try:
        yield listener
    finally:
        listener.close()
