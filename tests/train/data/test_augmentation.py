import numpy as np

from edge.model.preprocessing import normalize
from tests.conftest import ROOT
from train.data.augmentation import augment


def faces(n: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (n, 48, 48)).astype(np.uint8)


def test_views_are_drawn_from_the_generator_alone() -> None:
    pixels = faces(32)
    kept = pixels.copy()
    first = augment(pixels, np.random.default_rng([3, 1]))
    assert np.array_equal(first, augment(pixels, np.random.default_rng([3, 1])))
    assert not np.array_equal(first, augment(pixels, np.random.default_rng([3, 2])))
    assert np.array_equal(pixels, kept)
    assert first.shape == pixels.shape
    assert first.dtype == np.uint8


def test_views_stay_close_to_the_face_they_show() -> None:
    """A bright disc in the middle stays near the middle, and about half of the faces are mirrored."""
    y, x = np.mgrid[:48, :48]
    disc = np.where((y - 23.5) ** 2 + (x - 15.5) ** 2 < 36, 220, 40).astype(np.uint8)
    views = augment(np.repeat(disc[None], 400, axis=0), np.random.default_rng(5)).astype(float)
    weight = views - np.median(views, axis=(1, 2), keepdims=True)
    weight[weight < 40] = 0
    seen = weight.sum(axis=(1, 2)) > 0
    columns = (weight.sum(axis=1)[seen] @ np.arange(48)) / weight.sum(axis=(1, 2))[seen]
    assert seen.mean() > 0.95
    assert 0.35 < (columns > 23.5).mean() < 0.65
    assert np.abs(np.abs(columns - 23.5) - 8).max() < 10


def test_training_sees_the_same_tensors_as_the_device() -> None:
    with np.load(ROOT / "tests" / "golden" / "contract.npz", allow_pickle=False) as golden:
        inputs = normalize(golden["faces"])
        assert np.array_equal(inputs[:, None, :, :, None] * 128, golden["tensors"].astype(np.float32))
