"""The judge of faces is trained on a little noise: the weights are those that the device reads."""

from importlib import resources
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="the train extra is not installed")
pytestmark = pytest.mark.slow

from edge.vision.judge import FACE_SCORE, INPUT_SIDE, FaceJudge  # noqa: E402
from tests.programs import fer_train  # noqa: E402
from train.data.judge_samples import other_samples  # noqa: E402
from train.judge import calibrate  # noqa: E402


def test_a_trained_judge_can_be_used(blobs: Path, tmp_path: Path) -> None:
    out = tmp_path / "judge.npz"
    done = fer_train("judge", "--data", blobs, "--out", out, "--samples", 40, "--epochs", 1)
    assert done.returncode == 0, done.stderr
    assert "of drawn faces" in done.stdout
    with np.load(out) as arrays:
        judge = FaceJudge(dict(arrays))
    outputs = judge.outputs(np.zeros((2, INPUT_SIDE, INPUT_SIDE), np.uint8))
    assert outputs.shape == (2, 5)
    assert np.isfinite(outputs).all()


def test_a_folder_that_does_not_exist_is_named_before_the_training(blobs: Path, tmp_path: Path) -> None:
    done = fer_train("judge", "--data", blobs, "--out", tmp_path / "absent" / "judge.npz")
    assert done.returncode == 2
    assert "absent" in done.stderr


def test_a_calibrated_judge_takes_one_in_1000_for_faces_whatever_its_scores_were() -> None:
    faces = np.random.default_rng(1).integers(0, 256, (5, 48, 48), np.uint8)
    with (resources.files("edge.vision") / "face-judge.npz").open("rb") as stream, np.load(stream) as arrays:
        weights = dict(arrays)
    weights["output_bias"] += np.float16(9)
    calibrate(weights, faces, 400, seed=1)
    absent = other_samples(faces, 400, np.random.default_rng(2)).patches
    assert (FaceJudge(weights).outputs(absent)[:, 0] > FACE_SCORE).mean() <= 0.01
    shifted = weights["output_bias"][0]
    calibrate(weights, faces, 400, seed=1)
    assert weights["output_bias"][0] == pytest.approx(shifted, abs=0.02)
