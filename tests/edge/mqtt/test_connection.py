import pytest

from edge.mqtt.backoff import Backoff
from edge.mqtt.connection import TakeoverDetector


def test_waits_are_random_below_a_limit_that_doubles() -> None:
    chances = iter([1.0, 1.0, 1.0, 0.0, 0.5, 1.0, 1.0])
    backoff = Backoff(2, 60, lambda: next(chances))
    assert [backoff.next() for _ in range(7)] == pytest.approx([2, 4, 8, 1.6, 17.6, 60, 60])


def test_it_begins_anew_after_a_success() -> None:
    backoff = Backoff(2, 60, lambda: 1.0)
    for _ in range(10):
        backoff.next()
    backoff.reset()
    assert backoff.next() == 2


def test_a_year_of_failures_is_no_problem() -> None:
    backoff = Backoff(2, 60, lambda: 1.0)
    for _ in range(100_000):
        last = backoff.next()
    assert last == 60


def test_a_thousand_devices_do_not_come_back_at_once() -> None:
    waits = sorted(Backoff().next() for _ in range(1000))
    assert waits[0] >= 0.2
    assert max(sum(at <= wait < at + 0.1 for wait in waits) for at in (0.2, 0.5, 1.0, 1.5)) < 120


def test_another_device_is_named_only_when_the_broker_says_so() -> None:
    detector = TakeoverDetector()
    assert "Another device has connected" in detector.ended(0x8E, 0.1)
    assert [detector.ended(0x80, 0.15) for _ in range(2)] == ["", ""]
    unexplained = detector.ended(0x80, 0.15)
    assert "is the network bad, or" in unexplained, "a cutting network looks the same: both causes are named"
    assert detector.ended(0x89, 0.15) == "", "the broker gave another reason"
