"""Who sends commands to the device, and opens its camera again when it had to close it."""

import json
import threading
from collections.abc import Callable
from typing import Final

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

STORED_OPENINGS: Final = 100
"""So many openings a process stores at once (docs/mqtt.md). After more, a kill leaves the camera closed."""

_POLL_SECONDS: Final = 0.5
_RESEND_SECONDS: Final = 2.1  # the device accepts one command every two seconds


class Operator:
    """Sends commands past the proxy, and records replies, availability and faults."""

    def __init__(self, port: int, password: str) -> None:
        self.replies: list[dict[str, object]] = []
        self.last: dict[str, str] = {}
        self.wants_open = True
        """Whether the last command about the camera that was carried out has opened it."""
        self.pauses = 0
        """How often it was paused."""
        self.openings = 0
        """How many of those the process that runs has carried out."""
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.username_pw_set("operator", password)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *_: client.subscribe("fer-edge/kiosk/+", qos=1)
        self._client.on_message = self._note
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def send(self, command: str, payload: bytes, *, retain: bool = False) -> None:
        self._client.publish(f"fer-edge/kiosk/command/{command}", payload, qos=0, retain=retain)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _note(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        name = message.topic.rpartition("/")[2]
        if name == "reply":
            self.replies.append(json.loads(message.payload))
        elif name in ("availability", "fault"):
            self.last[name] = message.payload.decode()


class Keeper(threading.Thread):
    """Opens the camera when the device keeps it closed although the operator has opened it.

    That is right only for a reason: ``excuse`` gives it. Without one, ``violations`` gets a sentence. ``is_closed``
    gives None while no process answers. ``opened`` is called when the camera is open again.
    """

    def __init__(
        self,
        operator: Operator,
        is_closed: Callable[[], bool | None],
        excuse: Callable[[], str],
        opened: Callable[[], None],
    ) -> None:
        super().__init__(name="keeper", daemon=True)
        self.reopened: list[str] = []
        """The reason of each time."""
        self.violations: list[str] = []
        self._operator, self._is_closed, self._excuse, self._opened = operator, is_closed, excuse, opened
        self._opening = False
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(_POLL_SECONDS):
            if self.look():
                self._ended.wait(_RESEND_SECONDS)

    def look(self) -> bool:
        """Open the camera if it is closed against the operator's wish; returns whether that was needed."""
        pauses = self._operator.pauses
        closed = self._is_closed() if self._operator.wants_open else None
        if closed is None or not self._operator.wants_open or self._operator.pauses != pauses:
            return False  # nobody can tell, or it was paused meanwhile
        if not closed:
            if self._opening:
                self._opened()
            self._opening = False
            return False
        if not self._opening:  # else the command did not arrive
            reason = self._excuse()
            if reason:
                self.reopened.append(reason)
            else:
                self.violations.append("the camera was closed although nobody asked for it")
        self._send()
        return True

    def _send(self) -> None:
        self._opening = True
        self._operator.send("pause", b'{"on":false,"id":"keeper"}')

    def close(self) -> None:
        self._ended.set()
        self.join()
