"""A client of paho that bounds the memory of a received packet, and reads many packets in one call of the system.

MQTT 3.1.1 cannot tell a broker the largest size.
"""

import ssl
from contextlib import suppress
from typing import Any, Final

import paho.mqtt.client as paho

from edge.mqtt.websocket_frames import FrameReader

_READ: Final = 8192  # bytes at once
_KEPT: Final = 65_535 + 4 + _READ  # the longest topic, its length and the packet id, and more than any command has
_MOST_AT_ONCE: Final = 200  # packets; what is to be sent must not wait for a flood to end


class BoundedClient(paho.Client):
    """Keeps only the first 72 KB of a packet and its last bytes, so that a payload of 200 MB is not held in memory.

    What is left of such a message is still longer than any command, and is refused as such. So the connection goes on.
    paho collects a packet in ``_in_packet``, in each call of ``_sock_recv`` one part more: it has no public place for
    this. Of a websocket it would keep a whole frame, and copy it at each call, so frames are read here.
    tests/edge/mqtt/test_hostile_broker.py fails when another version works otherwise. It is for one connection.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._received = b""
        self._used = 0
        self._frames = FrameReader()

    @property
    def unread(self) -> bool:
        """Whether there are bytes to read that the socket does not report any more."""
        return self._used < len(self._received)

    def read_packets(self) -> None:
        """Read what has come, to the end of what the system gave at once."""
        self.loop_read()
        for _ in range(_MOST_AT_ONCE):
            if not self.unread or self.socket() is None:
                return
            self.loop_read()

    def _sock_recv(self, bufsize: int) -> bytes:
        del self._in_packet["packet"][_KEPT:]
        if not self.unread:  # paho asks for the first bytes of a packet one by one
            websocket = self.socket() if self.transport == "websockets" else None
            received = self._read_websocket(websocket) if websocket else super()._sock_recv(_READ)
            self._received, self._used = received, 0
        start, self._used = self._used, self._used + bufsize
        return self._received[start : self._used]

    def _read_websocket(self, websocket: Any) -> bytes:
        """The next bytes of MQTT; nothing at the end. Raises BlockingIOError when none have come, and OSError."""
        try:
            received = websocket._socket.recv(_READ)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
            raise BlockingIOError from error
        data = self._frames.feed(received)
        # A ping that comes while a message is half sent is not answered: the answer would be in its middle.
        if (ping := self._frames.take_ping()) is not None and not websocket._sendbuffer:
            with suppress(BlockingIOError):
                websocket._socket.send(websocket._create_frame(websocket.OPCODE_PONG, bytearray(ping)))
        if received and not data and not self._frames.closed:
            raise BlockingIOError
        return data
