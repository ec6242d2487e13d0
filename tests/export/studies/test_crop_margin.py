"""The measurement of the crop margin, on a few real faces, and its arithmetic."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.camera.picture_file import read_gray
from edge.errors import DataError
from edge.evaluation.fer2013 import read_faces
from edge.model.bundle import find_bundle, open_bundle
from edge.model.classifier import Classifier
from edge.model.preprocessing import CROP_MARGIN
from edge.records import Box
from export.studies.crop_margin import (
    MarginStudy,
    MarginTrial,
    mcnemar_p_value,
    paste_face,
    scan_finder,
    study_margins,
    tracking_finder,
    write_margin,
)
from tests.conftest import PORTRAIT

rng = np.random.default_rng
PROGRAM = Path(sys.executable).with_name("fer-export")


def test_mcnemars_test_is_the_exact_one() -> None:
    assert mcnemar_p_value(0, 0) == 1.0
    assert mcnemar_p_value(5, 5) == 1.0
    assert mcnemar_p_value(1, 9) == mcnemar_p_value(9, 1) == pytest.approx(2 * 11 / 1024)


def test_a_face_is_pasted_into_its_square_and_its_border_is_continued() -> None:
    face = np.full((48, 48), 40, np.uint8)
    face[12:36, 12:36] = 220
    scene = paste_face(face, Box(200, 100, 144, 144))
    assert scene.shape == (480, 640)
    assert scene[172, 272] == pytest.approx(220, abs=12)
    assert scene[60, 60] == pytest.approx(40, abs=12)


def test_noise_without_a_face_is_an_error(blobs: Path) -> None:
    faces = read_faces(blobs, "PublicTest")
    with pytest.raises(DataError, match="none of the 28 faces was detected"):
        study_margins(Classifier(open_bundle(find_bundle("student-small"))), faces, [0.0], 1, scan_finder())


def test_a_face_is_found_and_followed_in_a_scene_that_moves() -> None:
    gray = read_gray(PORTRAIT)
    face = cv2.resize(gray[65:164, 115:214], (48, 48), interpolation=cv2.INTER_AREA)
    find = tracking_finder(Classifier(open_bundle(find_bundle("student-small"))))
    for x, moved in ((100, 111), (400, 389)):
        picture, square, boxes = find(paste_face(face, Box(x, 150, 144, 144)), Box(x, 150, 144, 144), rng(1))
        assert picture.shape == (480, 640)
        assert square == Box(moved, 150, 144, 144)
        assert [box.overlap(square) > 0.6 for box in boxes] == [True]


def test_the_bundled_model_has_the_margin_that_new_bundles_get() -> None:
    assert open_bundle(find_bundle("student-small")).card.crop_margin == CROP_MARGIN


def test_only_the_margin_of_a_card_changes_and_the_bundle_still_opens(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(find_bundle("student-small"), folder)
    before = open_bundle(folder)
    write_margin(before, 0.05)
    write_margin(open_bundle(folder), 0.075)
    after = open_bundle(folder)
    assert after.card.crop_margin == 0.075
    assert after.card.origin.chosen.count("crop margin by PublicTest") == 1
    changed = [name for name in after.card.__struct_fields__ if getattr(after.card, name) != getattr(before.card, name)]
    assert set(changed) <= {"crop_margin", "origin"}


@pytest.mark.slow
@pytest.mark.parametrize("how", [[], ["--followed"]], ids=["scanned", "followed"])
def test_real_faces_are_found_and_paired_with_themselves(public_test: Path, how: list[str]) -> None:
    command = [PROGRAM, "margin", "student-small", "--data", public_test, "--faces", "40", "--json", *how]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["faces"], told["split"]) == (40, "PublicTest")
    assert 0.5 < told["recall"] < 0.95
    assert told["found"] == round(40 * told["recall"])
    by_margin = {trial["margin"]: trial for trial in told["trials"]}
    for trial in by_margin.values():
        assert trial["difference"] == pytest.approx((trial["gained"] - trial["lost"]) / told["found"])
        assert trial["accuracy"] == pytest.approx(told["direct"] + trial["difference"])
    assert told["best"] in by_margin
    assert by_margin[told["best"]]["behind"] == 0 == min(trial["behind"] for trial in told["trials"])
    assert abs(by_margin[0.0]["difference"]) < 0.2
    assert 0.9 < told["side"] < 1.1


def study(*trials: MarginTrial) -> MarginStudy:
    return MarginStudy(100, 90, 0.7, 0.7, 0.0, 0.0, 1.0, trials)


def trial(margin: float, nll: float, behind: float, error: float) -> MarginTrial:
    return MarginTrial(margin, 0.7, 0.0, 0.01, 5, 5, 1.0, nll, behind, error)


def test_the_margin_on_the_card_stays_where_chance_may_be_why_another_is_better() -> None:
    best = trial(0.05, 0.80, 0.0, 0.0)
    assert study(trial(0.0, 0.81, 0.01, 0.006), best).choose(0.0) == 0.0
    assert study(trial(0.0, 0.83, 0.03, 0.006), best).choose(0.0) == 0.05
    assert study(trial(0.0, 0.81, 0.01, 0.006), best).choose(0.2) == 0.05, "it was not measured"
