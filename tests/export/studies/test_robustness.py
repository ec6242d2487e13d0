"""``fer-export robustness``: its table on networks made up for it, and the command on a bundle."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="the train extra is not installed")
pytest.importorskip("ai_edge_litert", reason="the litert extra is not installed")

from edge.evaluation.fer2013 import LabelledFaces
from edge.labels import FER2013_LABELS
from export.studies.robustness import (
    CLEAN,
    LEVELS,
    RobustnessTable,
    degraded_faces,
    format_differences,
    format_robustness,
    measure_robustness,
)
from train.data.degradations import DEGRADATIONS

PROGRAM = Path(sys.executable).with_name("fer-export")


def some_faces(n: int) -> LabelledFaces:
    pixels = np.random.default_rng(0).integers(40, 200, (n, 48, 48)).astype(np.uint8)
    return LabelledFaces(pixels, np.arange(n) % len(FER2013_LABELS), None)


def always_sad(faces: np.ndarray) -> np.ndarray:
    """Logits that predict ``sad`` for every face, with low confidence where a face has little contrast."""
    logits = np.zeros((len(faces), len(FER2013_LABELS)))
    logits[:, FER2013_LABELS.index("sad")] = np.where(faces.std(axis=(1, 2)) > 18, 3.0, 0.5)
    return logits


def some_table(name: str = "one") -> RobustnessTable:
    clean, *degraded = measure_robustness(always_sad, 0.5, some_faces(70))
    return RobustnessTable(name, "0" * 64, clean, tuple(degraded))


def test_every_kind_has_two_levels_or_more_from_mild_to_severe() -> None:
    assert set(LEVELS) == set(DEGRADATIONS)
    pixels = some_faces(20).pixels
    forms = list(degraded_faces(pixels))
    assert (forms[0][0], np.array_equal(forms[0][2], pixels)) == (CLEAN, True)
    for kind, levels in LEVELS.items():
        changes = [np.abs(faces.astype(int) - pixels).mean() for name, _, faces in forms if name == kind]
        assert len(changes) == len(levels) >= 2
        assert changes == sorted(changes), kind
        assert changes[0] > 0


def test_the_pictures_of_one_level_do_not_depend_on_the_other_levels() -> None:
    pixels = some_faces(5).pixels
    whole = {(kind, level): faces for kind, level, faces in degraded_faces(pixels)}
    [_, (kind, level, faces)] = degraded_faces(pixels, {"roll": (30.0,)})
    assert np.array_equal(faces, whole[kind, level])


def test_accuracy_coverage_calibration_and_the_most_frequent_error_are_measured() -> None:
    table = some_table()
    assert table.clean.accuracy == pytest.approx(1 / 7)
    assert (table.clean.coverage, table.clean.covered_accuracy) == (1.0, table.clean.accuracy)
    assert table.clean.top_error == ("sad", pytest.approx(6 / 7))
    confidence = np.exp(3) / (np.exp(3) + 6)
    assert table.clean.ece == pytest.approx(confidence - 1 / 7, abs=1e-6)
    [faint] = [row for row in table.degraded if row.level == "0.25 of the contrast"]
    assert (faint.kind, faint.coverage, faint.covered_accuracy) == ("low contrast", 0.0, 0.0)


def test_a_kind_is_the_mean_of_its_levels_and_the_table_the_mean_of_its_kinds() -> None:
    table = some_table()
    coverage = {kind: [row.coverage for row in table.degraded if row.kind == kind] for kind in LEVELS}
    assert coverage["low contrast"] != [coverage["low contrast"][0]] * 2  # else the mean would not show
    by_kind = {row.kind: row.coverage for row in table.kind_means()}
    assert by_kind == {kind: pytest.approx(np.mean(levels)) for kind, levels in coverage.items()}
    assert table.mean().coverage == pytest.approx(np.mean(list(by_kind.values())))


def test_the_most_frequent_error_of_a_mean_is_that_of_the_summed_shares() -> None:
    labels = np.arange(70) % len(FER2013_LABELS)
    faces = LabelledFaces(some_faces(70).pixels, labels, None)
    calls = iter(range(100))

    def often_fear(pixels: np.ndarray) -> np.ndarray:
        """Predicts ``fear`` for 40 faces always, and for the rest each time another label."""
        predicted = np.full(len(pixels), FER2013_LABELS.index("fear"))
        predicted[40:] = next(calls) % len(FER2013_LABELS)
        return np.eye(len(FER2013_LABELS))[predicted] * 5.0

    clean, *degraded = measure_robustness(often_fear, 0.5, faces)
    table = RobustnessTable("one", "0" * 64, clean, tuple(degraded))
    label, share = table.mean().top_error
    wrong = [row.error_shares["fear"] for row in degraded if row.kind == "roll"]
    assert label == "fear"
    assert next(row for row in table.kind_means() if row.kind == "roll").error_shares["fear"] == np.mean(wrong)
    assert share == pytest.approx(np.mean([row.error_shares["fear"] for row in table.kind_means()]))


def test_several_networks_are_compared_with_the_first_one() -> None:
    lines = format_differences([some_table("one"), some_table("two")]).splitlines()
    assert lines[0].split() == ["accuracy", "one", "two"]
    assert lines[1].split() == ["clean", "14.29%", "14.29%", "+0.00"]
    assert lines[-1].split()[0] == "mean"
    assert "clean" in format_robustness(some_table(), some_faces(70)).splitlines()[2]


def test_the_command_measures_a_bundle_and_draws(blobs: Path, tmp_path: Path) -> None:
    drawing = tmp_path / "robustness.svg"
    command = [PROGRAM, "robustness", "student-small", "--data", blobs, "--out", drawing, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    document = json.loads(done.stdout)
    assert (document["split"], document["faces"]) == ("PublicTest", 28)
    [bundle] = document["bundles"]
    assert bundle["bundle"] == "student-small"
    assert [row["kind"] for row in bundle["kinds"]] == list(LEVELS)
    assert len(bundle["levels"]) == sum(map(len, LEVELS.values()))
    assert 0 <= bundle["mean"]["coverage"] <= 1
    assert {"student-small", "low resolution 24 px"} <= set(drawing.read_text().replace("<", ">").split(">"))


@pytest.mark.parametrize(("out", "measured"), [("none/a.svg", False), ("/dev/full", True)])
def test_no_table_is_lost_to_a_drawing_that_cannot_be_written(
    blobs: Path, tmp_path: Path, out: str, *, measured: bool
) -> None:
    """A path is checked before the work; only a full disk is found after it."""
    command = [PROGRAM, "robustness", "student-small", "--data", blobs, "--out", tmp_path / out]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "cannot be written" in done.stderr
    assert ("covered accuracy" in done.stdout) == measured
