"""The ResNet50 teacher starts with a student's function, and all of its filters can learn."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("tf_keras", reason="the train extra is not installed")
pytestmark = pytest.mark.slow

import tensorflow as tf  # noqa: E402

from tests.programs import begin_run, brief_run  # noqa: E402
from train.init.net2net import initialize_function_preserving  # noqa: E402
from train.init.pruning import prune_filters  # noqa: E402
from train.models.mobilenet import divide_filters, student  # noqa: E402
from train.models.resnet import teacher  # noqa: E402

FACES = np.random.default_rng(1).uniform(-1, 1, (16, 48, 48, 1)).astype(np.float32)


@pytest.fixture(scope="module", params=[2, 4], ids=["half", "quarter"])
def grown(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """A student whose activations reach both ends of ReLU6, and the teacher that was initialized from it."""
    keras.utils.set_random_seed(2)
    drawn, source = (student(name, *divide_filters(request.param), 0.0) for name in ("drawn", "source"))
    rng = np.random.default_rng(3)
    for norm in (layer for layer in drawn.layers if isinstance(layer, keras.layers.BatchNormalization)):
        _, _, *statistics = norm.get_weights()
        norm.set_weights([*(rng.uniform(low, high, norm.gamma.shape) for low, high in ((1, 3), (-1, 2))), *statistics])
    prune_filters(source, drawn, FACES)  # of the same width: only the statistics are measured
    model = teacher(0.0)
    initialize_function_preserving(model, source, FACES)
    return model, source


def test_the_teacher_computes_the_same_as_the_student(grown: tuple[Any, Any]) -> None:
    model, source = grown
    activations = keras.Model(source.input, [x.output for x in source.layers if isinstance(x, keras.layers.ReLU)])(
        FACES
    )
    assert all((x.numpy() == end).any() for x in activations for end in (0, 6)), "else what follows shows nothing"
    expected = source(FACES).numpy()
    assert np.ptp(expected, axis=0).min() > 0.1
    np.testing.assert_allclose(model(FACES), expected, atol=1e-3 * np.abs(expected).max())


def test_most_filters_of_the_teacher_learn_within_a_few_steps(grown: tuple[Any, Any]) -> None:
    """Also those that add nothing at first: what reads them learns to, and then they do."""
    model, _ = grown
    weights = model.get_weights()
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    before = [norm.gamma.numpy() for norm in norms]
    optimizer = keras.optimizers.Adam(1e-3)
    for _ in range(4):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(model(FACES, training=True) - tf.range(7.0)))
        optimizer.apply_gradients(
            zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables, strict=True)
        )
    changed = [norm.gamma.numpy() for norm in norms]
    model.set_weights(weights)  # for the other tests
    moved = {n.name: np.mean(after != gamma) for n, gamma, after in zip(norms, before, changed, strict=True)}
    assert min(moved.values()) > 0.6, {name: share for name, share in moved.items() if share <= 0.6}


def test_a_run_of_the_teacher_starts_from_a_half_student_and_records_it(few: Path, tmp_path: Path) -> None:
    brief_run("student-half", "none", few, tmp_path / "half")
    run = begin_run("teacher", str(tmp_path / "half"), few, tmp_path / "teacher")
    assert run["sources"][0]["source"].startswith("grown from: fer-train run student-half --data few.csv ")
    assert run["start"] == json.loads((tmp_path / "half" / "run.json").read_text())["best"]["accuracy"]
