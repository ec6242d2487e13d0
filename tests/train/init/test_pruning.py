"""A pruned network computes the same as the wider one where the removed filters contributed nothing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.model.bundle import open_bundle
from edge.model.registry import find_bundle

keras = pytest.importorskip("tf_keras", reason="the train extra is not installed")
pytestmark = pytest.mark.slow

from tests.programs import begin_run  # noqa: E402
from train.init.pruning import filter_contributions, prune_filters  # noqa: E402
from train.models.mobilenet import divide_filters, student  # noqa: E402

READERS = [*(f"conv_pw_{number}" for number in range(1, 14)), "logits"]


def test_filters_that_nothing_reads_are_removed_first() -> None:
    keras.utils.set_random_seed(1)
    faces = np.random.default_rng(1).uniform(-1, 1, (64, 48, 48, 1)).astype(np.float32)
    wide = student("wide", *divide_filters(4), 0.0)
    _read_half(wide, np.random.default_rng(2))
    settled = student("settled", *divide_filters(4), 0.0)
    prune_filters(settled, wide, faces)  # of the same width: only the statistics are measured
    narrow = student("narrow", *divide_filters(8), 0.0)
    assert np.abs(narrow(faces) - settled(faces)).max() > 0.1, "else what follows shows nothing"
    prune_filters(narrow, settled, faces)
    np.testing.assert_allclose(narrow(faces), settled(faces), atol=1e-3)


def test_every_filter_of_a_choosing_layer_is_judged() -> None:
    model = student("judged", *divide_filters(8), 0.0)
    moved = filter_contributions(model, np.random.default_rng(3).uniform(-1, 1, (8, 48, 48, 1)).astype(np.float32))
    assert list(moved) == ["conv1", *READERS[:-1]]
    assert all(moved[name].shape == (model.get_layer(name).filters,) for name in moved)


def test_a_run_starts_from_the_wider_bundle_and_records_it(blobs: Path, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="no TFLite runtime is installed")
    run = begin_run("student-quarter", "student", blobs, tmp_path)
    start = run["sources"][0]
    assert start["name"] == "int8 bundle student"
    command = open_bundle(find_bundle("student")).card.origin.train_command
    assert start["source"].startswith(f"the most telling filters of: {command} (PublicTest ")


def _read_half(model: Any, rng: np.random.Generator) -> None:
    """Of what arrives at every layer that chooses filters, let it and the last layer read a random half."""
    for name in READERS:
        kernel, *bias = model.get_layer(name).get_weights()
        channels = kernel.shape[-2]
        kernel[..., rng.permutation(channels)[: channels // 2], :] = 0
        model.get_layer(name).set_weights([kernel, *bias])
