import numpy as np
import pytest

from export.quantization.parity import NetworkForm, ParityError, check_parity, compare_forms

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
    there[:2] = np.roll(there[:2], 2, axis=1)
    labels = LABELS.copy()
    labels[1] = there[1].argmax()
    forms = [NetworkForm("float", here.astype(np.float32), same_weights=False), NetworkForm("int8", there)]
    check_parity(forms, compare_forms(forms, labels))
    with pytest.raises(ParityError, match=r"accuracies differ by -1\.00 points"):
        check_parity(forms, compare_forms(forms, LABELS))


def test_differences_are_counted_in_steps_and_ties_are_seen() -> None:
    here, there = logits(10, 10), logits(10, 10)
    there[0, LABELS[0]] += 3
    [pair] = compare_forms([NetworkForm("a", here), NetworkForm("b", there)], LABELS)
    assert pair.histogram == (1399, 0, 0, 1)
    assert pair.ties == 200
