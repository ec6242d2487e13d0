"""Which faces are in view, as the events have told, and the state that follows from it."""

from edge.mqtt.messages import State
from edge.records import Event


class FacesInView:
    """Takes events and gives the state that they lead to."""

    def __init__(self) -> None:
        self._last: dict[int, Event] = {}
        self._left_at: str | None = None

    def take(self, event: Event) -> None:
        """Take the next event."""
        if event.kind == "left":
            self._last.pop(event.track, None)
            self._left_at = event.time
        elif event.kind != "preset":  # it changes nothing about the face
            self._last[event.track] = event

    def clear(self) -> None:
        """No face is in view any more, without an event that says so."""
        self._last.clear()

    @property
    def state(self) -> State:
        """The state now."""
        track = min(self._last, default=None)
        if track is None:
            return State(faces=0, since=self._left_at)
        last = self._last[track]
        label, confidence = (last.expression.label, last.expression.confidence) if last.expression else (None, None)
        return State(len(self._last), track, label, confidence, last.reason, last.time)
