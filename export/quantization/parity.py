"""Whether every form of a network says the same: Keras, quantization-aware, int8 in each runtime, Edge TPU.

Two runtimes may round one int8 step differently, and then two nearly equal logits swap places. So agreement is demanded
where the first two logits are clearly apart, and accuracy everywhere.
"""

from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.errors import FerEdgeError

CLEAR_MARGIN: Final = 4
"""Int8 steps between the first two logits from which on two runtimes must agree."""

_LEAST_AGREEMENT: Final = 0.995
_MOST_POINTS: Final = 0.5
_FEW_FACES: Final = 3  # so many decide nothing, however few were measured


class ParityError(FerEdgeError):
    """Two forms of one network differ by more than rounding explains."""

    exit_code = 16


@dataclass(frozen=True)
class NetworkForm:
    """What one form of the network says of the same ``n`` faces.

    ``logits`` is ``(n, 7)``: int8 as a runtime gives them, or float32. ``same_weights`` is False for a form that was
    trained on since (the float network, beside the quantization-aware one): only its accuracy is comparable.
    """

    name: str
    logits: NDArray[np.int8] | NDArray[np.float32]
    same_weights: bool = True

    def accuracy(self, labels: NDArray[np.int64]) -> float:
        """The share of faces that it names as labelled."""
        return float((self.logits.argmax(axis=1) == labels).mean())


@dataclass(frozen=True)
class FormPair:
    """How two forms compare on the same faces.

    ``points`` is the second's accuracy less the first's, ``agreement`` the share of faces with one likeliest label,
    ``clear_agreement`` that among the ``clear`` faces whose first two int8 logits are more than CLEAR_MARGIN steps
    apart, ``ties`` the faces whose first two are equal. ``histogram`` counts single int8 logits by how many steps they
    differ.
    """

    first: str
    second: str
    n: int
    points: float
    agreement: float
    clear: int
    clear_agreement: float
    ties: int
    histogram: tuple[int, ...]


def compare_forms(forms: list[NetworkForm], labels: NDArray[np.int64]) -> list[FormPair]:
    """Every pair of forms; ``labels`` is ``(n,)``."""
    return [_pair(first, second, labels) for first, second in combinations(forms, 2)]


def check_parity(forms: list[NetworkForm], pairs: list[FormPair]) -> None:
    """Raise ParityError naming the first pair that is further apart than rounding explains."""
    comparable = {form.name for form in forms if form.same_weights}
    for pair in pairs:
        names = f"{pair.first} and {pair.second}"
        if abs(pair.points) > _MOST_POINTS:
            raise ParityError(f"{names}: accuracies differ by {pair.points:+.2f} points, more than {_MOST_POINTS}")
        if {pair.first, pair.second} <= comparable and pair.clear and pair.clear_agreement < _LEAST_AGREEMENT:
            raise ParityError(
                f"{names}: agree on {pair.clear_agreement:.2%} of the {pair.clear} faces that are clear, less than "
                f"{_LEAST_AGREEMENT:.1%}"
            )


def _pair(first: NetworkForm, second: NetworkForm, labels: NDArray[np.int64]) -> FormPair:
    same = first.logits.argmax(axis=1) == second.logits.argmax(axis=1)
    stored = [np.asarray(form.logits, np.int8) for form in (first, second) if form.logits.dtype == np.int8]
    margin = _margin(stored[0]) if stored else np.zeros(len(labels), np.int64)
    clear = margin > CLEAR_MARGIN
    return FormPair(
        first=first.name,
        second=second.name,
        n=len(labels),
        points=round(100 * (second.accuracy(labels) - first.accuracy(labels)), 3),
        agreement=float(same.mean()),
        clear=int(clear.sum()),
        clear_agreement=float(same[clear].mean()) if clear.any() else 0.0,
        ties=int((margin == 0).sum()) if stored else 0,
        histogram=_histogram(*stored) if len(stored) == 2 else (),
    )


def _margin(logits: NDArray[np.int8]) -> NDArray[np.int64]:
    ordered = np.sort(logits.astype(np.int64), axis=1)
    return np.asarray(ordered[:, -1] - ordered[:, -2], np.int64)


def _histogram(first: NDArray[np.int8], second: NDArray[np.int8]) -> tuple[int, ...]:
    steps = np.abs(first.astype(np.int64) - second.astype(np.int64))
    return tuple(int(count) for count in np.bincount(steps.ravel()))
