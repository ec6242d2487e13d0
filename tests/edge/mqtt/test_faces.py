from datetime import UTC, datetime

import numpy as np

from edge.events.episodes import Change
from edge.events.factory import EventFactory
from edge.labels import FER2013_LABELS
from edge.model.preprocessing import expression
from edge.mqtt.faces import FacesInView
from edge.mqtt.messages import State
from edge.records import EventKind
from edge.system.clock import Moment

FACTORY, MOMENT = EventFactory(), Moment(datetime(2026, 11, 22, 16, 3, tzinfo=UTC), synced=True)


def time(second: int) -> str:
    return f"2026-11-22T16:03:0{second}.000+00:00"


def test_the_state_says_who_is_in_view_and_since_when() -> None:
    faces = FacesInView()

    def after(second: int, track: int, kind: EventKind, label: str | None = None, certainty: float = 9.0) -> State:
        logits = certainty * np.eye(7)[FER2013_LABELS.index(label)] if label else None
        shown = expression(logits, FER2013_LABELS) if logits is not None else None
        faces.take(FACTORY.event(Change(track, kind, shown, second, None if shown else "blurred"), MOMENT))
        return faces.state

    assert faces.state == State(faces=0), "nobody has come since the start"
    first = after(1, 1, "appeared")
    assert (first.faces, first.expression, first.reason, first.since) == (1, None, "blurred", time(1))
    happy = after(2, 1, "changed", "happy")
    assert (happy.expression, happy.since) == ("happy", time(2))
    assert after(3, 1, "preset", "happy", 3.0) == happy, "or each preset would be one more row in a history"
    assert after(4, 2, "appeared", "sad").since == time(2), "that of the face that has been there longest"
    assert after(5, 1, "left", "happy").since == time(4)
    assert after(6, 2, "left", "sad") == State(faces=0, since=time(6))
