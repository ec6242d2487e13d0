import numpy as np
import pytest

from edge.evaluation.metrics import Bin, measure, reliability_diagram
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

    written = figures.as_json()
    assert written["per_class"]["angry"] == {"precision": 0.6667, "recall": 0.6667, "f1": 0.6667, "n": 3}
    assert written["per_class"]["happy"] == {"precision": 0.6667, "recall": 1.0, "f1": 0.8, "n": 2}
    assert (written["n"], written["accuracy"], written["macro_f1"]) == (6, 0.66667, 0.48889)
    assert (written["confusion"][0][3], written["labels"][3]) == (1, "happy")
    assert [line.split() for line in figures.rows()[1::3]] == [
        ["angry", "66.7%", "66.7%", "66.7%", "3", "2", "0", "0", "1", "0", "0", "0"],
        ["happy", "66.7%", "100.0%", "80.0%", "2", "0", "0", "0", "2", "0", "0", "0"],
        ["neutral", "0.0%", "0.0%", "0.0%", "1", "1", "0", "0", "0", "0", "0", "0"],
    ]


@pytest.mark.parametrize("predictions", [0, 1, 3])
def test_each_face_needs_a_prediction_and_there_is_at_least_one_face(predictions: int) -> None:
    labels = np.zeros(2 if predictions else 0, np.int64)
    with pytest.raises(ValueError, match="at least one"):
        measure(labels, np.zeros(predictions, np.int64), FER2013_LABELS)


def test_calibration_is_measured_in_ten_equal_bins() -> None:
    """Two faces at 0.95, one of them right; two at 0.65, both right: 2/4 * 0.45 + 2/4 * 0.35."""
    rest = lambda top: [top] + [(1 - top) / 6] * 6  # noqa: E731
    probabilities = np.array([rest(0.95), rest(0.95), rest(0.65), rest(0.65)])
    trust = reliability_diagram(np.array([0, 1, 0, 0]), probabilities)
    assert trust.ece == pytest.approx(0.4)
    assert trust.nll == pytest.approx(-np.log([0.95, 0.05 / 6, 0.65, 0.65]).mean())
    assert [b.n for b in trust.bins] == [0, 0, 0, 0, 0, 0, 2, 0, 0, 2]
    assert trust.bins[6] == Bin(2, pytest.approx(0.65), 1.0)
    assert trust.bins[9] == Bin(2, pytest.approx(0.95), 0.5)


@pytest.mark.parametrize(("label", "ece", "likelihood"), [(0, 0.0, 1.0), (1, 1.0, 1e-12)])
def test_a_face_of_which_the_network_is_entirely_sure_counts_too(label: int, ece: float, likelihood: float) -> None:
    trust = reliability_diagram(np.array([label]), np.eye(7)[:1])
    assert (trust.ece, trust.nll) == (ece, pytest.approx(-np.log(likelihood)))
    assert trust.bins[-1].n == 1
