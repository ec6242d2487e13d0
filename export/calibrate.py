"""How far the confidences of an int8 model can be believed, and from which on it should speak.

The temperature is one number fitted on held-out logits (Guo et al. 2017, arXiv 1706.04599). Whether what remains is
noise is judged against a simulated model that is calibrated perfectly and has the same confidences.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.contract import softmax
from edge.metrics import CALIBRATION_BINS, bin_numbers, calibration

_LOWEST, _HIGHEST, _STEPS = 0.2, 5.0, 60
_GOLDEN: Final = (np.sqrt(5) - 1) / 2
_SIMULATIONS: Final = 2000


@dataclass(frozen=True)
class Abstention:
    """From ``threshold`` on the model speaks: for the share ``coverage`` of faces, with ``accuracy`` on those."""

    threshold: float
    coverage: float
    accuracy: float


@dataclass(frozen=True)
class Trust:
    """What calibrating did, cross-fitted: each half of the faces is judged by the temperature of the other half.

    ``perfect_p95`` is the expected calibration error that a perfectly calibrated model with the same confidences stays
    under 95 times in 100: a model below it cannot be told from one.
    """

    temperature: float
    nll_before: float
    nll_after: float
    ece_before: float
    ece_after: float
    perfect_p95: float


def calibrate(logits: NDArray[np.float64], labels: NDArray[np.int64], seed: int) -> Trust:
    """Fit the temperature on all faces, and judge the procedure on two seeded halves.

    ``logits`` is ``(n, 7)`` in real units, ``labels`` ``(n,)``.
    """
    rng = np.random.default_rng(seed)
    first = rng.permutation(len(labels)) % 2 == 0
    probabilities = np.empty_like(logits)
    for half in (first, ~first):
        temperature = fit_temperature(logits[~half], labels[~half])
        probabilities[half] = softmax(logits[half] / temperature)
    before, after = calibration(labels, softmax(logits)), calibration(labels, probabilities)
    return Trust(
        temperature=fit_temperature(logits, labels),
        nll_before=before.nll,
        nll_after=after.nll,
        ece_before=before.ece,
        ece_after=after.ece,
        perfect_p95=perfect_ece(probabilities, rng),
    )


def fit_temperature(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """The temperature with the smallest negative log-likelihood, by golden-section search; it has one minimum."""
    low, high = np.log(_LOWEST), np.log(_HIGHEST)
    for _ in range(_STEPS):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        if _nll(logits, labels, np.exp(left)) < _nll(logits, labels, np.exp(right)):
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2))


def perfect_ece(probabilities: NDArray[np.float64], rng: np.random.Generator) -> float:
    """The 95th percentile of the expected calibration error when every confidence is exactly right."""
    confidence = probabilities.max(axis=1)
    in_bin = np.eye(CALIBRATION_BINS)[bin_numbers(confidence)]
    right = rng.random((_SIMULATIONS, len(confidence))) < confidence
    errors = np.abs(right @ in_bin - confidence @ in_bin).sum(axis=1) / len(confidence)
    return float(np.percentile(errors, 95))


def abstain(probabilities: NDArray[np.float64], labels: NDArray[np.int64], coverage: float) -> Abstention:
    """The confidence above which the share ``coverage`` of the faces lies, and how accurate the model is there."""
    confidence = probabilities.max(axis=1)
    threshold = float(np.quantile(confidence, 1 - coverage))
    spoken = confidence >= threshold
    right = probabilities[spoken].argmax(axis=1) == labels[spoken]
    return Abstention(threshold, float(spoken.mean()), float(right.mean()))


def _nll(logits: NDArray[np.float64], labels: NDArray[np.int64], temperature: float) -> float:
    return calibration(labels, softmax(logits / temperature)).nll
