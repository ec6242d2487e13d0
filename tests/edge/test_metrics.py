import numpy as np
import pytest

from edge.metrics import measure


def test_figures_of_a_case_worked_out_by_hand() -> None:
    labels = np.array([0, 0, 0, 3, 3, 6])
    predictions = np.array([0, 0, 3, 3, 3, 0])
    figures = measure(labels, predictions)
    assert figures.n == 6
    assert figures.accuracy == pytest.approx(4 / 6)
    assert figures.confusion[0, 3] == 1
    assert figures.confusion[6, 0] == 1
    angry, happy, neutral = (figures.per_class[label] for label in ("angry", "happy", "neutral"))
    assert (angry.precision, angry.recall, angry.support) == (pytest.approx(2 / 3), pytest.approx(2 / 3), 3)
    assert (happy.precision, happy.recall) == (pytest.approx(2 / 3), 1.0)
    assert (neutral.precision, neutral.recall, neutral.f1) == (0.0, 0.0, 0.0)
    assert figures.macro_f1 == pytest.approx((2 / 3 + 0.8 + 0.0) / 3)


def test_no_faces_have_no_figures() -> None:
    with pytest.raises(ValueError, match="at least one"):
        measure(np.array([], np.int64), np.array([], np.int64))
