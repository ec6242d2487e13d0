"""How far the confidences of an int8 model can be believed, and from which on it should speak.

The temperature is fitted on held-out logits, but not to the likelihood of all seven classes: it is fitted to whether
the told label is right, since that is what a told confidence promises. Networks that learned from softened targets have
too much probability in the classes that they do not tell; the other fit pays for that with confidences that are too
high. Whether what remains is noise is judged against a simulated model that is calibrated perfectly and has the same
confidences.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from edge.evaluation.metrics import CALIBRATION_BINS, bin_numbers, reliability_diagram
from edge.model.bundle import Abstention, Calibration
from edge.model.preprocessing import Temperature, softmax

_START: Final = ((0.0, 0.0, 0.0), (0.5, 0.0, 0.0), (0.0, 0.2, 0.0), (0.0, 0.0, -0.05))  # a simplex about temperature 1
_DIGITS: Final = 4
_SIMULATIONS: Final = 2000


@dataclass(frozen=True)
class TemperatureFit:
    """The temperature fitted on all faces, and how the procedure was judged on two halves of them."""

    temperature: Temperature
    assessed: Calibration


def calibrate(logits: NDArray[np.float64], labels: NDArray[np.int64], seed: int) -> TemperatureFit:
    """Fit the temperature on all faces, and judge the procedure on two seeded halves.

    ``logits`` is ``(n, 7)`` in real units, ``labels`` ``(n,)``. Each half is judged by the temperature of the other.
    """
    rng = np.random.default_rng(seed)
    first = rng.permutation(len(labels)) % 2 == 0
    probabilities = np.empty_like(logits)
    for half in (first, ~first):
        temperature = fit_temperature(logits[~half], labels[~half])
        probabilities[half] = softmax(temperature.calibrated(logits[half]))
    before, after = reliability_diagram(labels, softmax(logits)), reliability_diagram(labels, probabilities)
    assessed = (before.ece, after.ece, perfect_ece(probabilities, rng), before.nll, after.nll)
    return TemperatureFit(fit_temperature(logits, labels), Calibration(*(round(figure, 5) for figure in assessed)))


def fit_temperature(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> Temperature:
    """The temperature whose confidences best tell right from wrong labels.

    What is made smallest is the mean log loss, in nats, of confidence as the probability that the label is right.
    """
    right = logits.argmax(axis=1) == labels

    def loss(parameters: NDArray[np.float64]) -> float:
        return _log_loss(Temperature(*parameters).calibrated(logits), right)

    found = minimize(loss, _START[0], method="Nelder-Mead", options={"initial_simplex": _START})
    return Temperature(*(round(float(parameter), _DIGITS) for parameter in found.x))


def perfect_ece(probabilities: NDArray[np.float64], rng: np.random.Generator) -> float:
    """The 95th percentile of the expected calibration error when every confidence is exactly right."""
    confidence = probabilities.max(axis=1)
    in_bin = np.eye(CALIBRATION_BINS)[bin_numbers(confidence)]
    right = rng.random((_SIMULATIONS, len(confidence))) < confidence
    errors = np.abs(right @ in_bin - confidence @ in_bin).sum(axis=1) / len(confidence)
    return float(np.percentile(errors, 95))


def choose_threshold(probabilities: NDArray[np.float64], labels: NDArray[np.int64], coverage: float) -> Abstention:
    """The confidence above which the share ``coverage`` of the faces lies, and how accurate the model is there."""
    confidence = probabilities.max(axis=1)
    threshold = float(np.quantile(confidence, 1 - coverage))
    spoken = confidence >= threshold
    right = probabilities[spoken].argmax(axis=1) == labels[spoken]
    return Abstention(*(round(float(figure), 5) for figure in (threshold, spoken.mean(), right.mean())))


def _log_loss(logits: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    confidence = softmax(logits).max(axis=1)
    given = np.where(right, confidence, 1 - confidence)
    return -float(np.log(np.maximum(given, np.finfo(np.float64).tiny)).mean())
