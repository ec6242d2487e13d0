"""The thread that commits events to the outbox, so that the frame loop never waits for a disk."""

import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from edge.mqtt.outbox import FIRST_RETRY, Outbox

_CLEANUP_SECONDS: Final = 60.0


class Committer(threading.Thread):
    """Commits events to an outbox. Events that come while a commit runs go into the next one together.

    ``committed`` is called after each commit, and after each attempt that has failed.
    """

    def __init__(self, outbox: Outbox, committed: Callable[[], None]) -> None:
        super().__init__(name="outbox", daemon=True)
        self._outbox = outbox
        self._committed = committed
        self._changed = threading.Condition()
        self._queue: deque[bytes] = deque()
        self._put = outbox.counts.added
        self._cleanup_asked = self._closing = False

    @property
    def uncommitted(self) -> int:
        """Events that the outbox does not have yet."""
        return self._put - self._outbox.counts.added

    @property
    def undelivered(self) -> int:
        """Those, and what waits in the outbox; none is counted twice on its way from here to there."""
        counts = self._outbox.counts
        return self._put - counts.added + counts.waiting

    def put(self, payload: bytes) -> None:
        """Take an event; returns at once."""
        with self._changed:
            self._queue.append(payload)
            self._put += 1
            self._changed.notify()

    def clean_up(self) -> None:
        """Delete acknowledged events from the disk now."""
        with self._changed:
            self._cleanup_asked = True
            self._changed.notify()

    def close(self, seconds: float) -> None:
        """Commit what is left, and end; waits ``seconds`` at most, because a disk may hang."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self.join(seconds)

    def run(self) -> None:
        """Commit until closed."""
        while True:
            with self._changed:
                patience = _CLEANUP_SECONDS if self._outbox.figures.durable else FIRST_RETRY
                self._changed.wait_for(lambda: self._queue or self._cleanup_asked or self._closing, patience)
                batch = list(self._queue)
                self._queue.clear()
                self._cleanup_asked = False
                closing = self._closing
            if batch:
                self._outbox.add(batch)
            else:
                self._outbox.flush()
            self._committed()
            if closing and not self._queue:
                return
