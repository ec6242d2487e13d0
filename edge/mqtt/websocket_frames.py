"""The payloads in a stream of websocket frames, as they come (RFC 6455, 5.2). Pure.

A broker may send a message of 200 MB in one frame. So no frame is kept until it is complete.
"""

from typing import Final

_CONTINUATION: Final = 0x0
_BINARY: Final = 0x2
_CLOSE: Final = 0x8
_PING: Final = 0x9
_PONG: Final = 0xA
_CONTROL: Final = 0x8  # the bit of an opcode that frames about the connection have
_LONGEST_CONTROL: Final = 125  # bytes
_MASKED: Final = 0x80
_EXTENDED: Final = {126: 2, 127: 8}  # the bytes that a length has which these stand for


class FrameReader:
    """Reads what a server sends. ``closed`` is set when it has ended the connection in order."""

    def __init__(self) -> None:
        self.closed = False
        self._head = bytearray()
        self._control = bytearray()
        self._left: int | None = None  # bytes that are missing of the payload; None while the head is read
        self._ping: bytes | None = None

    def feed(self, received: bytes) -> bytes:
        """Take the next bytes of the stream; returns those of MQTT in them.

        Raises ConnectionError for what no server of MQTT may send.
        """
        data = bytearray()
        while received and not self.closed:
            if self._left is None:
                missing = _head_length(self._head) - len(self._head)
                self._head += received[:missing]
                received = received[missing:]
                if len(self._head) == _head_length(self._head):
                    self._left = self._begin_payload()
            else:
                payload = self._control if self._opcode & _CONTROL else data
                payload += received[: self._left]
                received, self._left = received[self._left :], max(0, self._left - len(received))
            if self._left == 0:
                self._end_frame()
        return bytes(data)

    def take_ping(self) -> bytes | None:
        """The payload of the newest ping that was not taken yet; it is to be sent back."""
        ping, self._ping = self._ping, None
        return ping

    @property
    def _opcode(self) -> int:
        return self._head[0] & 0x0F

    def _begin_payload(self) -> int:
        """The length of the payload that follows the head."""
        length = int.from_bytes(self._head[2:]) if len(self._head) > 2 else self._head[1]
        if self._head[1] & _MASKED or self._opcode not in (_CONTINUATION, _BINARY, _CLOSE, _PING, _PONG):
            raise ConnectionError("the broker's websocket sends what is no frame of MQTT")
        if self._opcode & _CONTROL and length > _LONGEST_CONTROL:
            raise ConnectionError("the broker's websocket sends a control frame that is too long")
        return length

    def _end_frame(self) -> None:
        if self._opcode == _PING:
            self._ping = bytes(self._control)
        self.closed = self._opcode == _CLOSE
        self._head, self._control, self._left = bytearray(), bytearray(), None


def _head_length(head: bytearray) -> int:
    """How long a frame's head is, as far as its first bytes tell."""
    return 2 + (_EXTENDED.get(head[1] & ~_MASKED, 0) if len(head) > 1 else 0)
