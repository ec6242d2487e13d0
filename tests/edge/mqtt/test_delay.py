from datetime import datetime, timedelta

import msgspec
import pytest

from edge.events.factory import to_json
from edge.mqtt.delay import DeliveryDelay
from edge.mqtt.live_events import LiveEvents
from edge.mqtt.messages import DeliveredEvent
from edge.records import Event

HAPPENED = datetime.fromisoformat("2026-11-22T16:03:05.004+00:00")


def event(*, synced: bool = True, number: int = 1) -> Event:
    return Event(
        id=f"a0c2-{number}",
        time=HAPPENED.isoformat(timespec="milliseconds"),
        clock_synced=synced,
        track=1,
        kind="appeared",
        expression=None,
    )


def delivered(made: Event, *, synced: bool, own: bool) -> DeliveredEvent:
    delay = DeliveryDelay(lambda: HAPPENED + timedelta(seconds=71.5), lambda: synced)
    if own:
        delay.happened("a0c2-7")
    return msgspec.json.decode(delay.stamp(to_json(made)), type=DeliveredEvent)


@pytest.mark.parametrize(
    ("synced_then", "synced_now", "own", "late"),
    [
        (True, True, True, 71.5),
        (True, True, False, 71.5),
        (False, False, True, 71.5),  # a network without a time server
        (False, False, False, None),  # the clock may have stood still while the device was off
        (False, True, True, None),  # the clock was set in between
    ],
)
def test_a_delivered_event_says_how_late_it_is_where_the_clock_can_tell(
    synced_then: bool, synced_now: bool, own: bool, late: float | None
) -> None:
    made = event(synced=synced_then)
    found = delivered(made, synced=synced_now, own=own)
    assert found.late == late
    assert (found.id, found.time, found.track) == (made.id, made.time, made.track)


def test_an_event_of_an_older_version_is_delivered_with_an_unknown_delay() -> None:
    assert DeliveryDelay().stamp(b'{"id":"a-1"}') == b'{"id":"a-1","late":null}'


def test_a_clock_that_was_set_back_gives_no_negative_delay() -> None:
    delay = DeliveryDelay(lambda: HAPPENED - timedelta(seconds=5), lambda: True)
    assert msgspec.json.decode(delay.stamp(to_json(event())))["late"] == 0.0


def test_live_events_are_sent_soon_or_not_at_all() -> None:
    now = 1000.0
    live = LiveEvents("t", 10.0, lambda: now)
    live.put(event(number=1))
    now = 1062.0
    live.put(event(number=2))
    now = 1071.5
    sent = [msgspec.json.decode(payload, type=DeliveredEvent) for payload in live.take()]
    assert [(one.id, one.late) for one in sent] == [("a0c2-2", 9.5)]
    assert list(live.take()) == [], "each is sent once"
