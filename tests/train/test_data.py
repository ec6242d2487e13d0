import time
from pathlib import Path

import numpy as np
import pytest

from edge.errors import DataError
from train.data import cache_folder, read_splits


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_pictures_that_publictest_holds_too_are_left_out_and_counted(blobs: Path, tmp_path: Path) -> None:
    rows = blobs.read_text().splitlines(keepends=True)
    shared = tmp_path / "shared.csv"
    shared.write_text("".join(rows) + "".join(row.replace("PublicTest", "Training") for row in rows[-3:]))
    plain, leaking = read_splits(blobs), read_splits(shared)
    assert (plain.excluded, leaking.excluded) == (0, 3)
    assert leaking.training.sha256() == plain.training.sha256()
    assert len(leaking.public) == 28


def test_the_second_read_comes_from_the_cache_and_is_the_same(blobs: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.csv"
    copy.write_bytes(blobs.read_bytes())
    first = read_splits(copy).training
    [file] = cache_folder().glob("*-Training.npz")
    stamp = file.stat().st_mtime_ns
    second = read_splits(copy.rename(tmp_path / "renamed.csv")).training
    assert file.stat().st_mtime_ns == stamp
    for name in ("pixels", "labels", "rows"):
        assert np.array_equal(getattr(first, name), getattr(second, name))


def test_changed_content_or_a_cut_cache_is_parsed_again(blobs: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.csv"
    lines = blobs.read_text().splitlines(keepends=True)
    copy.write_text("".join(lines))
    whole = len(read_splits(copy).training)
    [file] = cache_folder().glob("*-Training.npz")
    file.write_bytes(file.read_bytes()[:1000])
    assert len(read_splits(copy).training) == whole
    copy.write_text("".join(lines[:1] + lines[2:]))
    assert len(read_splits(copy).training) == whole - 1


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.csv"):
        read_splits(tmp_path / "absent.csv")


@pytest.mark.slow
def test_the_real_data_opens_the_second_time_in_under_a_second(fer2013: Path) -> None:
    splits = read_splits(fer2013)
    started = time.monotonic()
    again = read_splits(fer2013)
    assert time.monotonic() - started < 1.0
    assert (len(again.training), len(again.public), again.excluded) == (28709 - 351, 3589, 351)
    assert again.training.sha256() == splits.training.sha256()
