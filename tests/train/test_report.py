"""The report of a run: what it shows of training and validation, and that text stays text."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="the train extra is not installed")

from edge.evaluation.fer2013 import LabelledFaces, Split
from train.report import render, table, write_report

_OLD = {
    "loss": 9.0,
    "accuracy": 0.25,
    "learning_rate": 1e-3,
    "training_loss": None,
    "training_accuracy": None,
    "validation_loss": None,
}


def report(folder: Path, **measured: float) -> str:
    history = [SimpleNamespace(epoch=0, **_OLD), SimpleNamespace(epoch=1, **{**_OLD, "accuracy": 0.5, **measured})]
    faces = LabelledFaces(np.zeros((4, 48, 48), np.uint8), np.array([0, 0, 1, 1]), None, Split.PUBLIC)
    write_report(
        folder, 'fer-train run shallow --weights "a<b"', history, faces, np.eye(7, dtype=np.float32)[[0, 1, 1, 0]]
    )  # type: ignore[arg-type]
    return (folder / "report.html").read_text()


def test_loss_and_accuracy_are_of_training_and_validation(tmp_path: Path) -> None:
    page = report(tmp_path, training_loss=1.25, training_accuracy=0.625, validation_loss=1.5)
    assert "<td>Training<td>1.250<td>62.50%</tr><tr><td>PublicTest<td>1.500<td>50.00%" in page
    for title in ("loss (cross-entropy of the label)", "accuracy", "what training minimizes", "learning rate"):
        assert f">{title}<" in page


def test_a_history_of_an_earlier_version_leaves_cells_empty(tmp_path: Path) -> None:
    assert "<td>Training<td><td></tr><tr><td>PublicTest<td><td>50.00%" in report(tmp_path)


def test_each_bin_of_the_reliability_diagram_has_its_count(tmp_path: Path) -> None:
    """Every confidence is e / (e + 6) = 31.2 %, and half of the four answers are right."""
    assert "<td>30% to 40%<td>4<td>31.2%<td>50.0%</tr></table>" in report(tmp_path)


def test_text_is_no_markup(tmp_path: Path) -> None:
    assert "<code>fer-train run shallow --weights &#34;a&lt;b&#34;</code>" in report(tmp_path)
    assert table(["<"], [["&"]]) == "<table><tr><th>&lt;</tr><tr><td>&amp;</tr></table>"
    assert "<title>a &lt; b</title>" in render("a < b", [])
