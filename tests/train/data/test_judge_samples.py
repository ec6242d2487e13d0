"""The samples that the judge of faces learns from, drawn of the demo's portrait alone."""

import cv2
import numpy as np
import pytest

from edge.camera.picture_file import read_gray
from edge.vision.judge import INPUT_SIDE, FaceJudge
from tests.conftest import PORTRAIT
from train.data.judge_samples import face_samples, other_samples


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    face = cv2.resize(read_gray(PORTRAIT)[65:164, 115:214], (48, 48), interpolation=cv2.INTER_AREA)
    return face[np.newaxis]


def test_targets_say_where_the_face_is(faces: np.ndarray) -> None:
    samples = face_samples(faces, 40, np.random.default_rng(1))
    assert samples.patches.shape == (40, INPUT_SIDE, INPUT_SIDE)
    near = (np.abs(samples.targets[:, 1:]) < (0.3, 0.3, 0.3, 0.5)).all(axis=1)
    said = FaceJudge().outputs(samples.patches)
    for column in range(1, 5):  # right, down, size, roll
        assert np.corrcoef(samples.targets[near, column], said[near, column])[0, 1] > 0.6


def test_what_is_no_face_never_shows_one(faces: np.ndarray) -> None:
    """Neither a face whose pieces lie in the right order by chance, nor a face's mirror image beside it."""
    samples = other_samples(faces, 1500, np.random.default_rng(1))
    assert not samples.targets.any()
    assert FaceJudge().outputs(samples.patches)[:, 0].max() < 4


def test_with_a_judge_only_what_it_takes_for_faces_is_left(faces: np.ndarray) -> None:
    judge = FaceJudge()
    samples = other_samples(faces, 20, np.random.default_rng(1), judge)
    assert 0 < len(samples.patches) <= 20
    assert (judge.outputs(samples.patches)[:, 0] > 0).all()
