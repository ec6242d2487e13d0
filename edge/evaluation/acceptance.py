"""How far below its card a model's accuracy may lie before chance no longer explains it.

Both figures are counts of right answers among some faces, so both are uncertain, the card's too. On other faces
Fisher's exact test of two proportions, one-sided, answers the question; on the card's own faces only rounding differs.
"""

import math
from dataclasses import dataclass
from typing import Final

from edge.model.bundle import Card

RISK: Final = 0.01
"""How often a model that is as good as its card is called worse, by the luck of the faces."""

_SAME_FILE: Final = 0.001  # of the answers; kernels of one runtime differ from processor to processor
_UNMEASURED: Final = 0.005
_QUANTILE: Final = 2.3263  # of the standard normal distribution at 1 - RISK


@dataclass(frozen=True)
class AcceptanceThreshold:
    """``accuracy`` is what the card says of ``n`` faces; less than ``lowest`` is not explained by chance or rounding.

    ``same_faces`` says that the card's faces are those that are measured.
    """

    accuracy: float
    n: int
    lowest: float
    same_faces: bool

    def describe(self, found: float, n: int) -> str:
        """A sentence on the accuracy ``found`` on ``n`` faces."""
        if self.same_faces:
            why = f"on these, the card's own faces, rounding explains up to {self.accuracy - self.lowest:.2%} less"
        else:
            faces = f"{n:,} other faces" if n > 1 else "one other face"
            some = f"up to {self.accuracy - self.lowest:.1%} less" if self.lowest > 0 else "everything"
            why = (
                f"on {faces} {some} is chance (99 %, one-sided, Fisher's exact test); "
                f"{_smaller_losses(self.accuracy, self.n, n)}"
            )
        return f"{found:.2%} {self._verdict(found)} the card's {self.accuracy:.2%}: {why}"

    def _verdict(self, found: float) -> str:
        if round(found, 5) >= self.accuracy:  # as cards round it
            return "reaches"
        return "is not clearly below" if found >= self.lowest else "is worse than"


def acceptance_threshold(card: Card, n: int, *, same_faces: bool, runtime: str, machine: str) -> AcceptanceThreshold:
    """What the card promises of ``n`` faces in ``runtime`` on ``machine``."""
    stated = card.figures
    if same_faces:
        lowest = stated.accuracy - _differing_answers(card, runtime, machine)
    else:
        lowest = least_right(n, round(stated.accuracy * stated.n), stated.n) / n
    return AcceptanceThreshold(stated.accuracy, stated.n, lowest, same_faces)


def least_right(n: int, right_before: int, n_before: int) -> int:
    """The fewest right answers among ``n`` that are not significantly fewer than ``right_before`` of ``n_before``."""
    low, high = 0, n
    while low < high:
        middle = (low + high) // 2
        if chance_of_so_few(middle, n, right_before, n_before) >= RISK:
            high = middle
        else:
            low = middle + 1
    return low


def chance_of_so_few(right: int, n: int, right_before: int, n_before: int) -> float:
    """Fisher's exact test: how likely ``right`` or fewer of ``n`` are when both samples are of one accuracy.

    1.0 when ``right`` is no smaller a share than before.
    """
    if right * n_before >= right_before * n:
        return 1.0
    all_right, everything = right + right_before, n + n_before
    term = math.exp(_log_choose(n, right) + _log_choose(n_before, right_before) - _log_choose(everything, all_right))
    total = 0.0
    for count in range(right, max(0, all_right - n_before) - 1, -1):
        total += term
        if term <= total * 1e-12:
            break
        term *= count * (n_before - all_right + count) / ((all_right - count + 1) * (n - count + 1))
    return total


def faces_to_see(loss: float, accuracy: float, n_before: int) -> int | None:
    """With how many other faces the tolerance is as small as ``loss``; None when the card's own faces are too few.

    By the normal approximation of the test above.
    """
    share = (loss / _QUANTILE) ** 2 / (accuracy * (1 - accuracy)) - 1 / n_before
    return math.ceil(1 / share) if share > 0 else None


def _smaller_losses(accuracy: float, n_before: int, n: int) -> str:
    for loss in (0.05, 0.03, 0.02, 0.01):
        needed = faces_to_see(loss, accuracy, n_before) if 0 < accuracy < 1 else None
        if needed is None:
            return f"a loss of {loss:.0%} cannot be seen, as the card's own figure is of {n_before} faces only"
        if needed > n:
            return f"{needed:,} faces would show a loss of {loss:.0%}"
    return "smaller losses need the card's own faces"


def _differing_answers(card: Card, runtime: str, machine: str) -> float:
    """The share of answers that may differ from the card's on its own faces."""
    if (runtime, machine) == (card.golden_runtime, card.golden_machine):
        return _SAME_FILE
    measured = {tolerance.runtime: 1 - tolerance.agreement for tolerance in card.tolerances}
    return measured.get(runtime, max([_UNMEASURED, *measured.values()]))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
