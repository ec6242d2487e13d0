"""The faults that a device has now, of which one is published as retained."""

import threading
from collections.abc import Callable
from typing import Literal, TypeAlias

from edge.records import Fault

FaultSource: TypeAlias = Literal["service", "model", "accelerator", "outbox", "broker", "state", "loss"]
"""What can have a fault: each has one or none. A loss of events has happened and stays until the next start."""


class FaultBoard:
    """Keeps one fault or none of each source, and publishes the one that began first; a loss gives way to all others.

    ``publish`` takes the fault whenever it may have changed, or None for none. Every method may be
    called by any thread: the frame loop, the metrics thread, the outbox's and the connection's all use it.
    """

    def __init__(self, publish: Callable[[Fault | None], None]) -> None:
        self._publish = publish
        self._lock = threading.Lock()
        self._faults: dict[FaultSource, Fault] = {}
        self._closed = False

    @property
    def code(self) -> int | None:
        """The code of the fault that is published; None when there is none."""
        with self._lock:
            first = self._first()
        return first.code if first else None

    def set(self, source: FaultSource, fault: Fault | None) -> None:
        """Set the fault of a source; None clears it. A repeated code and sentence keep the time of the first."""
        with self._lock:
            current = self._faults.get(source)
            if fault is None and current is None and source != "service":
                return  # the service alone also clears what another process has left on the broker
            if fault and self._closed:
                return
            if fault and current and (fault.code, fault.sentence) == (current.code, current.sentence):
                return
            if fault:
                self._faults[source] = fault
            else:
                self._faults.pop(source, None)
            self._publish_first()

    def close(self) -> None:
        """Clear all faults but the service's, which says why it ended, and accept no more."""
        with self._lock:
            self._closed = True
            ended = [source for source in self._faults if source != "service"]
            for source in ended:
                del self._faults[source]
            if ended:
                self._publish_first()

    def _publish_first(self) -> None:
        self._publish(self._first())

    def _first(self) -> Fault | None:
        """The fault that is published; dictionaries keep the order of insertion. The caller holds the lock."""
        lasting = (fault for source, fault in self._faults.items() if source != "loss")
        return next(lasting, self._faults.get("loss"))
