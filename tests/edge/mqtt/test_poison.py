import pytest

from edge.mqtt.poison import PoisonMessageDetector


def test_messages_in_flight_when_a_cable_is_pulled_are_suspected_at_the_third_time() -> None:
    detector, suspected = PoisonMessageDetector(), []
    for now in range(3):
        assert detector.lost(range(20), now, blamed=False) is None
        suspected.append(detector.one_by_one)
    assert suspected == [False, False, True]


def test_the_poison_message_is_found_among_many_and_held_back_while_others_go_on() -> None:
    detector, waiting, now = PoisonMessageDetector(), list(range(30)), 0.0
    found, losses = None, 0
    while waiting and found is None:
        free = [name for name in waiting if not detector.is_held(name)]
        in_flight = free[: 1 if detector.one_by_one else 20]
        if 7 in in_flight:
            found, losses, now = detector.lost(in_flight, now, blamed=True), losses + 1, now + 1
        else:
            waiting = [name for name in waiting if name not in in_flight]
            for name in in_flight:
                detector.answered(name)
    assert (found, losses) == (7, 4)
    assert detector.is_held(7)
    for name in range(20):
        detector.answered(name) if name != 7 else None
    assert not detector.one_by_one, "the others may go together again"


def test_without_a_reason_from_the_broker_more_losses_are_needed() -> None:
    detector = PoisonMessageDetector()
    assert [detector.lost([1], 0.0, blamed=False) for _ in range(10)] == [None] * 9 + [1]


def test_it_is_tried_again_later_each_time() -> None:
    detector, now, holds = PoisonMessageDetector(), 0.0, []
    for _ in range(5):
        while detector.lost([1], now, blamed=True) is None:
            pass
        began = now
        while not detector.released(now):
            now += 1
        holds.append(now - began)
    assert holds == [600, 1200, 2400, 3600, 3600]


def test_a_message_that_was_answered_is_held_for_ten_minutes_again() -> None:
    detector = PoisonMessageDetector()
    for now in (0.0, 10_000.0):
        while detector.lost([1], now, blamed=True) is None:
            pass
        assert (detector.released(now + 599), detector.released(now + 600)) == ([], [1])
        detector.answered(1)


def test_a_topic_is_held_for_a_minute_at_most() -> None:
    detector, now, holds = PoisonMessageDetector(), 0.0, []
    for _ in range(7):
        while detector.lost(["kiosk/availability"], now, blamed=False) is None:
            pass
        began = now
        while not detector.released(now):
            now += 1
        holds.append(now - began)
    assert holds == [5, 10, 20, 40, 60, 60, 60]


def test_an_answered_message_is_cleared() -> None:
    detector = PoisonMessageDetector()
    for _ in range(9):
        detector.lost([1], 0.0, blamed=False)
    detector.answered(1)
    assert detector.lost([1], 0.0, blamed=False) is None


@pytest.mark.parametrize("name", [1, "kiosk/reply"])
def test_what_was_held_back_and_never_comes_again_is_forgotten(name: int | str) -> None:
    """An event that the full outbox has dropped, or a reply, which is then dropped: no answer will ever clear it."""
    detector, now = PoisonMessageDetector(), 0.0
    while detector.lost([name], now, blamed=True) is None:
        pass
    while not detector.released(now):
        assert not detector.one_by_one
        now += 1
    assert detector.one_by_one, "it may be tried once more"
    detector.released(now + 599)
    assert detector.one_by_one
    detector.released(now + 600)
    assert not detector.one_by_one


def test_what_is_suspected_and_never_comes_again_is_forgotten() -> None:
    detector = PoisonMessageDetector()
    detector.lost([1, 2], 0.0, blamed=True)
    assert detector.one_by_one
    detector.released(599.0)
    assert detector.one_by_one
    detector.released(600.0)
    assert not detector.one_by_one
