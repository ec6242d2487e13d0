import gzip
import lzma
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.contract import LABELS
from edge.errors import DataError
from edge.fer2013 import read_faces


def row(label: int, shade: int, usage: str) -> str:
    return f"{label},{' '.join([str(shade)] * 2304)},{usage}\n"


@pytest.fixture
def text() -> str:
    rows = [row(3, 10, "Training"), row(0, 20, "PublicTest"), row(6, 255, "Training"), row(1, 0, "PrivateTest")]
    return "emotion,pixels,Usage\n" + "".join(rows)


def written(folder: Path, text: str, kind: str) -> Path:
    file = folder / f"fer2013.csv{kind}"
    match kind:
        case "":
            file.write_text(text)
        case ".gz":
            file.write_bytes(gzip.compress(text.encode()))
        case ".xz":
            file.write_bytes(lzma.compress(text.encode()))
        case ".zip":
            with zipfile.ZipFile(file, "w") as archive:
                archive.writestr("fer2013/fer2013.csv", text)
    return file


@pytest.mark.parametrize("kind", ["", ".gz", ".xz", ".zip"])
def test_a_split_is_read_from_every_form(tmp_path: Path, text: str, kind: str) -> None:
    faces = read_faces(written(tmp_path, text, kind), "Training")
    assert faces.pixels.shape == (2, 48, 48)
    assert faces.pixels.dtype == np.uint8
    assert faces.pixels[:, 0, 0].tolist() == [10, 255]
    assert faces.labels.tolist() == [3, 6]
    assert faces.rows.tolist() == [0, 2]


def test_the_hash_is_of_the_content_not_of_the_compression(tmp_path: Path, text: str) -> None:
    plain, packed = (read_faces(written(tmp_path, text, kind)) for kind in ("", ".xz"))
    assert plain.sha256() == packed.sha256() != read_faces(tmp_path / "fer2013.csv", "Training").sha256()


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (row(7, 0, "Training"), "data row 1: label '7'"),
        (row(0, 256, "Training"), "data row 1: a pixel"),
        ("2,1 2 3,Training\n", "data row 1: 3 pixels"),
        ("2,1 x 3,Training\n", "data row 1: a pixel"),
        ("2\n", "data row 1"),
        (",,Training\n", "data row 1"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, bad: str, words: str) -> None:
    file = tmp_path / "fer2013.csv"
    file.write_text("emotion,pixels,Usage\n" + row(0, 1, "Training") + bad)
    with pytest.raises(DataError, match=words):
        read_faces(file)


def test_what_is_no_fer2013_is_refused_with_the_reason(tmp_path: Path, text: str) -> None:
    cut = written(tmp_path, text, ".gz")
    cut.write_bytes(cut.read_bytes()[:-20])
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    fake = tmp_path / "fake.zip"
    fake.write_bytes(b"not a zip")
    for file, words in ((cut, "cannot be read"), (other, "Usage, emotion, pixels"), (fake, "cannot be read")):
        with pytest.raises(DataError, match=words):
            read_faces(file)
    with pytest.raises(DataError, match="no such file"):
        read_faces(tmp_path / "absent.csv")
    with pytest.raises(DataError, match="PublicTest"):
        read_faces(written(tmp_path, text, ""), "Public")


def test_an_empty_split_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "fer2013.csv"
    file.write_text("emotion,pixels,Usage\n" + row(0, 1, "Training"))
    with pytest.raises(DataError, match="PublicTest: no labelled faces"):
        read_faces(file, "PublicTest")


def test_a_folder_tree_is_read_by_its_label_names(tmp_path: Path) -> None:
    for label, shade in (("happy", 200), ("angry", 40)):
        (tmp_path / "val" / label).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "val" / label / "a.png"), np.full((96, 96), shade, np.uint8))
    faces = read_faces(tmp_path, "val")
    assert [LABELS[label] for label in faces.labels] == ["angry", "happy"]
    assert faces.pixels[:, 5, 5].tolist() == [40, 200]


def test_a_tree_with_a_foreign_label_or_a_broken_picture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "joy").mkdir()
    with pytest.raises(DataError, match="joy"):
        read_faces(tmp_path)
    (tmp_path / "joy").rename(tmp_path / "happy")
    (tmp_path / "happy" / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"a\.png"):
        read_faces(tmp_path)


@pytest.mark.slow
def test_the_real_data_has_its_published_counts(fer2013: Path) -> None:
    faces = read_faces(fer2013, "PublicTest")
    assert np.bincount(faces.labels).tolist() == [467, 56, 496, 895, 653, 415, 607]
