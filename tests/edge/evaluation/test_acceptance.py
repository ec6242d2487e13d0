from math import ceil, comb

import pytest

from edge.evaluation.acceptance import RISK, acceptance_threshold, chance_of_so_few, faces_to_see, least_right
from edge.model.bundle import find_bundle, open_bundle


def by_counting(right: int, n: int, right_before: int, n_before: int) -> float:
    """The hypergeometric distribution, added up from its definition."""
    all_right = right + right_before
    ways = [
        comb(n, k) * comb(n_before, all_right - k) for k in range(min(n, all_right) + 1) if all_right - k <= n_before
    ]
    several = sum(comb(n, k) * comb(n_before, all_right - k) for k in range(right + 1) if all_right - k <= n_before)
    return several / sum(ways)


@pytest.mark.parametrize("right", range(10))
def test_the_chance_is_that_of_the_hypergeometric_distribution(right: int) -> None:
    assert chance_of_so_few(right, 15, 40, 60) == pytest.approx(by_counting(right, 15, 40, 60))


@pytest.mark.parametrize(("n", "right", "before"), [(100, 66, 100), (3589, 2359, 3589), (7, 3589, 3589), (20000, 1, 9)])
def test_the_least_that_passes_is_where_the_chance_crosses_the_risk(n: int, right: int, before: int) -> None:
    least = least_right(n, right, before)
    assert least == 0 or chance_of_so_few(least - 1, n, right, before) < RISK
    assert chance_of_so_few(least, n, right, before) >= RISK


def test_two_faces_prove_nothing() -> None:
    assert least_right(2, 2359, 3589) == 0
    card = open_bundle(find_bundle("student-small")).card
    promised = acceptance_threshold(card, 2, same_faces=False, runtime="any 1.0", machine="aarch64")
    reached = f"the card's {card.figures.accuracy:.2%}"
    assert promised.describe(0.0, 2).startswith(f"0.00% is not clearly below {reached}: on 2 other faces everything")


@pytest.mark.parametrize(("less", "verdict"), [(0, "reaches"), (1, "is not clearly below"), (60, "is worse than")])
def test_the_sentence_does_not_call_less_as_good(less: int, verdict: str) -> None:
    card = open_bundle(find_bundle("student-small")).card
    right = ceil(card.figures.accuracy * 400) - less
    promised = acceptance_threshold(card, 400, same_faces=False, runtime="any 1.0", machine="aarch64")
    reached = f"the card's {card.figures.accuracy:.2%}"
    assert promised.describe(right / 400, 400).startswith(f"{right / 400:.2%} {verdict} {reached}: on 400 other")


def test_more_faces_show_smaller_losses_until_the_cards_own_faces_are_too_few() -> None:
    accuracy, n_before = 0.657, 3589
    needed = faces_to_see(0.03, accuracy, n_before)
    assert needed is not None
    assert accuracy - least_right(needed, round(accuracy * n_before), n_before) / needed == pytest.approx(
        0.03, abs=0.002
    )
    assert faces_to_see(0.01, accuracy, n_before) is None


@pytest.mark.parametrize(
    ("runtime", "machine", "same"),
    [
        ("ai-edge-litert 2.3.0", "x86_64", True),
        ("tflite-runtime 2.14.0", "x86_64", False),
        ("something new 1.0", "aarch64", False),
    ],
)
def test_on_the_cards_own_faces_only_rounding_is_forgiven(runtime: str, machine: str, *, same: bool) -> None:
    card = open_bundle(find_bundle("student-small")).card
    [other] = card.tolerances
    loss = 0.001 if same else 1 - other.agreement
    assert 0.005 < 1 - other.agreement < 0.02
    promised = acceptance_threshold(card, 3589, same_faces=True, runtime=runtime, machine=machine)
    assert card.figures.accuracy - promised.lowest == pytest.approx(loss)
