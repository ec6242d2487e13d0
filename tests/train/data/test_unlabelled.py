"""Faces without labels: the challenge's test.csv, and trees of pictures."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.errors import DataError
from train.data.unlabelled import read_unlabelled

FACES = np.random.default_rng(3).integers(0, 256, (3, 48, 48), np.uint8)


def row(face: np.ndarray) -> str:
    return " ".join(map(str, face.ravel()))


def test_a_table_needs_no_column_but_pixels(tmp_path: Path) -> None:
    file = tmp_path / "test.csv"
    file.write_text("pixels\n" + "".join(f'"{row(face)}"\n' for face in FACES))
    read = read_unlabelled(file)
    np.testing.assert_array_equal(read.pixels, FACES)
    assert (read.names, read.named_by) == (("0", "1", "2"), "row")
    file.write_text("Usage,Pixels\n" + "".join(f"PrivateTest,{row(face)}\n" for face in FACES))
    np.testing.assert_array_equal(read_unlabelled(file).pixels, FACES)


def test_pictures_may_lie_in_any_folder(tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    cv2.imwrite(str(tmp_path / "a b" / "1.png"), FACES[1])
    cv2.imwrite(str(tmp_path / "0.png"), cv2.resize(FACES[0], (96, 96), interpolation=cv2.INTER_NEAREST))
    (tmp_path / "notes.txt").write_text("no picture")
    read = read_unlabelled(tmp_path)
    np.testing.assert_array_equal(read.pixels, FACES[:2])
    assert (read.names, read.named_by) == (("0.png", "a b/1.png"), "picture")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("pixels\n", "no faces found. Give a CSV with a column pixels"),
        ("emotion\n3\n", "not a faces CSV: no column pixels; found 'emotion'"),
        (f"pixels\n{row(FACES[0])}\n1 2 3\n", r"data row 1 \(line 3\): 3 pixels, expected 2304"),
        ("pixels\n1 2 x\n", r"data row 0 \(line 2\): pixel 'x' is not a whole number"),
    ],
)
def test_the_first_row_that_is_no_face_is_named(text: str, told: str, tmp_path: Path) -> None:
    file = tmp_path / "test.csv"
    file.write_text(text)
    with pytest.raises(DataError, match=told):
        read_unlabelled(file)


def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_text("no picture")
    with pytest.raises(DataError, match=r"broken\.png: not a picture.*Mend that picture, or move it away"):
        read_unlabelled(tmp_path)


def test_a_single_picture_is_told_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"face\.png: a single picture\. Give the folder that it is in"):
        read_unlabelled(tmp_path / "face.png")


def test_what_is_neither_file_nor_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        read_unlabelled(tmp_path / "missing.csv")
