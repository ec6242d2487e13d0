import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edge.events.aggregate import AggregateCounter, IntervalCounts
from edge.events.episodes import Change
from edge.labels import FER2013_LABELS
from edge.model.preprocessing import expression
from edge.records import EventKind
from edge.settings import PrivacySettings

PRIVACY = PrivacySettings(aggregate_only=True, interval_seconds=60, minimum_people=3)


def change(track: int, kind: EventKind, label: str | None = None, name: str | None = None) -> Change:
    shown = expression(np.eye(7)[FER2013_LABELS.index(label)], FER2013_LABELS) if label else None
    return Change(track, kind, shown, 0.0, None if shown else "blurred", None, name)


def test_people_are_counted_over_an_interval_also_those_who_came_before() -> None:
    counter = AggregateCounter(PRIVACY)
    assert list(counter.update([change(track, "appeared", "happy") for track in (1, 2, 3)], 10)) == []
    assert list(counter.update([change(1, "left", "happy")], 20)) == []
    assert list(counter.update([change(4, "appeared", "sad")], 59.9)) == []
    assert list(counter.update([], 60)) == [IntervalCounts(60, 60, 4, {"happy": 3}, {})]
    assert list(counter.update([], 120.5)) == [IntervalCounts(120, 60, 3, {}, {})], "two still happy: no count of them"


def test_fewer_than_the_minimum_are_not_reported_at_all() -> None:
    counter = AggregateCounter(PRIVACY)
    list(counter.update([change(1, "appeared", "happy"), change(2, "appeared", "happy")], 1))
    assert list(counter.update([], 61)) == [IntervalCounts(60, 60, None, {}, {})]
    assert list(counter.end(90)) == [], "a run that is cut short says nothing"


def test_an_interval_with_nobody_is_reported_like_one_with_too_few() -> None:
    """The count of before used to stay for ever; and a 0 for nobody would tell of one person where it is missing."""
    counter = AggregateCounter(PRIVACY)
    list(counter.update([change(track, "appeared") for track in (1, 2, 3)], 1))
    assert [one.people for one in counter.update([change(track, "left") for track in (1, 2, 3)], 61)] == [3]
    list(counter.update([], 121))
    assert [one.people for one in counter.update([], 181)] == [None]


def test_presets_and_changes_count_people_and_not_times() -> None:
    counter = AggregateCounter(PRIVACY)
    for track in (1, 2, 3):
        first = [change(track, "appeared"), change(track, "changed", "happy"), change(track, "uncertain")]
        again = [change(track, "changed", "happy"), change(track, "preset", "happy", "smile")] * 2
        list(counter.update([*first, *again], 5))
    assert list(counter.end(30.5)) == [IntervalCounts(30.5, 30.5, 3, {"happy": 3}, {"smile": 3})]


def test_after_a_long_silence_intervals_still_begin_on_time() -> None:
    counter = AggregateCounter(PRIVACY)
    list(counter.update([], 1000))
    list(counter.update([change(track, "appeared", "happy") for track in (1, 2, 3)], 1001))
    assert list(counter.update([], 1020.1)) == [IntervalCounts(1020, 60, 3, {"happy": 3}, {})]


def test_intervals_without_a_frame_are_reported_too() -> None:
    """Recordings by motion have gaps, and some cameras send a picture an hour: no interval may be silent."""
    counter = AggregateCounter(PRIVACY)
    everybody = (1, 2, 3)
    list(counter.update([change(track, "appeared", "happy") for track in everybody], 10))
    left = [change(track, "left", "happy") for track in everybody]
    assert list(counter.update(left, 200)) == [
        IntervalCounts(60, 60, 3, {"happy": 3}, {}),
        IntervalCounts(120, 60, None, {}, {}),
        IntervalCounts(180, 60, None, {}, {}),
    ]
    assert [one.end for one in counter.update([], 360)] == [240, 300, 360]


@given(st.floats(10, 86_400), st.lists(st.floats(0, 100_000)))
def test_each_interval_is_reported_once(seconds: float, times: list[float]) -> None:
    counter = AggregateCounter(PrivacySettings(aggregate_only=True, interval_seconds=seconds))
    ends = [one.end for now in sorted(times) for one in counter.update([], now)]
    assert ends == [(number + 1) * seconds for number in range(len(ends))]
    assert max(times, default=0) < (len(ends) + 1) * seconds


@given(
    st.lists(
        st.tuples(
            st.integers(1, 6),
            st.sampled_from(["appeared", "changed", "uncertain", "left"]),
            st.sampled_from([None, "happy", "sad"]),
            st.integers(0, 40),
        )
    )
)
def test_no_count_is_ever_below_the_minimum(story: list[tuple[int, EventKind, str | None, int]]) -> None:
    counter = AggregateCounter(PRIVACY)
    now, intervals = 0.0, []
    for track, kind, label, later in story:
        now += later
        intervals += counter.update([change(track, kind, label)], now)
    intervals += counter.end(now)
    for tally in intervals:
        assert min([tally.people or 3, *tally.expressions.values(), *tally.presets.values()]) >= 3
