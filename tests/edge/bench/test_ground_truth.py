"""The sidecar of a clip: it is read as it was written, and errors name the line."""

from pathlib import Path

import pytest

from edge.bench.ground_truth import FaceTruth, FrameTruth, Header, read_truth, truth_beside, write_truth
from edge.errors import DataError

HEADER = Header("fer-edge truth 1", "visit", 2, 640, 480, 25.0, 1)
FRAMES = (FrameTruth(0, ()), FrameTruth(1, (FaceTruth(1, (-5, 20, 100, 100), 0.95, "happy"),)))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    written = tmp_path / "visit.truth.jsonl"
    write_truth(written, HEADER, FRAMES)
    return written


def test_what_is_written_is_read_again(file: Path) -> None:
    truth = read_truth(file)
    assert (truth.header, truth.frames) == (HEADER, FRAMES)
    assert truth_beside(file.with_name("visit.avi")) == file


def test_an_incomplete_file_is_refused(file: Path) -> None:
    file.write_text("\n".join(file.read_text().splitlines()[:-1]))
    with pytest.raises(DataError, match="has 1 frames, but its first line says 2"):
        read_truth(file)


def test_the_error_names_an_invalid_line(file: Path) -> None:
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:2], '{"frame":1,"people":[]}']))
    with pytest.raises(DataError, match="line 3: not a line of a clip's ground truth"):
        read_truth(file)


def test_frames_out_of_order_are_refused(file: Path) -> None:
    header, first, second = file.read_text().splitlines()
    file.write_text("\n".join([header, second, first]))
    with pytest.raises(DataError, match="line 2: describes frame 1, expected 0"):
        read_truth(file)


def test_an_unknown_expression_is_refused(file: Path) -> None:
    file.write_text(file.read_text().replace("happy", "Bored!"))
    with pytest.raises(DataError, match=r"line 3: not a line of a clip's ground truth: .*expression"):
        read_truth(file)


def test_a_missing_and_an_empty_file_have_their_own_errors(file: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_truth(file.with_name("other.truth.jsonl"))
    file.write_text("")
    with pytest.raises(DataError, match="is empty"):
        read_truth(file)
