"""The bundled model in both runtimes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge.labels import FER2013_LABELS
from edge.model.bundle import MODEL_FILE, find_bundle, open_bundle
from edge.model.preprocessing import encode
from export.cli import main
from export.quantization import legacy_runtime

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not legacy_runtime.available(), reason="tflite-runtime has no wheels for this Python"),
]


def test_the_older_runtime_gives_nearly_the_golden_outputs() -> None:
    bundle = open_bundle(find_bundle("student-small"))
    entry = bundle.card.input
    inputs = np.concatenate([encode(face, entry.scale, entry.zero_point) for face in bundle.golden.faces])
    here = legacy_runtime.outputs(bundle.model, inputs)
    assert here.shape == (16, 7)
    steps = np.abs(here.astype(int) - bundle.golden.outputs)
    assert here.std() > 0
    [tolerance] = bundle.card.tolerances
    assert steps.max() <= tolerance.largest_lsb


def test_a_file_that_it_cannot_run_is_an_error_with_its_words() -> None:
    with pytest.raises(legacy_runtime.LegacyRuntimeError, match="tflite-runtime"):
        legacy_runtime.outputs(b"no model", np.zeros((1, 48, 48, 1), np.int8))


def a_run(folder: Path) -> Path:
    from train.recipes import RECIPES  # noqa: PLC0415
    from train.run import Run  # noqa: PLC0415  TensorFlow

    (folder / "run").mkdir()
    Run(RECIPES["shallow"], "", "", "", "", (), 0, 0, "PublicTest", None).save(folder / "run")
    return folder / "run"


def a_network(_folder: Path) -> Path:
    return find_bundle("student-small") / MODEL_FILE


COMMANDS = [("bundle", [], a_run), ("import", ["--labels", ",".join(FER2013_LABELS)], a_network)]


@pytest.mark.parametrize(("command", "more", "make"), COMMANDS)
def test_an_export_that_cannot_install_it_ends_before_any_work(
    command: str,
    more: list[str],
    make: Callable[[Path], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("tensorflow_model_optimization", reason="the export extra is not installed")
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # as without internet
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    absent, out = str(tmp_path / "absent"), tmp_path / "out"
    assert main([command, str(make(tmp_path)), "--data", absent, "--out", str(out), *more]) == 17
    told = capsys.readouterr().err
    assert "No matching distribution found for tflite-runtime==2.14.0" in told
    assert "Is there a connection to the internet?" in told
    assert not out.exists()


@pytest.mark.parametrize(("command", "more", "_make"), COMMANDS)
def test_a_wrong_name_is_told_before_it_is_downloaded(
    command: str, more: list[str], _make: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorflow_model_optimization", reason="the export extra is not installed")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    absent = str(tmp_path / "absent")
    assert main([command, absent, "--data", absent, "--out", str(tmp_path / "out"), *more]) in (2, 4)
    assert not (tmp_path / "cache").exists()
