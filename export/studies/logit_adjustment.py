"""Ways to adjust a network's logits afterwards, so that rare classes are recognized more often.

Subtracting ``tau * log(prior)`` is the post-hoc logit adjustment of Menon et al. 2021 (arXiv 2007.07314). With tau 1 it
minimizes the balanced error, the mean over the classes of the share that is missed. Tau 0 is the network as it is.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

AS_IT_IS: Final = "as it is"
_TAUS: Final = (0.25, 0.5, 0.75, 1.0)
_CHOICES: Final = tuple(step / 20 for step in range(21))
_LARGEST_BIAS: Final = 5.0  # a class that the faces lack would get an infinite one
_LARGEST_LOG_SCALE: Final = float(np.log(3))

Logits = NDArray[np.float64]
"""``(n, k)`` for n faces and k classes."""


class LogitAdjustment(NamedTuple):
    """``scale * logits + bias``: the inverse of a temperature, and ``(k,)``, a bias for each class."""

    scale: float
    bias: NDArray[np.float64]

    def apply(self, logits: Logits) -> Logits:
        """The adjusted logits."""
        return np.asarray(self.scale * logits + self.bias, np.float64)


Method = Callable[[Logits, NDArray[np.int64]], LogitAdjustment]
"""Fits an adjustment to logits and labels, ``(n,)``."""


def adjustment_methods(prior: NDArray[np.float64]) -> Mapping[str, Method]:
    """All methods by name, the network as it is first. ``prior`` is ``(k,)``: the share of each class in Training."""
    fixed = {AS_IT_IS: 0.0, **{f"tau {tau:g}": tau for tau in _TAUS}}
    return {
        **{name: partial(_ignore_faces, adjust_by_prior(prior, tau)) for name, tau in fixed.items()},
        "tau, chosen": partial(choose_tau, prior),
        "bias, fitted": fit_bias,
        "bias, balanced": partial(fit_bias, balanced=True),
    }


def cross_fit(method: Method, logits: Logits, labels: NDArray[np.int64], first: NDArray[np.bool_]) -> Logits:
    """Adjust each half of the faces by what the other half taught; ``first``, ``(n,)``, says who is in the first."""
    adjusted = np.empty_like(logits)
    for half in (first, ~first):
        adjusted[half] = method(logits[~half], labels[~half]).apply(logits[half])
    return adjusted


def adjust_by_prior(prior: NDArray[np.float64], tau: float) -> LogitAdjustment:
    """Subtract ``tau * log(prior)``."""
    return LogitAdjustment(1.0, -tau * np.log(np.maximum(prior, 1e-6)))


def choose_tau(prior: NDArray[np.float64], logits: Logits, labels: NDArray[np.int64]) -> LogitAdjustment:
    """The adjustment with the highest mean recall among those that do not lower the accuracy on these faces."""
    candidates = [adjust_by_prior(prior, tau) for tau in _CHOICES]
    right = [adjusted.apply(logits).argmax(axis=1) == labels for adjusted in candidates]
    allowed = [number for number, one in enumerate(right) if one.sum() >= right[0].sum()]
    classes = np.unique(labels)
    return candidates[max(allowed, key=lambda number: np.mean([right[number][labels == k].mean() for k in classes]))]


def fit_bias(logits: Logits, labels: NDArray[np.int64], balanced: bool = False) -> LogitAdjustment:
    """The temperature and the bias of each class that minimize the mean negative log-likelihood, in nats.

    ``balanced`` gives each class the same weight, however many faces it has.
    """
    classes = logits.shape[1]
    counts = np.bincount(labels, minlength=classes)
    weights = 1 / counts[labels] if balanced else np.ones(len(labels))
    shares = weights / weights.sum()

    def loss(parameters: NDArray[np.float64]) -> float:
        adjusted = np.exp(parameters[0]) * logits + parameters[1:]
        shifted = adjusted - adjusted.max(axis=1, keepdims=True)
        log_likelihood = shifted[np.arange(len(labels)), labels] - np.log(np.exp(shifted).sum(axis=1))
        return -float(shares @ log_likelihood)

    bounds = [(-_LARGEST_LOG_SCALE, _LARGEST_LOG_SCALE), *[(-_LARGEST_BIAS, _LARGEST_BIAS)] * classes]
    found = minimize(loss, np.zeros(1 + classes), method="L-BFGS-B", bounds=bounds).x
    return LogitAdjustment(float(np.exp(found[0])), found[1:])


def _ignore_faces(adjustment: LogitAdjustment, _: Logits, __: NDArray[np.int64]) -> LogitAdjustment:
    return adjustment
