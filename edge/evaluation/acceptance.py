"""The acceptance threshold: the lowest accuracy that does not contradict the accuracy that the card states.

Both are counts of correct answers among some faces, so both are uncertain. On other faces than the card's, Fisher's
exact test of two proportions decides (one-sided; Fisher 1922, "On the interpretation of chi-squared from contingency
tables"). On the card's own faces only rounding may differ.
"""

import math
from dataclasses import dataclass
from typing import Final

from edge.model.bundle import Card

SIGNIFICANCE_LEVEL: Final = 0.01
"""How often a model that is as good as its card is rejected, by chance."""

_SAME_RUNTIME_SHARE: Final = 0.001  # of the answers; kernels of one runtime differ between processors
_UNMEASURED_SHARE: Final = 0.005  # of the answers; for a runtime without a tolerance in the card
_FLOAT_ERROR: Final = 1e-9  # far less than the share of one face
_NORMAL_QUANTILE: Final = 2.3263  # of the standard normal distribution, at 1 - SIGNIFICANCE_LEVEL


@dataclass(frozen=True)
class AcceptanceThreshold:
    """``lowest`` is the lowest accuracy that is accepted; the card states ``accuracy`` on ``n`` faces.

    ``same_faces`` says whether the accuracy is measured on the card's own faces, with ``runtime``.
    """

    accuracy: float
    n: int
    lowest: float
    same_faces: bool
    runtime: str

    def describe(self, measured: float, n: int) -> str:
        """A sentence that compares the accuracy ``measured`` on ``n`` faces with the card's."""
        loss = self.accuracy - self.lowest
        if self.same_faces:
            reason = f"on the card's own faces, rounding in {self.runtime} explains up to {loss:.2%} less"
        else:
            faces = f"{n:,} other faces" if n > 1 else "one other face"
            explained = f"up to {loss:.1%} less" if self.lowest > 0 else "any result"
            reason = (
                f"on {faces}, chance explains {explained} (99 %, one-sided, Fisher's exact test); "
                f"{_smaller_losses(self.accuracy, self.n, n)}"
            )
        return f"{measured:.2%} {self._comparison(measured)} the card's {self.accuracy:.2%}: {reason}"

    def _comparison(self, measured: float) -> str:
        if round(measured, 5) >= self.accuracy:  # cards round to five digits
            return "reaches"
        return "is not clearly below" if measured >= self.lowest else "is worse than"


def acceptance_threshold(card: Card, n: int, *, same_faces: bool, runtime: str, machine: str) -> AcceptanceThreshold:
    """The acceptance threshold for ``n`` faces, measured with ``runtime`` on the kind of processor ``machine``.

    ``runtime`` is a Classifier's ``computed_by``.
    """
    stated = card.figures
    correct = round(stated.accuracy * stated.n)  # the card's accuracy is rounded, and may be above that of its count
    if same_faces:
        lowest = correct / stated.n - _differing_share(card, runtime, machine) - _FLOAT_ERROR
    else:
        lowest = min_correct(n, correct, stated.n) / n
    return AcceptanceThreshold(stated.accuracy, stated.n, lowest, same_faces, runtime)


def min_correct(n: int, correct_before: int, n_before: int) -> int:
    """The fewest correct of ``n`` that are not significantly fewer than ``correct_before`` of ``n_before``."""
    low, high = 0, n
    while low < high:
        middle = (low + high) // 2
        if fisher_p_value(middle, n, correct_before, n_before) >= SIGNIFICANCE_LEVEL:
            high = middle
        else:
            low = middle + 1
    return low


def fisher_p_value(correct: int, n: int, correct_before: int, n_before: int) -> float:
    """Fisher's exact test, one-sided: the probability of ``correct`` or fewer of ``n`` if both accuracies are equal.

    1.0 when ``correct`` is not a smaller share than before.
    """
    if correct * n_before >= correct_before * n:
        return 1.0
    all_correct, everything = correct + correct_before, n + n_before
    term = math.exp(
        _log_choose(n, correct) + _log_choose(n_before, correct_before) - _log_choose(everything, all_correct)
    )
    total = 0.0
    for count in range(correct, max(0, all_correct - n_before) - 1, -1):
        total += term
        if term <= total * 1e-12:
            break
        term *= count * (n_before - all_correct + count) / ((all_correct - count + 1) * (n - count + 1))
    return total


def faces_needed(loss: float, accuracy: float, n_before: int) -> int | None:
    """How many other faces are needed to detect a smaller ``loss`` of ``accuracy``; None when the card's are too few.

    By the normal approximation of the test above, with the variance between both accuracies: at 1 there is none.
    """
    halfway = accuracy - loss / 2
    share = (loss / _NORMAL_QUANTILE) ** 2 / (halfway * (1 - halfway)) - 1 / n_before
    return math.ceil(1 / share) if share > 0 else None


def _smaller_losses(accuracy: float, n_before: int, n: int) -> str:
    """A part of a sentence: how many faces would show a smaller loss."""
    for loss in (0.05, 0.03, 0.02, 0.01):
        needed = faces_needed(loss, accuracy, n_before) if loss < accuracy else None
        if needed is None:
            return f"no number of faces would show a loss of {loss:.0%}, as the card's figure is of {n_before} faces"
        if needed > n:
            return f"{needed:,} faces would show a loss of {loss:.0%}"
    return "smaller losses need the card's own faces"


def _differing_share(card: Card, runtime: str, machine: str) -> float:
    """The share of answers that rounding may change on the card's own faces."""
    if (runtime, machine) == (card.golden_runtime, card.golden_machine):
        return _SAME_RUNTIME_SHARE
    measured = {tolerance.runtime: 1 - tolerance.agreement for tolerance in card.tolerances}
    return measured.get(runtime, max([_UNMEASURED_SHARE, *measured.values()]))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
