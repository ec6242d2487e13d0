"""A trained network in place of the device's classifier, in the device's own code."""

import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="the train extra is not installed")
pytestmark = pytest.mark.slow

from edge.cli.classify import classify, find_faces, print_expressions  # noqa: E402
from edge.errors import UsageError  # noqa: E402
from edge.model.bundle import find_bundle, open_bundle  # noqa: E402
from edge.model.classifier import Classifier  # noqa: E402
from edge.model.preprocessing import softmax  # noqa: E402
from edge.settings import Settings  # noqa: E402
from tests.conftest import PORTRAIT  # noqa: E402
from train.cli import _main  # noqa: E402
from train.evaluation.watching import PredictorClassifier  # noqa: E402

BUNDLE = Path("student-small")


def test_it_gives_the_mean_probabilities_of_a_face_and_its_mirror_image() -> None:
    face = np.random.default_rng(2).integers(0, 256, (48, 48), np.uint8)
    device = Classifier(open_bundle(find_bundle("student-small")))
    once, mirrored = softmax(device.read(face)), softmax(device.read(np.ascontiguousarray(face[:, ::-1])))
    np.testing.assert_allclose(softmax(PredictorClassifier(BUNDLE).read(face)), once, atol=1e-6)
    np.testing.assert_allclose(softmax(PredictorClassifier(BUNDLE, 2).read(face)), (once + mirrored) / 2, atol=1e-6)
    with pytest.raises(UsageError, match="--tta 11"):
        PredictorClassifier(BUNDLE, 11)


def test_pictures_give_what_the_device_gives(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = Namespace(config=None, images=[PORTRAIT], json=True, bundle="student-small")
    assert classify(arguments) == 0
    of_device = json.loads(capsys.readouterr().out)
    classifier = PredictorClassifier(BUNDLE)
    pictures = find_faces([PORTRAIT], Settings(), classifier.card.crop_margin)
    assert print_expressions("fer-train", pictures, classifier, as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == of_device


def test_a_folder_of_pictures_is_watched_as_on_a_device(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "pictures"
    source.mkdir()
    for number in range(12):
        cv2.imwrite(str(source / f"{number:02}.png"), cv2.imread(str(PORTRAIT)))
    assert _main(["watch", str(BUNDLE), "--source", str(source), "--tta", "2"]) == 0
    told = capsys.readouterr()
    assert [json.loads(line)["kind"] for line in told.out.splitlines()] == ["appeared", "left"]
    assert "student-small on bundle student-small, int8 on" in told.err
    assert "mean of 2 views" in told.err


@pytest.mark.parametrize("command", ["classify", "watch"])
def test_no_picture_is_dumped_with_the_memory(command: str, tmp_path: Path) -> None:
    program = (
        "import ctypes, sys; from train.cli import main\n"
        f"sys.argv = ['fer-train', {command!r}, *sys.argv[1:]]; main()\n"
        "print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"  # PR_GET_DUMPABLE
    )
    source = ("--source", tmp_path) if command == "watch" else (PORTRAIT,)
    done = subprocess.run(
        [sys.executable, "-c", program, BUNDLE, *source], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.splitlines()[-1] == "0", done.stderr
