"""A client of paho that bounds the memory of a received packet, and reads many packets in one call of the system.

MQTT 3.1.1 cannot tell a broker the largest size.
"""

from typing import Any, Final

import paho.mqtt.client as paho

_READ: Final = 8192  # bytes at once
_KEPT: Final = 65_535 + 4 + _READ  # the longest topic, its length and the packet id, and more than any command has
_MOST_AT_ONCE: Final = 200  # packets; what is to be sent must not wait for a flood to end


class BoundedClient(paho.Client):
    """Keeps only the first 72 KB of a packet and its last bytes, so that a payload of 200 MB is not held in memory.

    What is left of such a message is still longer than any command, and is refused as such. So the connection goes on.
    paho collects a packet in ``_in_packet``, in each call of ``_sock_recv`` one part more: it has no public place for
    this. tests/edge/mqtt/test_hostile_broker.py fails when another version works otherwise.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._received = b""
        self._used = 0

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
            self._received, self._used = super()._sock_recv(_READ), 0
        start, self._used = self._used, self._used + bufsize
        return self._received[start : self._used]
