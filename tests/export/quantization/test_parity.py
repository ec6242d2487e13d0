import contextlib

import numpy as np
import pytest

from export.quantization.parity import FormPair, NetworkForm, ParityError, chance_of_loss, check_parity, compare_forms

LABELS = np.arange(200) % 7


def logits(top: int, second: int) -> np.ndarray:
    """Every face named as labelled, its first two logits ``top`` and ``second``."""
    made = np.zeros((200, 7), np.int8)
    made[np.arange(200), LABELS] = top
    made[np.arange(200), (LABELS + 1) % 7] = second
    return made


def test_a_swap_of_two_nearly_equal_logits_is_rounding() -> None:
    here, there = logits(10, 7), logits(10, 7)
    there[0] = np.roll(there[0], 1)
    forms = [NetworkForm("a", here), NetworkForm("b", there)]
    [pair] = compare_forms(forms, LABELS)
    assert (pair.agreement, pair.clear, pair.ties) == (0.995, 0, 0)
    assert pair.points == pytest.approx(-0.5)
    check_parity(forms, [pair])


def test_a_swap_of_two_clearly_different_logits_is_not() -> None:
    here, there = logits(10, 2), logits(10, 2)
    there[:2] = np.roll(there[:2], 2, axis=1)
    labels = LABELS.copy()
    labels[1] = there[1].argmax()  # the accuracies are the same
    forms = [NetworkForm("a", here), NetworkForm("b", there)]
    with pytest.raises(ParityError, match=r"a and b: agree on 99\.00% of the 200 faces that are clear"):
        check_parity(forms, compare_forms(forms, labels))


def test_a_network_that_was_trained_on_is_only_held_to_its_accuracy() -> None:
    here, there = logits(10, 2), logits(10, 2)
    there[:7] = np.roll(there[:7], 2, axis=1)
    labels = LABELS.copy()
    labels[:3] = there[:3].argmax(axis=1)
    forms = [NetworkForm("float", here.astype(np.float32), same_weights=False), NetworkForm("int8", there)]
    check_parity(forms, compare_forms(forms, labels))
    loss = r"float and int8: accuracies differ by -3\.50 points, .* on 200 faces \(7 lost, 0 gained"
    with pytest.raises(ParityError, match=loss):
        check_parity(forms, compare_forms(forms, LABELS))


@pytest.mark.parametrize(
    ("n", "lost", "gained"), [(150, 1, 0), (150, 2, 1), (27, 2, 0), (27, 0, 2), (3589, 0, 300), (2000, 10, 0)]
)
def test_neither_a_gain_nor_a_loss_that_is_small_or_that_chance_explains_is_refused(
    n: int, lost: int, gained: int
) -> None:
    check_parity(*_changed(n, lost, gained))


@pytest.mark.parametrize(("n", "lost", "gained"), [(27, 7, 0), (150, 20, 5), (3589, 19, 0), (3589, 300, 200)])
def test_a_loss_that_chance_does_not_explain_is_refused(n: int, lost: int, gained: int) -> None:
    with pytest.raises(ParityError, match=rf"on {n} faces \({lost} lost, {gained} gained\)"):
        check_parity(*_changed(n, lost, gained))


def _changed(n: int, lost: int, gained: int) -> tuple[list[NetworkForm], list[FormPair]]:
    """Two networks on ``n`` faces: the second loses the first ``lost`` of them, and gains the next ``gained``."""
    labels = np.zeros(n, np.int64)
    here, there = np.zeros((n, 7), np.float32), np.zeros((n, 7), np.int8)
    here[:, 0] = there[:, 0] = 9
    there[:lost, 1] = 99
    here[lost : lost + gained, 1] = 99
    forms = [NetworkForm("float", here, same_weights=False), NetworkForm("int8", there)]
    return forms, compare_forms(forms, labels)


def test_one_clear_face_of_few_may_differ() -> None:
    here, there = logits(10, 2)[:150], logits(10, 2)[:150]
    there[0] = np.roll(there[0], 2)
    forms = [NetworkForm("a", here), NetworkForm("b", there)]
    check_parity(forms, compare_forms(forms, LABELS[:150]))
    there[1] = np.roll(there[1], 2)
    with pytest.raises(ParityError, match=r"agree on 98\.67% of the 150 faces that are clear"):
        check_parity(forms, compare_forms(forms, LABELS[:150]))


@pytest.mark.parametrize(("second", "clear"), [(5, 200), (6, 0)])
def test_faces_whose_first_two_logits_are_more_than_four_steps_apart_are_clear(second: int, clear: int) -> None:
    [pair] = compare_forms([NetworkForm("a", logits(10, second)), NetworkForm("b", logits(10, 2))], LABELS)
    assert (pair.clear, pair.clear_agreement) == (clear, 1.0 if clear else 0.0)


@pytest.mark.parametrize(("n", "refused"), [(400, False), (399, True)])
def test_two_clear_faces_may_differ_where_they_are_no_more_than_half_a_percent(n: int, refused: bool) -> None:
    here = np.tile([[10, 2, 0, 0, 0, 0, 0]], (n, 1)).astype(np.int8)
    there = here.copy()
    there[:2] = np.roll(there[:2], 2, axis=1)
    labels = np.array([2, *[0] * (n - 1)])  # each form is right about one of both
    forms = [NetworkForm("a", here), NetworkForm("b", there)]
    with pytest.raises(ParityError, match="agree on") if refused else contextlib.nullcontext():
        check_parity(forms, compare_forms(forms, labels))


def test_steps_are_those_of_int8_logits_alone() -> None:
    unclear, clear = logits(10, 10), logits(10, 2)
    pair, of_floats = (
        compare_forms([NetworkForm("float", unclear.astype(np.float32)), NetworkForm("other", other)], LABELS)[0]
        for other in (clear, clear.astype(np.float32))
    )
    assert (pair.clear, pair.ties, pair.histogram) == (200, 0, ())
    assert (of_floats.clear, of_floats.ties, of_floats.histogram) == (0, 0, ())


def test_chance_is_that_of_coins() -> None:
    assert [chance_of_loss(*counts) for counts in ((0, 0), (1, 0), (0, 1), (2, 1), (7, 0))] == [1, 0.5, 1, 0.5, 2**-7]


def test_differences_are_counted_in_steps_and_ties_too() -> None:
    here, there = logits(10, 10), logits(10, 10)
    there[0, LABELS[0]] += 3
    [pair] = compare_forms([NetworkForm("a", here), NetworkForm("b", there)], LABELS)
    assert pair.histogram == (1399, 0, 0, 1)
    assert pair.ties == 200
