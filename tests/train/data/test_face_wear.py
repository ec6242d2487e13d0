"""Drawn glasses and beards: how often, and where in a face."""

import numpy as np
import pytest

from train.data.face_wear import wear

SKIN = np.full((48, 48), 180, np.uint8)
MOST = 400


@pytest.fixture(scope="module")
def worn() -> np.ndarray:
    rng = np.random.default_rng(1)
    return np.stack([wear(SKIN, rng) for _ in range(MOST)])


def test_most_faces_stay_as_they_are(worn: np.ndarray) -> None:
    assert (worn.shape, worn.dtype) == ((MOST, 48, 48), np.uint8)
    assert 0.25 < (worn != SKIN).any(axis=(1, 2)).mean() < 0.4
    assert (SKIN == 180).all()


def test_glasses_lie_over_the_eyes_and_beards_around_the_mouth(worn: np.ndarray) -> None:
    changed = np.abs(worn.astype(int) - SKIN).mean(axis=0)
    eyes, between, mouth, brow = changed[15:23, 11:20], changed[24:28, 22:26], changed[31:45, 16:32], changed[:9]
    assert min(eyes.mean(), mouth.mean()) > 3 * between.mean()
    assert brow.max() < 0.5
    assert changed[15:23, 28:37].mean() == pytest.approx(eyes.mean(), rel=0.25)


def test_the_same_generator_draws_the_same() -> None:
    first, again, other = (
        np.stack([wear(SKIN, rng) for _ in range(30)]) for rng in map(np.random.default_rng, (1, 1, 2))
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
