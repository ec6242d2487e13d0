"""Calibrate an int8 model: its temperature, its calibration error, and the threshold of abstention.

The temperature is fitted on held-out logits so that the confidence is the probability that the predicted label is
right. It is not fitted to the likelihood of all seven classes: networks that were trained on softened targets have too
much probability in the other classes, and that fit would make confidences too high. The remaining calibration error is
compared with that of a simulated, perfectly calibrated model with the same confidences, to see whether it is noise.
See Guo et al. 2017 (arXiv 1706.04599) for temperature scaling.
"""

import math
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
_THRESHOLD_STEPS: Final = 100_000  # of a threshold, from 0 to 1


@dataclass(frozen=True)
class TemperatureFit:
    """The temperature fitted on all faces, and the calibration error of the procedure, cross-fitted on two halves."""

    temperature: Temperature
    assessed: Calibration


def calibrate(logits: NDArray[np.float64], labels: NDArray[np.int64], seed: int) -> TemperatureFit:
    """Fit the temperature on all faces, and assess the procedure on two random halves.

    ``logits`` is ``(n, 7)`` dequantized, ``labels`` is ``(n,)``. Each half is assessed with the temperature that was
    fitted on the other.
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
    """The temperature that minimizes the mean log loss, in nats, of confidence as the probability of being right.

    ``logits`` is ``(n, 7)``, ``labels`` is ``(n,)``.
    """
    right = logits.argmax(axis=1) == labels

    def loss(parameters: NDArray[np.float64]) -> float:
        return _log_loss(Temperature(*parameters).calibrated(logits), right)

    found = minimize(loss, _START[0], method="Nelder-Mead", options={"initial_simplex": _START})
    return Temperature(*(round(float(parameter), _DIGITS) for parameter in found.x))


def perfect_ece(probabilities: NDArray[np.float64], rng: np.random.Generator) -> float:
    """The 95th percentile of the expected calibration error of a perfectly calibrated model, by simulation."""
    confidence = probabilities.max(axis=1)
    in_bin = np.eye(CALIBRATION_BINS)[bin_numbers(confidence)]
    right = rng.random((_SIMULATIONS, len(confidence))) < confidence
    errors = np.abs(right @ in_bin - confidence @ in_bin).sum(axis=1) / len(confidence)
    return float(np.percentile(errors, 95))


def choose_threshold(probabilities: NDArray[np.float64], labels: NDArray[np.int64], coverage: float) -> Abstention:
    """The confidence that the share ``coverage`` of the faces reaches, and the accuracy on those faces.

    It is rounded down, and below 1: a network that is right on all faces is so sure that it would be rounded to 1, and
    no face would reach it.
    """
    confidence = probabilities.max(axis=1)
    steps = math.floor(float(np.quantile(confidence, 1 - coverage)) * _THRESHOLD_STEPS)
    threshold = min(steps, _THRESHOLD_STEPS - 1) / _THRESHOLD_STEPS
    confident = confidence >= threshold
    right = probabilities[confident].argmax(axis=1) == labels[confident]
    return Abstention(*(round(float(figure), 5) for figure in (threshold, confident.mean(), right.mean())))


def _log_loss(logits: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    confidence = softmax(logits).max(axis=1)
    likelihood = np.where(right, confidence, 1 - confidence)
    return -float(np.log(np.maximum(likelihood, np.finfo(np.float64).tiny)).mean())
