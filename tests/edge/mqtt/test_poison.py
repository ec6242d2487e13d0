from edge.mqtt.poison import PoisonMessageDetector


def test_messages_under_way_when_a_cable_is_pulled_once_are_not_suspected() -> None:
    suspects = PoisonMessageDetector()
    assert suspects.lost(range(20), 0.0, blamed=False) is None
    assert not suspects.alone


def test_the_guilty_one_is_found_among_many_and_held_back_while_others_go_on() -> None:
    suspects, waiting, now = PoisonMessageDetector(), list(range(30)), 0.0
    found, losses = None, 0
    while waiting and found is None:
        free = [name for name in waiting if not suspects.held(name)]
        under_way = free[: 1 if suspects.alone else 20]
        if 7 in under_way:
            found, losses, now = suspects.lost(under_way, now, blamed=True), losses + 1, now + 1
        else:
            waiting = [name for name in waiting if name not in under_way]
            for name in under_way:
                suspects.answered(name)
    assert (found, losses) == (7, 4)
    assert suspects.held(7)
    for name in range(20):
        suspects.answered(name) if name != 7 else None
    assert not suspects.alone, "the others may go together again"


def test_without_a_word_of_the_broker_more_losses_are_needed() -> None:
    suspects = PoisonMessageDetector()
    assert [suspects.lost([1], 0.0, blamed=False) for _ in range(10)] == [None] * 9 + [1]


def test_it_is_tried_again_later_each_time() -> None:
    suspects, now, holds = PoisonMessageDetector(), 0.0, []
    for _ in range(5):
        while suspects.lost([1], now, blamed=True) is None:
            pass
        began = now
        while not suspects.released(now):
            now += 1
        holds.append(now - began)
    assert holds == [600, 1200, 2400, 3600, 3600]


def test_whatever_is_answered_is_innocent() -> None:
    suspects = PoisonMessageDetector()
    for _ in range(9):
        suspects.lost([1], 0.0, blamed=False)
    suspects.answered(1)
    assert suspects.lost([1], 0.0, blamed=False) is None


def test_what_is_suspected_and_never_comes_again_is_forgotten() -> None:
    suspects = PoisonMessageDetector()
    suspects.lost([1, 2], 0.0, blamed=True)
    assert suspects.alone
    suspects.released(599.0)
    assert suspects.alone
    suspects.released(600.0)
    assert not suspects.alone
