"""A client of paho that bounds the memory of a received packet. MQTT 3.1.1 cannot tell a broker the largest size."""

from typing import Final

import paho.mqtt.client as paho

_READ: Final = 8192  # bytes at once
_KEPT: Final = 65_535 + 4 + _READ  # the longest topic, its length and the packet id, and more than any command has


class BoundedClient(paho.Client):
    """Keeps only the first 72 KB of a packet and its last bytes, so that a payload of 200 MB is not held in memory.

    What is left of such a message is still longer than any command, and is refused as such. So the connection goes on.
    paho collects a packet in ``_in_packet``, in each call of ``_sock_recv`` one part more: it has no public place for
    this. tests/edge/mqtt/test_hostile_broker.py fails when another version works otherwise.
    """

    def _sock_recv(self, bufsize: int) -> bytes:
        del self._in_packet["packet"][_KEPT:]
        return super()._sock_recv(min(bufsize, _READ))
