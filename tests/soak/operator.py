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
        self.deciding = threading.Lock()
        """Held while a command about the camera is decided and sent: no opening comes after a pause that it ignored."""
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
    gives None while no process answers, ``starts`` is how many processes there were. ``opened`` is called with the
    number of the process to which the command was sent, when it has replied that the opening is stored.
    """

    def __init__(
        self,
        operator: Operator,
        is_closed: Callable[[], bool | None],
        excuse: Callable[[], str],
        starts: Callable[[], int],
        opened: Callable[[int], None],
    ) -> None:
        super().__init__(name="keeper", daemon=True)
        self.reopened: list[str] = []
        """The reason of each time."""
        self.violations: list[str] = []
        self._operator, self._is_closed, self._excuse = operator, is_closed, excuse
        self._starts, self._opened = starts, opened
        self._asked: int | None = None  # the number of the process to which a command was sent that is not answered
        self._commands = 0
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(_POLL_SECONDS):
            if self.look():
                self._ended.wait(_RESEND_SECONDS)

    def look(self) -> bool:
        """Open the camera if it is closed against the operator's wish; returns whether a command was sent."""
        pauses, starts = self._operator.pauses, self._starts()
        closed = self._is_closed() if self._operator.wants_open else None
        with self._operator.deciding:
            if closed is None or not self._operator.wants_open or self._operator.pauses != pauses:
                return False  # nobody can tell, or it was paused meanwhile
            if self._asked is not None and not closed and self._is_stored():
                self._opened(self._asked)
                self._asked = None
            if self._asked is None:
                if not closed:
                    return False
                self._note_reason()
            self._send(starts)
        return True

    def _note_reason(self) -> None:
        reason = self._excuse()
        if reason:
            self.reopened.append(reason)
        else:
            self.violations.append("the camera was closed although nobody asked for it")

    def _is_stored(self) -> bool:
        """Whether the last command was carried out, and a restart will know of it."""
        return any(reply["id"] == self._id and reply["ok"] for reply in list(self._operator.replies))

    @property
    def _id(self) -> str:
        return f"keeper{self._commands}"

    def _send(self, starts: int) -> None:
        self._asked = starts
        self._commands += 1
        self._operator.send("pause", b'{"on":false,"id":"%s"}' % self._id.encode())

    def close(self) -> None:
        self._ended.set()
        self.join()
