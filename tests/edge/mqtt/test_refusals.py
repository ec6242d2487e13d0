"""When what a broker has refused is tried again, and what is counted and said of it."""

import pytest

from edge.mqtt.backoff import Backoff
from edge.mqtt.faults import FaultBoard
from edge.mqtt.refusals import RefusedEvents, RefusedTopics
from edge.records import Fault


def doubling() -> Backoff:
    """Waits of 1, 2, 4 and at most 8 seconds."""
    return Backoff(1.0, 8.0, chance=lambda: 1.0)


def refused_events() -> tuple[RefusedEvents, list[Fault | None]]:
    faults: list[Fault | None] = []
    return RefusedEvents("kiosk/event", FaultBoard(faults.append), doubling()), faults


def test_an_event_counts_once_a_connection() -> None:
    refused, _ = refused_events()
    for event in (1, 2, 1):
        refused.add(event, "Not authorized")
    assert refused.count == 2
    refused.keep(lambda event: event == 2)  # on a new connection
    for event in (1, 2):
        refused.add(event, "Not authorized")
    assert refused.count == 3


def test_pauses_become_longer_until_an_event_is_accepted() -> None:
    refused, faults = refused_events()
    resumed = []
    for at in (100.0, 200.0, 300.0):
        refused.add(1, "Not authorized")
        refused.pause(at, everything=at == 100.0)
        resumed.append(refused.resume_at)
    assert resumed == [101.0, 202.0, 304.0]
    assert refused.one_by_one, "until one is accepted, whatever is said of others"
    refused.add(2, "Quota exceeded")
    refused.accepted(1)
    assert (refused.one_by_one, bool(refused), bool(faults[-1])) == (False, True, True)
    refused.pause(400.0, everything=False)
    assert (refused.resume_at, refused.one_by_one) == (401.0, False)
    refused.accepted(2)
    assert (bool(refused), faults[-1]) == (False, None)


def test_a_reason_is_logged_once_until_no_event_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    refused, _ = refused_events()
    for event in (1, 2, 1):
        refused.add(event, "Not authorized")
    refused.keep(lambda _event: False)  # on a new connection
    refused.add(1, "Not authorized")
    told = "the MQTT broker refuses events: Not authorized. May this device publish to kiosk/event? They are kept, and "
    assert caplog.messages == [told + "tried again"]
    refused.add(1, "Quota exceeded")
    assert len(caplog.messages) == 2
    refused.accepted(1)
    refused.add(3, "Not authorized")
    assert len(caplog.messages) == 3


def test_refused_topics_are_due_together_after_a_wait_that_doubles() -> None:
    refused = RefusedTopics(doubling())
    assert refused.due(1e9) == []
    refused.postpone("b", 100.0)
    refused.postpone("a", 100.5)
    assert (refused.resume_at, refused.due(100.9)) == (101.0, [])
    assert refused.due(101.0) == ["b", "a"]
    assert (refused.resume_at, refused.due(1e9)) == (None, [])
    refused.postpone("a", 200.0)
    assert refused.resume_at == 202.0
    refused.start_over()
    assert refused.due(1e9) == []
    refused.postpone("a", 300.0)
    assert refused.resume_at == 301.0, "a new connection begins anew"


def test_a_topic_that_was_permitted_again_is_tried_soon_after_its_next_refusal() -> None:
    refused = RefusedTopics(doubling())
    for at in (100.0, 200.0):
        refused.postpone("a", at)
        refused.postpone("b", at)
        assert refused.due(1e9) == ["a", "b"]
    refused.accepted("a")
    refused.accepted("other")
    refused.postpone("b", 300.0)
    assert refused.resume_at == 304.0, "b was not accepted"
    assert refused.due(1e9) == ["b"]
    refused.accepted("b")
    refused.postpone("a", 400.0)
    assert refused.resume_at == 401.0
