import gc
import json
import time
from datetime import UTC, datetime, timedelta, timezone

import jsonschema
import numpy as np
import pytest

from edge.events.episodes import Change, EpisodeSpan
from edge.events.factory import EventFactory, to_json
from edge.labels import FER2013_LABELS
from edge.model.preprocessing import expression
from edge.system.clock import Moment, clock_synced, live_time, media_time, moment
from tests.conftest import ROOT

STARTED = datetime(2026, 11, 22, 10, 0, tzinfo=timezone(timedelta(hours=1)))
HAPPY = expression(np.array([0.01, 0.0, 0.02, 0.9, 0.01, 0.04, 0.02]), FER2013_LABELS)
SAMPLES = ROOT / "tests" / "golden" / "events.jsonl"


def made() -> list[bytes]:
    factory = EventFactory(run_id="0123456789ab")
    changes = [
        Change(1, "appeared", None, 0.5, "blurred"),
        Change(1, "changed", HAPPY, 62.25),
        Change(1, "preset", HAPPY, 63.5, None, EpisodeSpan("happy", 62.0, 1.5, 0.93456, 0.91), "smile"),
        Change(1, "uncertain", None, 65.25, "low margin", EpisodeSpan("happy", 62.0, 2.25, 0.93456, 0.85)),
        Change(1, "left", None, 3600.0, "low margin"),
    ]
    return [to_json(factory.event(change, Moment(STARTED, True))) for change in changes]


def test_the_golden_samples_are_reproduced_byte_for_byte() -> None:
    assert b"".join(line + b"\n" for line in made()) == SAMPLES.read_bytes()


SCHEMA = json.loads((ROOT / "docs" / "event.schema.json").read_text())


def test_samples_fit_the_committed_schema_also_without_a_delay() -> None:
    for line in made():
        jsonschema.validate(json.loads(line), SCHEMA)


@pytest.mark.parametrize(
    ("key", "value"), [("kind", "vanished"), ("track", "one"), ("expression", {}), ("id", None), ("reason", "bored")]
)
def test_the_schema_refuses_what_is_no_event(key: str, value: object) -> None:
    event = json.loads(made()[0]) | {key: value}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(event, SCHEMA)


def test_two_runs_never_share_an_id() -> None:
    ids = {EventFactory().next_id() for _ in range(50)}
    assert len(ids) == 50


def test_a_cameras_second_0_stays_when_it_was_opened() -> None:
    before = datetime.now(UTC)
    origin = live_time()
    after = datetime.now(UTC)
    time.sleep(0.2)
    slack = timedelta(milliseconds=5)  # clocks are slewed
    assert before - slack <= origin() <= after + slack
    assert origin().tzinfo is not None


def test_a_moment_tells_milliseconds_and_the_zone() -> None:
    exact = STARTED + timedelta(microseconds=999_999)
    now = moment(media_time(exact))
    assert now.origin == STARTED + timedelta(milliseconds=999)
    assert now.text(1.0004) == "2026-11-22T10:00:01.999+01:00"


def test_the_kernel_answers_whether_the_clock_is_set() -> None:
    assert clock_synced() in (True, False)


def test_asking_the_clock_leaves_nothing_for_the_cyclic_collector() -> None:
    """It is asked for each event, for years: what only that collector frees lies about meanwhile."""
    clock_synced()
    gc.collect()
    gc.disable()
    try:
        for _ in range(20):
            clock_synced()
        assert gc.collect() == 0
    finally:
        gc.enable()
