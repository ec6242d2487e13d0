"""The topics that a device listens to: asked for on each connection, and again while the broker refuses them."""

from collections.abc import Sequence

import paho.mqtt.client as paho
from paho.mqtt.reasoncodes import ReasonCode

from edge.mqtt.backoff import Backoff
from edge.mqtt.refusals import RefusedTopics


class Subscriptions:
    """Asks for topics. Only the connection's thread uses it. Times are monotonic, in seconds."""

    def __init__(self, topics: Sequence[str], backoff: Backoff) -> None:
        self._topics = topics
        warning = "the MQTT broker does not let this device listen to %s: %s. Let it read this topic"
        self._refused = RefusedTopics(backoff, warning)
        self._asked: dict[int, Sequence[str]] = {}

    def begin(self, client: paho.Client) -> None:
        """Ask for every topic, on a new connection."""
        self._asked.clear()
        self._refused.start_over()
        self._ask(client, self._topics)

    def ask_again(self, client: paho.Client, at: float) -> None:
        """Ask again for the topics that were refused, if it is time to."""
        self._ask(client, self._refused.due(at))

    def answered(self, mid: int, reasons: Sequence[ReasonCode], at: float) -> None:
        """Take the broker's answers to the packet with this id, one for each topic."""
        for topic, reason in zip(self._asked.pop(mid, ()), reasons, strict=False):
            if reason.is_failure:
                self._refused.add(topic, str(reason))
                self._refused.postpone(topic, at)
            else:
                self._refused.accepted(topic)

    def _ask(self, client: paho.Client, topics: Sequence[str]) -> None:
        if topics:
            _, mid = client.subscribe([(topic, 1) for topic in topics])
            if mid is not None:  # it is None when the connection has just ended
                self._asked[mid] = topics
