"""Packets of MQTT, as bytes that a broker sends."""


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
