"""Adjusted logits: what each method does to them, and that none is measured on the faces it was fitted on."""

import numpy as np
import pytest

pytest.importorskip("scipy", reason="the train extra is not installed")

from export.studies.logit_adjustment import (
    LogitAdjustment,
    adjust_by_prior,
    adjustment_methods,
    choose_tau,
    cross_fit,
    fit_bias,
)

PRIOR = np.array([0.1, 0.9])


def some_faces(n: int, rare: float, lead: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits of two classes, calibrated, and labels: a share ``rare`` is of class 0; a larger ``lead`` is clearer."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) >= rare).astype(np.int64)
    seen = rng.normal(size=(n, 2))
    seen[np.arange(n), labels] += lead
    return lead * seen + np.log([rare, 1 - rare]), labels


def recalls(logits: np.ndarray, labels: np.ndarray) -> list[float]:
    return [float((logits[labels == label].argmax(axis=1) == label).mean()) for label in (0, 1)]


def test_a_whole_tau_takes_the_prior_out() -> None:
    adjusted = adjust_by_prior(PRIOR, 1.0).apply(np.log(PRIOR))
    assert adjusted == pytest.approx(np.full(2, adjusted[0]))
    assert adjust_by_prior(PRIOR, 0.0).apply(np.log(PRIOR)) == pytest.approx(np.log(PRIOR))


def test_a_class_without_training_faces_is_no_infinite_logit() -> None:
    assert np.isfinite(adjust_by_prior(np.array([0.0, 1.0]), 1.0).bias).all()


def test_a_larger_tau_finds_more_of_the_rare_class() -> None:
    logits, labels = some_faces(2000, rare=0.1, lead=1.0)
    found = [recalls(adjust_by_prior(PRIOR, tau).apply(logits), labels) for tau in (0.0, 0.5, 1.0)]
    assert found[0][0] < found[1][0] < found[2][0]
    assert found[0][1] > found[1][1] > found[2][1]


def test_the_fitted_bias_corrects_a_network_that_has_the_wrong_prior() -> None:
    logits, labels = some_faces(2000, rare=0.1, lead=1.5)
    shifted = 2 * logits + [0.0, 3.0]
    fitted = fit_bias(shifted, labels)
    restored = fitted.apply(shifted)
    assert fitted.scale == pytest.approx(0.5, abs=0.1)
    assert fitted.bias[0] - fitted.bias[1] == pytest.approx(1.5, abs=0.4)
    assert recalls(restored, labels) == pytest.approx(recalls(logits, labels), abs=0.1)


def test_the_balanced_bias_finds_both_classes_alike() -> None:
    logits, labels = some_faces(4000, rare=0.1, lead=1.5)
    first, second = recalls(fit_bias(logits, labels, balanced=True).apply(logits), labels)
    assert first == pytest.approx(second, abs=0.05)


def test_a_fit_of_faces_that_lack_a_class_is_bounded() -> None:
    logits, _ = some_faces(50, rare=0.1, lead=1.0)
    fitted = fit_bias(logits, np.ones(50, np.int64), balanced=True)
    assert np.isfinite(fitted.bias).all()
    assert np.abs(fitted.bias).max() <= 5


def test_the_chosen_tau_loses_no_accuracy_on_the_faces_that_chose_it() -> None:
    logits, labels = some_faces(2000, rare=0.1, lead=1.0)
    before = (logits.argmax(axis=1) == labels).mean()
    chosen = choose_tau(PRIOR, logits, labels).apply(logits)
    assert (chosen.argmax(axis=1) == labels).mean() >= before
    assert sum(recalls(chosen, labels)) >= sum(recalls(logits, labels))


def test_each_half_is_adjusted_by_what_the_other_half_taught() -> None:
    first = np.array([True, True, False, False])
    labels = np.array([0, 0, 1, 1])

    def favour_the_last(_: np.ndarray, theirs: np.ndarray) -> LogitAdjustment:
        return LogitAdjustment(1.0, np.eye(2)[theirs[-1]])

    adjusted = cross_fit(favour_the_last, np.zeros((4, 2)), labels, first)
    assert adjusted.argmax(axis=1).tolist() == [1, 1, 0, 0]


def test_the_first_method_changes_nothing() -> None:
    logits, labels = some_faces(40, rare=0.3, lead=1.0)
    unchanged = next(iter(adjustment_methods(PRIOR).values()))
    assert np.array_equal(cross_fit(unchanged, logits, labels, np.arange(40) % 2 == 0), logits)
