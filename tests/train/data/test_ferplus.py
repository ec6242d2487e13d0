import gzip
from pathlib import Path

import numpy as np
import pytest

from edge.errors import DataError
from edge.evaluation.fer2013 import LabelledFaces, Split, read_faces
from train.data.ferplus import VOTES, check_votes, read_votes

HEADER = "Usage,Image name," + ",".join(VOTES) + "\n"
TRAINING, NOT_A_FACE, PUBLIC = (
    "Training,fer0000000.png,4,0,0,1,3,2,0,0,0,0\n",
    "Training,,0,0,0,0,0,0,0,0,0,10\n",
    "PublicTest,fer0000001.png,0,9,0,0,0,0,0,0,0,0\n",
)
NOBODY = "Training,fer0000002.png,0,0,0,0,0,0,0,0,0,0\n"


def faces(*rows: int, split: Split | None = None) -> LabelledFaces:
    n = len(rows)
    return LabelledFaces(np.zeros((n, 48, 48), np.uint8), np.zeros(n, np.int64), np.array(rows), split)


def votes(folder: Path, *rows: str) -> Path:
    file = folder / "fer2013new.csv"
    file.write_text(HEADER + "".join(rows))
    return file


def test_votes_become_shares_of_the_faces_rows(tmp_path: Path) -> None:
    file = votes(tmp_path, TRAINING, NOT_A_FACE, PUBLIC)
    shares = read_votes(file, faces(2, 0))
    assert shares.dtype == np.float32
    np.testing.assert_allclose(shares, [[0, 1] + [0] * 8, [0.4, 0, 0, 0.1, 0.3, 0.2, 0, 0, 0, 0]], rtol=1e-6)
    packed = tmp_path / "fer2013new.csv.gz"
    packed.write_bytes(gzip.compress(file.read_bytes()))
    assert np.array_equal(read_votes(packed, faces(2, 0)), shares)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("Training,a,4,0,0\n", "not ten votes"),
        (NOBODY, "all votes are 0"),
        ("Training,a,x,0,0,0,0,0,0,0,0,1\n", "not ten votes"),
        ("Training,a,nan,0,0,0,0,0,0,0,0,1\n", "a vote is negative or not finite"),
        ("Training,a,-1,0,0,0,0,0,0,0,0,9\n", "a vote is negative or not finite"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: str, words: str) -> None:
    with pytest.raises(DataError, match=rf"fer2013new\.csv, data row 1 \(line 3\): {words}"):
        read_votes(votes(tmp_path, TRAINING, row), faces(0, 1))


def test_a_row_without_votes_does_not_matter_when_its_face_is_not_read(tmp_path: Path) -> None:
    assert read_votes(votes(tmp_path, TRAINING, NOBODY, PUBLIC), faces(0, 2)).shape == (2, 10)


def test_votes_that_do_not_reach_the_last_face_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="it has 1 rows, too few for data row 5"):
        read_votes(votes(tmp_path, TRAINING), faces(0, 5))
    with pytest.raises(DataError, match=r"absent\.csv: cannot be read: No such file or directory$"):
        read_votes(tmp_path / "absent.csv", faces(0))
    file = tmp_path / "fer2013.csv"
    file.write_text("emotion,pixels,Usage\n")
    with pytest.raises(DataError, match="no column neutral"):
        read_votes(file, faces(0))


def test_a_row_lost_from_either_file_shows_where_the_usage_changes(tmp_path: Path) -> None:
    whole = votes(tmp_path, TRAINING, NOT_A_FACE, TRAINING, PUBLIC, PUBLIC)
    training, public = faces(0, 1, 2, split=Split.TRAINING), faces(3, 4, split=Split.PUBLIC)
    assert read_votes(whole, training, public).shape == (3, 10)
    shorter = faces(0, 1, split=Split.TRAINING), faces(2, 3, split=Split.PUBLIC)
    with pytest.raises(DataError, match=r"data row 2 \(line 4\): Usage is 'Training'.* belongs to PublicTest"):
        read_votes(whole, *shorter)
    with pytest.raises(DataError, match=r"data row 2 \(line 4\): Usage is 'PublicTest'.* belongs to Training"):
        read_votes(votes(tmp_path, TRAINING, TRAINING, PUBLIC, PUBLIC, PUBLIC), training, public)


def test_a_file_without_votes_is_told_before_faces_are_read(tmp_path: Path) -> None:
    check_votes(votes(tmp_path, TRAINING))
    with pytest.raises(DataError, match=r"absent\.csv"):
        check_votes(tmp_path / "absent.csv")
    (tmp_path / "faces.csv").write_text("emotion,pixels,Usage\n")
    with pytest.raises(DataError, match="neutral"):
        check_votes(tmp_path / "faces.csv")


def test_a_tree_of_pictures_has_no_rows_for_votes(tmp_path: Path) -> None:
    tree = LabelledFaces(np.zeros((1, 48, 48), np.uint8), np.zeros(1, np.int64), None, Split.TRAINING)
    with pytest.raises(DataError, match="a tree of pictures has no rows"):
        read_votes(votes(tmp_path, TRAINING), tree)


@pytest.mark.slow
def test_the_real_votes_align_with_the_real_faces(fer2013: Path) -> None:
    file = fer2013.with_name("fer2013new.csv")
    if not file.exists():
        pytest.skip("fer2013new.csv is not beside the data set's CSV")
    public = read_faces(fer2013, "PublicTest")
    shares = read_votes(file, public)
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-6)
    happy = public.labels == 3
    agreeing = (shares[happy].argmax(axis=1) == VOTES.index("happiness")).mean()
    assert agreeing > 0.8, "shifted by one row, about a quarter would agree"
