"""Networks that train with matrix products are the same functions, gradients and weights as those with convolutions."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="the train extra is not installed")
pytestmark = pytest.mark.slow

import tensorflow as tf  # noqa: E402
from tf_keras import layers  # noqa: E402

from train.models.pointwise import Conv2D, with_products  # noqa: E402
from train.models.registry import MODELS  # noqa: E402

FACES = np.random.default_rng(7).normal(0, 0.5, (4, 48, 48, 1)).astype(np.float32)


def logits_and_gradients(model: Any) -> tuple[Any, list[Any]]:
    with tf.GradientTape() as tape:
        logits = model(FACES, training=True)
        loss = tf.reduce_sum(logits * tf.range(7.0))
    return logits, tape.gradient(loss, model.trainable_variables)


def test_products_compute_what_the_convolutions_do() -> None:
    model = MODELS["student-quarter"].build(0.0)
    same = with_products(model)
    expected, gradients = logits_and_gradients(model)
    logits, others = logits_and_gradients(same)
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3)
    assert len(gradients) == len(others)
    for variable, gradient, other in zip(model.trainable_variables, gradients, others, strict=True):
        size = max(float(np.abs(gradient).max()), 1e-3)
        np.testing.assert_allclose(other / size, gradient / size, atol=1e-2, err_msg=variable.name)


def test_only_convolutions_of_single_pixels_become_products() -> None:
    model = MODELS["student-quarter"].build(0.0)
    same = with_products(model)
    for layer, other in zip(model.layers, same.layers, strict=True):
        pointwise = isinstance(layer, layers.Conv2D) and layer.kernel_size == layer.strides == (1, 1)
        assert isinstance(other, Conv2D) == pointwise, layer.name
        assert other.name == layer.name


def test_a_frozen_layer_stays_frozen() -> None:
    model = MODELS["student-quarter"].build(0.0)
    model.get_layer("conv_pw_3").trainable = False
    same = with_products(model)
    assert [layer.name for layer in same.layers if not layer.trainable] == ["conv_pw_3"]


def test_weights_of_one_are_those_of_the_other(tmp_path: Path) -> None:
    trained = with_products(MODELS["student-quarter"].build(0.0))
    trained.save_weights(tmp_path / "trained.weights.h5")
    exported = MODELS["student-quarter"].build(0.0)
    exported.load_weights(tmp_path / "trained.weights.h5")
    for one, other in zip(trained.get_weights(), exported.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
