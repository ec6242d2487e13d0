"""Packets of MQTT, and frames of a websocket, as bytes that a broker sends."""

import base64
import hashlib
import re


def packet(first: int, length: int) -> bytes:
    """The fixed header of a packet (MQTT 3.1.1, 2.2)."""
    encoded = bytearray()
    while True:
        length, digit = divmod(length, 128)
        encoded.append(digit | (0x80 if length else 0))
        if not length:
            return bytes([first]) + bytes(encoded)


def message(topic: bytes, payload: bytes) -> bytes:
    """A message with QoS 0."""
    body = len(topic).to_bytes(2, "big") + topic + payload
    return packet(0x30, len(body)) + body


def frame(payload: bytes, *, opcode: int = 2, length: int | None = None) -> bytes:
    """A frame of a websocket (RFC 6455, 5.2), or its begin when ``length`` says that more follows."""
    length = len(payload) if length is None else length
    if length < 126:
        encoded = bytes([length])
    elif length < 2**16:
        encoded = b"\x7e" + length.to_bytes(2)
    else:
        encoded = b"\x7f" + length.to_bytes(8)
    return bytes([0x80 | opcode]) + encoded + payload


def upgrade(request: bytes) -> bytes:
    """The answer to the request for a websocket (RFC 6455, 4.2.2)."""
    key = re.search(rb"Sec-WebSocket-Key: (\S+)", request)
    assert key
    accept = base64.b64encode(hashlib.sha1(key[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    return (
        b"HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )
