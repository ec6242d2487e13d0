"""The acceptance threshold against the definition of Fisher's exact test."""

from math import ceil, comb

import msgspec
import pytest

from edge.evaluation.acceptance import (
    SIGNIFICANCE_LEVEL,
    acceptance_threshold,
    faces_needed,
    fisher_p_value,
    min_correct,
)
from edge.model.bundle import Tolerance, find_bundle, open_bundle


def p_value_by_counting(right: int, n: int, right_before: int, n_before: int) -> float:
    """The hypergeometric distribution, added up from its definition."""
    all_right = right + right_before
    ways = [
        comb(n, k) * comb(n_before, all_right - k) for k in range(min(n, all_right) + 1) if all_right - k <= n_before
    ]
    several = sum(comb(n, k) * comb(n_before, all_right - k) for k in range(right + 1) if all_right - k <= n_before)
    return several / sum(ways)


@pytest.mark.parametrize("right", range(10))
def test_the_p_value_is_that_of_the_hypergeometric_distribution(right: int) -> None:
    assert fisher_p_value(right, 15, 40, 60) == pytest.approx(p_value_by_counting(right, 15, 40, 60))


@pytest.mark.parametrize(("n", "right", "before"), [(100, 66, 100), (3589, 2359, 3589), (7, 3589, 3589), (20000, 1, 9)])
def test_the_fewest_correct_are_where_the_p_value_crosses_the_significance_level(
    n: int, right: int, before: int
) -> None:
    least = min_correct(n, right, before)
    assert least == 0 or fisher_p_value(least - 1, n, right, before) < SIGNIFICANCE_LEVEL
    assert fisher_p_value(least, n, right, before) >= SIGNIFICANCE_LEVEL


def test_two_faces_cannot_fail() -> None:
    assert min_correct(2, 2359, 3589) == 0
    card = open_bundle(find_bundle("student-small")).card
    threshold = acceptance_threshold(card, 2, same_faces=False, runtime="any 1.0", machine="aarch64")
    stated = f"the card's {card.figures.accuracy:.2%}"
    assert threshold.describe(0.0, 2).startswith(
        f"0.00% is not clearly below {stated}: on 2 other faces, chance explains any result"
    )


@pytest.mark.parametrize(("less", "verdict"), [(0, "reaches"), (1, "is not clearly below"), (60, "is worse than")])
def test_the_sentence_says_how_the_accuracy_compares_with_the_card(less: int, verdict: str) -> None:
    card = open_bundle(find_bundle("student-small")).card
    right = ceil(card.figures.accuracy * 400) - less
    threshold = acceptance_threshold(card, 400, same_faces=False, runtime="any 1.0", machine="aarch64")
    stated = f"the card's {card.figures.accuracy:.2%}"
    assert threshold.describe(right / 400, 400).startswith(f"{right / 400:.2%} {verdict} {stated}: on 400 other")


def test_smaller_losses_need_more_faces_until_the_cards_own_faces_are_too_few() -> None:
    accuracy, n_before = 0.657, 3589
    needed = faces_needed(0.03, accuracy, n_before)
    assert needed is not None
    assert accuracy - min_correct(needed, round(accuracy * n_before), n_before) / needed == pytest.approx(
        0.03, abs=0.002
    )
    assert faces_needed(0.01, accuracy, n_before) is None


@pytest.mark.parametrize(
    ("accuracy", "n_before", "loss"), [(1.0, 120, 0.05), (1.0, 1000, 0.03), (0.99, 300, 0.03), (0.95, 300, 0.05)]
)
def test_a_card_that_is_nearly_always_right_names_enough_faces(accuracy: float, n_before: int, loss: float) -> None:
    """With an accuracy of 1 no number of faces was said to do; with 0.99 a quarter of those that do."""
    needed = faces_needed(loss, accuracy, n_before)
    assert needed is not None
    explained = accuracy - min_correct(needed, round(accuracy * n_before), n_before) / needed
    assert explained <= 1.1 * loss


@pytest.mark.parametrize(
    ("runtime", "machine", "loss"),
    [
        ("ai-edge-litert 2.3.0", "x86_64", 0.001),
        ("tflite-runtime 2.14.0", "x86_64", 0.006),
        ("something new 1.0", "aarch64", 0.006),
    ],
)
def test_on_the_cards_own_faces_only_rounding_is_tolerated(runtime: str, machine: str, loss: float) -> None:
    other = Tolerance("tflite-runtime 2.14.0", 4, 0.994)
    card = msgspec.structs.replace(open_bundle(find_bundle("student-small")).card, tolerances=(other,))
    threshold = acceptance_threshold(card, 3589, same_faces=True, runtime=runtime, machine=machine)
    exact = round(card.figures.accuracy * card.figures.n) / card.figures.n
    assert exact - threshold.lowest == pytest.approx(loss)


@pytest.mark.parametrize(
    ("correct", "n", "agreement", "fewer"),
    [(200, 300, 1.0, 0), (2, 3, 1.0, 0), (66, 100, 0.99, 1), (2537, 3589, 1.0, 0), (29, 100, 0.9, 10)],
)
def test_the_cards_own_count_of_correct_faces_is_accepted_although_the_card_rounds(
    correct: int, n: int, agreement: float, fewer: int
) -> None:
    card = open_bundle(find_bundle("student-small")).card
    card = msgspec.structs.replace(
        card,
        figures=msgspec.structs.replace(card.figures, accuracy=round(correct / n, 5), n=n),
        tolerances=(Tolerance("any 1.0", 0, agreement),),
    )
    threshold = acceptance_threshold(card, n, same_faces=True, runtime="any 1.0", machine="aarch64")
    assert "reaches" in threshold.describe(correct / n, n)
    assert (correct - fewer) / n >= threshold.lowest
    assert (correct - fewer - 1) / n < threshold.lowest, "one face more is too many"


def test_a_runtime_that_no_card_has_measured_may_lose_half_a_percent_of_the_answers() -> None:
    card = msgspec.structs.replace(open_bundle(find_bundle("student-small")).card, tolerances=())
    threshold = acceptance_threshold(card, 3589, same_faces=True, runtime="something new 1.0", machine="aarch64")
    exact = round(card.figures.accuracy * card.figures.n) / card.figures.n
    assert exact - threshold.lowest == pytest.approx(0.005)
