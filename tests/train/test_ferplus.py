from pathlib import Path

import numpy as np
import pytest

from edge.errors import DataError
from edge.fer2013 import LabelledFaces
from train.ferplus import VOTES, read_votes

HEADER = "Usage,Image name," + ",".join(VOTES) + "\n"


def faces(*rows: int) -> LabelledFaces:
    n = len(rows)
    return LabelledFaces(np.zeros((n, 48, 48), np.uint8), np.zeros(n, np.int64), np.array(rows))


def test_votes_become_shares_of_the_faces_rows(tmp_path: Path) -> None:
    file = tmp_path / "fer2013new.csv"
    file.write_text(
        HEADER + "Training,a,4,0,0,1,3,2,0,0,0,0\nTraining,,0,0,0,0,0,0,0,0,0,10\nPublicTest,c,0,9,0,0,0,0,0,0,0,0\n"
    )
    shares = read_votes(file, faces(2, 0))
    np.testing.assert_allclose(shares, [[0, 1] + [0] * 8, [0.4, 0, 0, 0.1, 0.3, 0.2, 0, 0, 0, 0]], rtol=1e-6)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("Training,a,4,0,0\n", "data row 0: not ten votes"),
        ("Training,a,0,0,0,0,0,0,0,0,0,0\n", "data row 0: nobody voted"),
        ("Training,a,x,0,0,0,0,0,0,0,0,1\n", "data row 0: not ten votes"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: str, words: str) -> None:
    file = tmp_path / "fer2013new.csv"
    file.write_text(HEADER + row)
    with pytest.raises(DataError, match=words):
        read_votes(file, faces(0))


def test_votes_that_do_not_reach_the_last_face_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "fer2013new.csv"
    file.write_text(HEADER + "Training,a,4,0,0,1,3,2,0,0,0,0\n")
    with pytest.raises(DataError, match="do not reach data row 5"):
        read_votes(file, faces(0, 5))
    with pytest.raises(DataError, match="cannot be read"):
        read_votes(tmp_path / "absent.csv", faces(0))
