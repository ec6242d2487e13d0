"""Check that all forms of a network agree: Keras float32, quantization-aware Keras, and int8 in each runtime.

Two runtimes may differ by one int8 step in rounding, which can swap two nearly equal logits. So the same label is
required only where the first two logits are clearly apart. Everywhere the later form may lose only little accuracy,
or no more than chance explains: on few faces a single one is a large share. The faces are the same for both forms, so
only those that one form alone labels correctly count (sign test; McNemar 1947, "Note on the sampling error of the
difference between correlated proportions").
"""

import math
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.errors import FerEdgeError

CLEAR_MARGIN: Final = 4
"""Two runtimes must agree on faces whose first two logits are more than so many int8 steps apart."""

_LEAST_AGREEMENT: Final = 0.995
_MOST_POINTS: Final = 0.5
_SIGNIFICANCE_LEVEL: Final = 0.01
"""How often a form that is as good as the one before is rejected, by chance."""


class ParityError(FerEdgeError):
    """Two forms of one network differ by more than rounding explains."""

    exit_code = 16


@dataclass(frozen=True)
class NetworkForm:
    """The logits of one form of the network for the same ``n`` faces.

    ``logits`` is ``(n, 7)``: int8 from a runtime, or float32 from Keras. ``same_weights`` is False for the float
    network, since quantization-aware training changes the weights: only its accuracy is comparable.
    """

    name: str
    logits: NDArray[np.int8] | NDArray[np.float32]
    same_weights: bool = True

    def accuracy(self, labels: NDArray[np.int64]) -> float:
        """The share of faces whose first logit is that of the label."""
        return float((self.logits.argmax(axis=1) == labels).mean())


@dataclass(frozen=True)
class FormPair:
    """Two forms compared on the same faces.

    ``points`` is the second's accuracy minus the first's, in percentage points; only the first labels ``lost`` faces
    correctly, only the second ``gained`` faces. ``agreement`` is the share of faces to
    which both give the same label; ``clear_agreement`` is that share among the ``clear`` faces, whose first two int8
    logits are more than CLEAR_MARGIN steps apart. ``ties`` counts the faces whose first two are equal. ``histogram``
    counts int8 logits by how many steps the forms differ in them.
    """

    first: str
    second: str
    n: int
    points: float
    lost: int
    gained: int
    agreement: float
    clear: int
    clear_agreement: float
    ties: int
    histogram: tuple[int, ...]


def compare_forms(forms: list[NetworkForm], labels: NDArray[np.int64]) -> list[FormPair]:
    """Compare every pair of forms; ``labels`` is ``(n,)``."""
    return [_pair(first, second, labels) for first, second in combinations(forms, 2)]


def check_parity(forms: list[NetworkForm], pairs: list[FormPair]) -> None:
    """Raise ParityError for the first pair that differs by more than rounding explains."""
    comparable = {form.name for form in forms if form.same_weights}
    for pair in pairs:
        names = f"{pair.first} and {pair.second}"
        if -pair.points > _MOST_POINTS and chance_of_loss(pair.lost, pair.gained) < _SIGNIFICANCE_LEVEL:
            raise ParityError(
                f"{names}: accuracies differ by {pair.points:+.2f} points, a loss of more than {_MOST_POINTS} that "
                f"chance does not explain on {pair.n} faces ({pair.lost} lost, {pair.gained} gained)"
            )
        if {pair.first, pair.second} <= comparable and _disagrees(pair):
            raise ParityError(
                f"{names}: agree on {pair.clear_agreement:.2%} of the {pair.clear} faces that are clear, less than "
                f"{_LEAST_AGREEMENT:.1%}"
            )


def chance_of_loss(lost: int, gained: int) -> float:
    """The probability of ``lost`` or more of ``lost + gained`` faces if a face is lost as often as it is gained."""
    n = lost + gained
    return float(sum(math.comb(n, count) for count in range(lost, n + 1)) / 2**n)


def _disagrees(pair: FormPair) -> bool:
    """Whether the labels of clear faces differ too often; a single face is never too often."""
    differing = round((1 - pair.clear_agreement) * pair.clear)
    return differing > 1 and pair.clear_agreement < _LEAST_AGREEMENT


def _pair(first: NetworkForm, second: NetworkForm, labels: NDArray[np.int64]) -> FormPair:
    correct = [form.logits.argmax(axis=1) == labels for form in (first, second)]
    same = first.logits.argmax(axis=1) == second.logits.argmax(axis=1)
    int8 = [np.asarray(form.logits, np.int8) for form in (first, second) if form.logits.dtype == np.int8]
    margin = _margin(int8[0]) if int8 else np.zeros(len(labels), np.int64)
    clear = margin > CLEAR_MARGIN
    return FormPair(
        first=first.name,
        second=second.name,
        n=len(labels),
        points=round(100 * (second.accuracy(labels) - first.accuracy(labels)), 3),
        lost=int((correct[0] & ~correct[1]).sum()),
        gained=int((correct[1] & ~correct[0]).sum()),
        agreement=float(same.mean()),
        clear=int(clear.sum()),
        clear_agreement=float(same[clear].mean()) if clear.any() else 0.0,
        ties=int((margin == 0).sum()) if int8 else 0,
        histogram=_histogram(*int8) if len(int8) == 2 else (),
    )


def _margin(logits: NDArray[np.int8]) -> NDArray[np.int64]:
    ordered = np.sort(logits.astype(np.int64), axis=1)
    return np.asarray(ordered[:, -1] - ordered[:, -2], np.int64)


def _histogram(first: NDArray[np.int8], second: NDArray[np.int8]) -> tuple[int, ...]:
    steps = np.abs(first.astype(np.int64) - second.astype(np.int64))
    return tuple(int(count) for count in np.bincount(steps.ravel()))
