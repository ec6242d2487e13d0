"""``fer-export class-recall``: its figures on networks made up for it, and the command on a bundle."""

import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy", reason="the train extra is not installed")
pytest.importorskip("ai_edge_litert", reason="the litert extra is not installed")

from edge.errors import DataError
from edge.evaluation.fer2013 import LabelledFaces
from edge.labels import FER2013_LABELS
from export.studies.class_recall import (
    ClassRecallRow,
    class_recall_command,
    measure_parts,
    paired_change,
    voted_rows,
)
from train.data.ferplus import VOTES

PROGRAM = Path(sys.executable).with_name("fer-export")
ANGRY, DISGUST, _, HAPPY, SAD, _, NEUTRAL = range(7)
PRIOR = np.array([0.2, 0.01, 0.15, 0.24, 0.15, 0.1, 0.15])


def timid_about_disgust(n: int) -> tuple[np.ndarray, LabelledFaces]:
    """Calibrated logits that are right, but for disgust, which is called angry by a lead of 1, and its faces."""
    labels = np.arange(n) % len(FER2013_LABELS)
    logits = 3.0 * np.eye(len(FER2013_LABELS))[labels]
    logits[labels == DISGUST, ANGRY] = 4.0
    return logits, LabelledFaces(np.zeros((n, 48, 48), np.uint8), labels, None)


def rows_of(n: int = 70, threshold: float = 0.5) -> dict[tuple[str, str], ClassRecallRow]:
    logits, faces = timid_about_disgust(n)
    parts = measure_parts(logits, PRIOR, threshold, faces, None)
    assert [(part.name, part.faces) for part in parts] == [
        ("all faces", n),
        ("the first half", n // 2),
        ("the other half", n // 2),
    ]
    return {(part.name, row.method): row for part in parts for row in part.rows}


def test_the_recall_of_each_label_is_shown_before_and_after() -> None:
    rows = rows_of()
    before, after = rows["all faces", "as it is"], rows["all faces", "tau 0.5"]
    assert before.recalls == {label: float(label != "disgust") for label in FER2013_LABELS}
    assert before.mean_recall == pytest.approx(6 / 7)
    assert after.recalls == dict.fromkeys(FER2013_LABELS, 1.0)
    assert after.mean_recall_change.points == pytest.approx(100 / 7)
    assert (before.accuracy_change.points, before.accuracy_change.error) == (0.0, 0.0)


def test_coverage_and_accuracy_follow_the_threshold() -> None:
    none = rows_of(threshold=0.9999)["all faces", "as it is"]
    assert (none.coverage, none.covered_accuracy) == (0.0, 0.0)
    every = rows_of(threshold=0.0)["all faces", "as it is"]
    assert (every.coverage, every.covered_accuracy) == (1.0, every.accuracy)


def test_a_change_weighs_groups_alike_and_has_a_paired_error() -> None:
    before = np.array([True, True, False, False, False, False])
    after = np.array([True, False, False, True, True, False])
    groups = np.array([0, 0, 1, 1, 1, 1])
    change = paired_change(before, after, groups)
    assert change.points == pytest.approx(100 * (-0.5 + 0.5) / 2)
    assert change.error == pytest.approx(100 * np.sqrt(0.25 / 2 + 0.25 / 4) / 2)
    assert str(paired_change(before, after, np.zeros(6, int))).split() == ["+16.67", "±", "28.05"]


def test_votes_tell_what_people_saw_on_the_faces_of_a_label() -> None:
    labels = np.array([SAD, SAD, SAD, SAD, SAD, HAPPY])
    seen = np.array([SAD, NEUTRAL, NEUTRAL, ANGRY, -1, NEUTRAL])
    predicted = np.array([SAD, SAD, NEUTRAL, ANGRY, SAD, NEUTRAL])
    rows = [(row.label, row.people_saw, row.faces) for row in voted_rows(predicted, labels, seen)]
    assert rows == [("happy", "neutral", 1), ("sad", "sad", 1), ("sad", "neutral", 2), ("sad", "something else", 2)]
    shares = [(row.called_so, row.called_neutral) for row in voted_rows(predicted, labels, seen)]
    assert shares == [(0.0, 1.0), (1.0, 0.0), (0.5, 0.5), (0.5, 0.0)]


def test_the_faces_that_people_call_neutral_too_are_counted_once() -> None:
    both = np.array([NEUTRAL])
    [row] = voted_rows(both, both, both)
    assert (row.label, row.people_saw, row.called_so) == ("neutral", "neutral", 1.0)


def test_the_command_measures_a_bundle(blobs: Path) -> None:
    command = [PROGRAM, "class-recall", "student-small", "--data", blobs, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    document = json.loads(done.stdout)
    assert (document["split"], document["faces"]) == ("PublicTest", 28)
    [bundle] = document["bundles"]
    assert bundle["shares"]["training"] == {label: round(1 / 7, 5) for label in FER2013_LABELS}
    [every, *_] = bundle["parts"]
    assert (every["name"], every["faces"]) == ("all faces", 28)
    assert list(every["rows"][0]["recalls"]) == list(FER2013_LABELS)
    assert bundle["votes"] == []


def test_one_face_has_no_halves(blobs: Path, tmp_path: Path) -> None:
    lonely = tmp_path / "lonely.csv"
    lonely.write_text("".join(blobs.read_text().splitlines(keepends=True)[:114]))
    with pytest.raises(DataError, match="must have at least two faces"):
        class_recall_command(Namespace(bundles=["student-small"], data=lonely, votes=None, json=False))


def test_the_tables_show_every_part_and_what_people_saw(
    blobs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    votes = tmp_path / "votes.csv"
    usages = ["Training"] * 112 + ["PublicTest"] * 28
    seen_neutral = [10 if vote == "neutral" else 0 for vote in VOTES]
    table = [["Usage", *VOTES], *([usage, *map(str, seen_neutral)] for usage in usages)]
    votes.write_text("".join(",".join(row) + "\n" for row in table))
    arguments = Namespace(bundles=["student-small"], data=blobs, votes=votes, json=False)
    assert class_recall_command(arguments) == 0
    shown = capsys.readouterr().out
    lines = shown.splitlines()
    assert lines[0] == "student-small: 28 faces of PublicTest, int8, single crop"
    assert any(line.split()[:3] == ["in", "Training", "(the"] and line.split()[4] == "14.3" for line in lines)
    assert "all faces: 28; changes in points" in shown
    assert "where FERPlus's majority agrees with the label: 4" in shown
    assert [line.split()[:3] for line in lines if line.startswith("sad ")] == [["sad", "neutral", "4"]]
    widths = {len(line) for line in lines if line.startswith(("as it is", "tau", "bias")) or "accuracy  " in line}
    assert len(widths) <= 2  # all labels, or neutral alone


def test_data_without_training_faces_has_no_prior(blobs: Path, tmp_path: Path) -> None:
    public = tmp_path / "public.csv"
    public.write_text(
        "".join(line for line in blobs.read_text().splitlines(keepends=True) if not line.endswith("Training\n"))
    )
    command = [PROGRAM, "class-recall", "student-small", "--data", public]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 7
    assert "Training" in done.stderr
