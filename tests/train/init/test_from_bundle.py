"""Training that starts from the int8 file of a bundle."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="the train extra is not installed")
pytest.importorskip("ai_edge_litert", reason="no TFLite runtime is installed")
pytestmark = pytest.mark.slow

import tf_keras as keras  # noqa: E402

from edge.errors import UsageError  # noqa: E402
from edge.model.bundle import find_bundle, open_bundle  # noqa: E402
from edge.model.preprocessing import dequantize, normalize  # noqa: E402
from tests.programs import begin_run  # noqa: E402
from train.data.dataset import read_splits  # noqa: E402
from train.init.from_bundle import load_bundle_weights  # noqa: E402
from train.initial_weights import statistics_faces  # noqa: E402
from train.models.registry import MODELS  # noqa: E402
from train.trainer import measure_model, predict_logits  # noqa: E402


@pytest.mark.parametrize("name", ["student", "student-small"])
def test_a_network_gets_the_weights_of_its_bundle(name: str) -> None:
    """The golden outputs are those of the int8 file, so the float network differs from them by rounding only."""
    bundle = open_bundle(find_bundle(name))
    keras.utils.set_random_seed(1)  # random weights may agree with a network by chance
    model = MODELS[name].build(0.0)
    before = predict_logits(model, bundle.golden.faces)
    load_bundle_weights(model, bundle, normalize(bundle.golden.faces)[..., np.newaxis])
    said = predict_logits(model, bundle.golden.faces)
    golden = dequantize(bundle.golden.outputs, bundle.card.output.scale, bundle.card.output.zero_point)
    assert np.corrcoef(said.ravel(), golden.ravel())[0, 1] > 0.98
    assert np.corrcoef(before.ravel(), golden.ravel())[0, 1] < 0.7
    norm = model.get_layer("conv_pw_4_bn")
    assert norm.moving_variance.numpy().mean() > 1e-3, "measured, so that training can go on from it"


def test_a_bundle_of_another_network_is_refused() -> None:
    bundle = open_bundle(find_bundle("student"))
    with pytest.raises(UsageError, match="not the weights of student-small"):
        load_bundle_weights(MODELS["student-small"].build(0.0), bundle, np.zeros((4, 48, 48, 1), np.float32))


def test_a_run_starts_from_a_bundle_and_records_it(blobs: Path, tmp_path: Path) -> None:
    run = begin_run("student-small", "student-small", blobs, tmp_path)
    bundle, splits = open_bundle(find_bundle("student-small")), read_splits(blobs)
    start = run["sources"][0]
    assert (start["role"], start["name"], start["sha256"]) == (
        "start",
        "int8 bundle student-small",
        bundle.card.sha256,
    )
    assert "--weights student-small" in run["command"]
    model = MODELS["student-small"].build(0.0)
    load_bundle_weights(model, bundle, statistics_faces(splits.training))
    assert run["start"] == pytest.approx(measure_model(model, splits.public).accuracy)
