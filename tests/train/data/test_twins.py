"""Pictures that show the same photograph: searched, listed, and left out of training."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edge.errors import DataError
from edge.evaluation.fer2013 import NO_ROW, LabelledFaces, Split
from tests.conftest import ROOT
from train.cli import _main
from train.data.twin_search import Twins, find_twins, search_twins
from train.data.twins import has_listed_twin, read_list, twins_of, write_list


def photographs(count: int, seed: int = 1) -> NDArray[np.uint8]:
    """Smooth random pictures of 64x64 pixels, from which windows are cut."""
    noise = np.random.default_rng(seed).integers(0, 256, (count, 64, 64)).astype(np.uint8)
    blurred = [cv2.GaussianBlur(one, (0, 0), 4) for one in noise]
    return np.stack([cv2.normalize(one, None, 0, 255, cv2.NORM_MINMAX) for one in blurred])


def window(photograph: NDArray[np.uint8], dx: int = 0, dy: int = 0) -> NDArray[np.uint8]:
    return photograph[8 + dy : 56 + dy, 8 + dx : 56 + dx]


def test_moved_mirrored_and_compressed_pictures_are_twins_and_others_are_not() -> None:
    shown = photographs(6)
    _, jpeg = cv2.imencode(".jpg", window(shown[2]), [cv2.IMWRITE_JPEG_QUALITY, 60])
    ones = np.stack([window(one) for one in shown])
    others = np.stack(
        [
            window(shown[0], 3, -2),
            window(shown[1], -1, 4)[:, ::-1],
            cv2.imdecode(jpeg, cv2.IMREAD_GRAYSCALE),
            window(shown[3], 7, 0),  # farther than the search reaches
            window(photographs(1, seed=2)[0]),
        ]
    )
    found = find_twins(ones, others)
    assert [twins[:2] for twins in found] == [(0, 0), (1, 1), (2, 2)]
    assert all(0.97 <= twins.correlation <= 1.0001 for twins in found)


def test_within_one_set_each_pair_is_found_once() -> None:
    shown = photographs(4)
    pictures = np.stack([window(shown[0]), window(shown[1]), window(shown[0], 2, 2), window(shown[3])])
    [twins] = find_twins(pictures, pictures)
    assert twins[:2] == (0, 2)
    assert isinstance(twins, Twins)


def faces(pictures: list[NDArray[np.uint8]], labels: list[int], first: int, split: Split) -> LabelledFaces:
    rows = np.arange(first, first + len(labels))
    return LabelledFaces(np.stack(pictures), np.array(labels), rows, split)


def test_a_report_counts_identical_and_near_faces_and_contradicting_groups() -> None:
    shown = photographs(6)
    training = faces(
        [
            window(shown[0]),
            window(shown[0], 1, 1),
            window(shown[1]),
            window(shown[1], 2, 0),
            window(shown[2]),
            window(shown[3]),
        ],
        [0, 0, 1, 2, 3, 4],
        0,
        Split.TRAINING,
    )
    public = faces([window(shown[2]), window(shown[3], 0, 2), window(shown[4])], [3, 4, 5], 6, Split.PUBLIC)
    shares: list[float] = []
    report = search_twins(training, public, shares.append)
    assert [pair[:2] for pair in report.pairs] == [(0, 1), (2, 3), (4, 6), (5, 7)]
    assert (report.identical, report.near, report.groups, report.contradicting) == (1, 1, 2, 1)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert "1 more have a near twin there" in str(report)


def test_a_list_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_list(tmp_path / "twins.csv", "abc", [(7, 9, 0.98), (1, 5, 1.0)])
    assert read_list(tmp_path / "twins.csv") == ("abc", [(1, 5), (7, 9)])


def test_listed_twins_of_the_measured_faces_are_found_in_the_training_of_the_list_alone(tmp_path: Path) -> None:
    training = faces(list(photographs(4)[:, :48, :48]), [0, 1, 2, 3], 0, Split.TRAINING)
    public = faces(list(photographs(3, seed=2)[:, :48, :48]), [0, 1, 2], 4, Split.PUBLIC)
    own = replace(training, rows=np.full(4, NO_ROW))
    published = LabelledFaces(
        np.concatenate([training.pixels, own.pixels]),
        np.concatenate([training.labels, own.labels]),
        np.arange(8),
        Split.TRAINING,
    )
    measured = replace(public, rows=np.array([4, 5, NO_ROW]))  # another data set's face is measured too
    file = tmp_path / "twins.csv"
    write_list(file, training.sha256(), [(0, 4, 0.99), (1, 2, 0.99), (5, 3, 0.99), (2, 6, 0.99)])
    found = twins_of(published, training, measured, file)
    assert found.tolist() == [True, False, False, True, *[False] * 4]
    for first, of in (
        (replace(training, rows=None), measured),
        (training, replace(measured, rows=None)),
        (training.select(np.arange(4) < 3), measured),
    ):
        assert not twins_of(published, first, of, file).any()


def test_the_twins_of_fer2013s_public_test_are_those_of_the_shipped_list() -> None:
    """Rows tell FER2013 here, so blank pictures will do."""
    rows = np.arange(28_709, 28_709 + 3_589)
    public = LabelledFaces(np.zeros((3_589, 48, 48), np.uint8), np.zeros(3_589, np.int64), rows, Split.PUBLIC)
    lines = (ROOT / "train" / "data" / "fer2013-twins.csv").read_text().splitlines()[2:]
    listed = {int(row) for line in lines for row in line.split(",")[:2]}
    across = {
        measured
        for one, other, _ in (line.split(",") for line in lines)
        for measured, trained in ((int(one), int(other)), (int(other), int(one)))
        if trained < 28_709 <= measured
    }
    assert across < listed
    assert set(rows[has_listed_twin(public)].tolist()) == across
    for other in (
        replace(public, rows=None),
        replace(public, split=Split.PRIVATE),
        replace(public, rows=rows + 1),
        public.select(rows > 28_709),
    ):
        assert not has_listed_twin(other).any()


def test_other_data_than_fer2013_has_no_listed_twins() -> None:
    shown = photographs(2)
    training = faces([window(shown[0])], [0], 0, Split.TRAINING)
    public = faces([window(shown[0], 1, 0)], [0], 1, Split.PUBLIC)
    assert not twins_of(training, training, public).any()
    assert not has_listed_twin(public).any()


def test_the_command_lists_the_twins_of_a_csv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = photographs(3)
    pictures = [window(shown[0]), window(shown[1]), window(shown[0], 2, 1), window(shown[2])]
    rows = [
        f"{label},{' '.join(map(str, picture.ravel()))},{usage}"
        for label, picture, usage in zip((0, 1, 0, 2), pictures, ("Training",) * 2 + ("PublicTest",) * 2, strict=True)
    ]
    data, out = tmp_path / "faces.csv", tmp_path / "twins.csv"
    data.write_text("\n".join(["emotion,pixels,Usage", *rows]) + "\n")
    assert _main(["twins", "--data", str(data), "--out", str(out)]) == 0
    assert "0 faces of the measured split are in Training too, and 1 more" in capsys.readouterr().out
    assert read_list(out)[1] == [(0, 2)]


def test_the_command_refuses_rows_that_are_no_faces(tmp_path: Path) -> None:
    """They could have twins, and nobody would know that they are not in the list."""
    data, out = tmp_path / "faces.csv", tmp_path / "twins.csv"
    face = " ".join(["7"] * 48 * 48)
    data.write_text(f"emotion,pixels,Usage\n1,{face},Training\n2,1 2 3,Training\n1,{face},PublicTest\n")
    with pytest.raises(DataError, match=r"row 1.*; 1 of its rows cannot be used"):
        _main(["twins", "--data", str(data), "--out", str(out)])
    assert not out.exists()
