"""How a scaling and an order of labels are told by a network's answers; the answers are made up."""

from collections.abc import Sequence

import numpy as np
import pytest

pytest.importorskip("scipy", reason="the export extra is not installed")

from edge.errors import UsageError
from edge.evaluation.fer2013 import LabelledFaces, Split
from edge.labels import FER2013_LABELS
from export.importing.detection import choose_scaling
from export.importing.scaling import SCALINGS, PixelScaling

ONE, MINUS, RAW = (SCALINGS[name] for name in ("zero-one", "minus-one-one", "raw"))
LABELS = np.arange(700) % 7


def faces(names: tuple[str, ...] = FER2013_LABELS, labels: Sequence[int] | np.ndarray = LABELS) -> LabelledFaces:
    pixels = np.zeros((len(labels), 48, 48), np.uint8)
    return LabelledFaces(pixels, np.asarray(labels, np.int64), None, Split.TRAINING, names)


def answers(share: float, seed: int = 0) -> np.ndarray:
    """The right class for this share of the faces, any class for the others."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(len(LABELS)) < share, LABELS, rng.integers(0, 7, len(LABELS)))


def test_the_scaling_with_most_right_answers_is_chosen_and_the_figures_kept() -> None:
    given = {"zero-one": answers(0.1), "minus-one-one": answers(0.7), "raw": answers(0)}
    chosen = choose_scaling((ONE, MINUS, RAW), lambda scaling: given[scaling.name], faces())
    assert chosen.scaling is MINUS
    assert chosen.close == ()
    assert set(chosen.accuracies) == set(given)
    assert "by accuracy on 700 faces of Training: zero-one" in chosen.sentence


def test_scalings_that_chance_cannot_tell_apart_are_named() -> None:
    best = answers(0.7)
    nearly = best.copy()
    nearly[:3] = (LABELS[:3] + 1) % 7
    given = {"zero-one": best, "minus-one-one": nearly, "raw": answers(0)}
    assert choose_scaling((ONE, MINUS, RAW), lambda scaling: given[scaling.name], faces()).close == ("minus-one-one",)


def test_another_order_of_the_labels_is_found() -> None:
    alphabetical = tuple(sorted(FER2013_LABELS))
    order = np.array([alphabetical.index(name) for name in FER2013_LABELS])
    with pytest.raises(UsageError, match=f"Give --labels {','.join(alphabetical)}"):
        choose_scaling((ONE,), lambda _: order[answers(0.5)], faces())


def test_an_order_that_fits_better_by_chance_alone_is_not_suggested() -> None:
    weak = answers(0.12, seed=3)
    assert choose_scaling((ONE,), lambda _: weak, faces()).accuracies["zero-one"] == pytest.approx(
        (weak == LABELS).mean(), abs=1e-5
    )


def test_a_network_that_guesses_is_refused_with_what_was_tried() -> None:
    def guess(scaling: PixelScaling) -> np.ndarray:
        return answers(0, seed=len(scaling.name))

    with pytest.raises(UsageError, match=r"no better than chance on 700 faces .*zero-one .*raw .*always angry"):
        choose_scaling((ONE, RAW), guess, faces())
