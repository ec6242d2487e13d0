import numpy as np
import pytest

pytest.importorskip("scipy", reason="the export extra is not installed")

from edge.evaluation.metrics import reliability_diagram
from edge.model.preprocessing import Temperature, softmax
from export.quantization.calibration import calibrate, choose_threshold, fit_temperature


def honest(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits of a model whose confidences are exactly right, and labels drawn from them."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (n, 7))
    probabilities = softmax(logits)
    return logits, (probabilities.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.5])
def test_the_temperature_undoes_logits_that_are_too_sharp_or_too_flat(factor: float) -> None:
    logits, labels = honest(20_000, 1)
    found = fit_temperature(logits * factor, labels).calibrated(logits * factor)
    np.testing.assert_allclose(softmax(found).max(axis=1), softmax(logits).max(axis=1), atol=0.03)


def test_the_temperature_undoes_what_one_number_cannot() -> None:
    """Too sure in the middle, not sure enough at the top: what distillation on softened targets leaves."""
    logits, labels = honest(20_000, 3)
    bent = Temperature(level=-0.3, slope=0.0, curve=0.06).calibrated(logits)
    probabilities = softmax(fit_temperature(bent, labels).calibrated(bent))
    assert reliability_diagram(labels, probabilities).ece < 0.012
    one = min(reliability_diagram(labels, softmax(bent / factor)).ece for factor in np.linspace(0.3, 3, 60))
    assert one > 0.02


def test_calibrating_brings_an_overconfident_model_below_the_noise_of_a_perfect_one() -> None:
    logits, labels = honest(3_589, 2)
    assessed = calibrate(logits * 2, labels, seed=1).assessed
    assert assessed.ece_before > 3 * assessed.perfect_p95
    assert assessed.ece < assessed.perfect_p95
    assert assessed.nll < assessed.nll_before - 0.1
    assert 0.01 < assessed.perfect_p95 < 0.04


def test_the_threshold_gives_the_requested_coverage_and_a_higher_accuracy() -> None:
    logits, labels = honest(5_000, 4)
    probabilities = softmax(logits)
    everything, most = choose_threshold(probabilities, labels, 1.0), choose_threshold(probabilities, labels, 0.8)
    assert everything.coverage == 1
    assert most.coverage == pytest.approx(0.8, abs=0.01)
    assert most.accuracy > everything.accuracy + 0.03


@pytest.mark.parametrize("classes", [2, 3, 8])
def test_a_network_that_is_right_on_all_faces_still_recognises_them(classes: int) -> None:
    """Such as one that has learned from these very faces: the threshold was rounded to 1, which no face reached."""
    rng = np.random.default_rng(5)
    labels = rng.integers(0, classes, 300)
    logits = rng.normal(0, 1, (300, classes)) + 8 * np.eye(classes)[labels]
    fit = calibrate(logits, labels, seed=1)
    probabilities = softmax(fit.temperature.calibrated(logits))
    chosen = choose_threshold(probabilities, labels, 0.9)
    assert chosen.accuracy == 1
    assert chosen.coverage == pytest.approx((probabilities.max(axis=1) >= chosen.threshold).mean(), abs=1e-5)
    assert chosen.coverage >= 0.9
