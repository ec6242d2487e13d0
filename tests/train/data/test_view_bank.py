import dataclasses
from pathlib import Path

import numpy as np
import pytest

from edge.errors import DataError
from edge.evaluation.fer2013 import LabelledFaces, Split
from edge.model.origin import Source
from train.data.dataset import Splits
from train.data.view_bank import ViewBank, draw_view, find_bank, make_bank


@pytest.fixture
def faces() -> LabelledFaces:
    pixels = np.random.default_rng(3).integers(0, 256, (1100, 48, 48), np.uint8)
    return LabelledFaces(pixels, np.arange(1100) % 7, np.arange(1100))


def data_of(faces: LabelledFaces, **shared: np.ndarray) -> Splits:
    """A data set with these faces as Training; ``shared`` says which of them another split has too."""
    held = {Split.named(split): has for split, has in shared.items()}
    return Splits(faces, faces, faces, held, np.zeros(len(faces), bool), np.ones(len(faces), bool), 0)


SOURCES = (Source("start", "run x", "fer-train run x", None, "0" * 64), Source("data", "faces"))


def logits_of(pixels: np.ndarray) -> np.ndarray:
    """A teacher whose logits depend on the very pixels it is shown."""
    return np.stack([pixels[:, row, 7].astype(np.float32) / 20 for row in range(0, 42, 6)], axis=1)


def test_a_bank_keeps_the_teachers_logits_for_views_that_can_be_drawn_again(
    faces: LabelledFaces, tmp_path: Path
) -> None:
    make_bank(logits_of, faces, views=3, seed=9, sources=SOURCES).save(tmp_path / "x.npz")
    bank = find_bank(str(tmp_path / "x.npz"))
    assert bank.faces_of("x", data_of(faces)).all()
    for view in range(3):
        said = logits_of(draw_view(faces.pixels, bank.seed, view))
        exact = np.exp(said / 3) / np.exp(said / 3).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(bank.probabilities(view, temperature=3), exact, atol=0.01)
    assert bank.sources == SOURCES


def test_views_differ_from_each_other_and_come_out_the_same_again(faces: LabelledFaces) -> None:
    first, second, again = (draw_view(faces.pixels, 1, view) for view in (0, 1, 0))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, second)


def test_a_bank_of_other_faces_or_of_another_augmentation_is_refused(faces: LabelledFaces) -> None:
    bank = make_bank(logits_of, faces, views=1, seed=1)
    fewer = faces.select(np.arange(1100) > 0)
    with pytest.raises(DataError, match="other training faces"):
        bank.faces_of("x", data_of(fewer))
    elsewhere = dataclasses.replace(bank, probes=bank.probes + 5)
    with pytest.raises(DataError, match="make the bank again"):
        elsewhere.faces_of("x", data_of(faces))


def test_a_bank_fits_data_with_a_further_split_that_holds_some_of_the_faces(faces: LabelledFaces) -> None:
    bank = make_bank(logits_of, faces, views=1, seed=1)
    private = np.arange(1100) % 100 == 0
    assert bank.faces_of("x", data_of(faces, PrivateTest=private)).all()
    public = np.arange(1100) < 3
    bank = make_bank(logits_of, faces.select(~public), views=1, seed=1)
    assert np.array_equal(bank.faces_of("x", data_of(faces, PublicTest=public, PrivateTest=private)), ~public)


def test_what_is_no_bank_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cut.npz").write_bytes(b"PK\3\4")
    with pytest.raises(DataError, match="not a view bank"):
        find_bank(str(tmp_path / "cut.npz"))
    np.savez(tmp_path / "other.npz", logits=np.zeros((2, 3), np.int8))
    with pytest.raises(DataError, match="not a view bank"):
        ViewBank.load(tmp_path / "other.npz")
    with pytest.raises(DataError, match="no view bank with that name or path"):
        find_bank("nobody")
