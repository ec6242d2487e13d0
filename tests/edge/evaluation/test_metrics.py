import numpy as np
import pytest

from edge.evaluation.metrics import measure, reliability_diagram
from edge.labels import FER2013_LABELS


def test_figures_of_a_case_worked_out_by_hand() -> None:
    labels = np.array([0, 0, 0, 3, 3, 6])
    predictions = np.array([0, 0, 3, 3, 3, 0])
    figures = measure(labels, predictions, FER2013_LABELS)
    assert figures.n == 6
    assert figures.accuracy == pytest.approx(4 / 6)
    assert figures.confusion[0, 3] == 1
    assert figures.confusion[6, 0] == 1
    angry, happy, neutral = (figures.per_class[label] for label in ("angry", "happy", "neutral"))
    assert (angry.precision, angry.recall, angry.support) == (pytest.approx(2 / 3), pytest.approx(2 / 3), 3)
    assert (happy.precision, happy.recall) == (pytest.approx(2 / 3), 1.0)
    assert (neutral.precision, neutral.recall, neutral.f1) == (0.0, 0.0, 0.0)
    assert figures.macro_f1 == pytest.approx((2 / 3 + 0.8 + 0.0) / 3)


def test_figures_of_no_faces_are_an_error() -> None:
    with pytest.raises(ValueError, match="at least one"):
        measure(np.array([], np.int64), np.array([], np.int64), FER2013_LABELS)


def test_calibration_is_measured_in_ten_equal_bins() -> None:
    """Two faces at 0.95, one of them right; two at 0.65, both right: 2/4 * 0.45 + 2/4 * 0.35."""
    rest = lambda top: [top] + [(1 - top) / 6] * 6  # noqa: E731
    probabilities = np.array([rest(0.95), rest(0.95), rest(0.65), rest(0.65)])
    trust = reliability_diagram(np.array([0, 1, 0, 0]), probabilities)
    assert trust.ece == pytest.approx(0.4)
    assert trust.nll == pytest.approx(-np.log([0.95, 0.05 / 6, 0.65, 0.65]).mean())
    assert [b.n for b in trust.bins] == [0, 0, 0, 0, 0, 0, 2, 0, 0, 2]
    assert reliability_diagram(np.array([0]), np.eye(7)[:1]).ece == 0
