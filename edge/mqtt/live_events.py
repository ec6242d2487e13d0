"""Events for readers that act at once: each is sent soon after it happened, or not at all."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from edge.events.factory import to_json
from edge.mqtt.messages import DeliveredEvent
from edge.records import Event

_MOST: Final = 1000


class LiveEvents:
    """Events in memory that are younger than ``max_age`` seconds; a monotonic clock tells, which nobody sets.

    :meth:`put` is for any thread, :meth:`take` for the connection's.
    """

    def __init__(self, topic: str, max_age: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.topic = topic
        self._max_age = max_age
        self._clock = clock
        self._waiting: deque[tuple[float, Event]] = deque(maxlen=_MOST)

    def put(self, event: Event) -> None:
        """Take an event that happens now."""
        self._waiting.append((self._clock(), event))

    def take(self) -> Iterator[bytes]:
        """The payloads of the events that are young enough now; the others are forgotten."""
        while self._waiting:
            happened, event = self._waiting.popleft()
            late = self._clock() - happened
            if late <= self._max_age:
                yield to_json(DeliveredEvent.of(event, round(late, 3)))
