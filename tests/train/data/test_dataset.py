"""Data of a run: no picture in two splits, parsed once, and bad rows always reported."""

import dataclasses
import gzip
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.errors import DataError, UsageError
from edge.evaluation.fer2013 import NO_ROW, LabelledData, Split
from edge.labels import FER2013_LABELS
from train.data.dataset import cache_folder, read_cached, read_splits
from train.data.view_bank import find_bank


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def lines(blobs: Path) -> list[str]:
    """The blobs' header and rows; the first 112 rows are Training, the others PublicTest."""
    return blobs.read_text().splitlines(keepends=True)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    for number, place in enumerate(("train/happy/a", "train/sad/b", "train/sad/c", "test/happy/d", "test/sad/e")):
        file = folder / f"{place}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), np.full((48, 48), 40 * number, np.uint8))
    return folder


def written(file: Path, lines: list[str]) -> Path:
    file.write_text("".join(lines))
    return file


def relabelled(lines: list[str], usage: str) -> list[str]:
    return [f"{line.rsplit(',', 1)[0]},{usage}\n" for line in lines]


def same(one: LabelledData, other: LabelledData) -> bool:
    return one.bad == other.bad and all(
        np.array_equal(getattr(one.splits[split], name), getattr(other.splits[split], name))
        for split in one.splits.keys() | other.splits.keys()
        for name in ("pixels", "labels", "rows")
    )


def test_training_pictures_that_another_split_holds_too_are_left_out_and_counted_for_each(
    blobs: Path, lines: list[str], tmp_path: Path
) -> None:
    private = relabelled(lines[1:6], "PrivateTest")  # pictures 0..4 of Training, and nothing else
    shared = relabelled(lines[-3:], "Training") + relabelled(lines[-1:], "PrivateTest")
    plain, leaking = read_splits(blobs), read_splits(written(tmp_path / "shared.csv", lines + private + shared))
    assert (dict(plain.left_out), plain.excluded) == ({Split.PUBLIC: 0}, 0)
    assert dict(leaking.left_out) == {Split.PUBLIC: 3, Split.PRIVATE: 5}
    assert leaking.excluded == 8
    assert leaking.training.sha256() == plain.training.select(np.arange(112) >= 5).sha256()
    assert len(leaking.public) == 28
    assert str(leaking) == (
        "107 training faces, 28 of PublicTest to measure accuracy; "
        "left out of Training: 3 that PublicTest has too, 5 that PrivateTest has too"
    )


def test_twins_are_left_out_beside_identical_pictures_and_a_run_that_had_them_fits(
    lines: list[str], tmp_path: Path
) -> None:
    shared = relabelled(lines[-3:], "Training")
    read = read_splits(written(tmp_path / "shared.csv", lines + shared))
    splits = dataclasses.replace(read, twins=np.isin(np.arange(115), [0, 1, 114]))  # the last is shared too
    assert splits.kept.tolist() == [False, False, *[True] * 110, False, False, False]
    assert (splits.left_out, splits.near, splits.excluded) == ({Split.PUBLIC: 3}, 2, 5)
    assert str(splits).endswith("left out of Training: 3 that PublicTest has too, 2 near twins of PublicTest")
    for had in (splits.kept, ~splits.twins, ~splits.shared[Split.PUBLIC], np.ones(115, bool)):
        found = splits.find_training(splits.published.select(had).sha256())
        assert found is not None
        assert np.array_equal(found, had)
    assert splits.find_training(splits.published.select(np.arange(115) > 50).sha256()) is None


def test_data_whose_training_stands_in_another_split_altogether_is_refused(lines: list[str], tmp_path: Path) -> None:
    rows = lines[1:4]
    file = written(tmp_path / "all.csv", [lines[0], *rows, *relabelled(rows, "PublicTest")])
    with pytest.raises(DataError, match="there is nothing to train on"):
        read_splits(file)


@pytest.mark.parametrize("form", ["csv", "tree"])
def test_the_second_read_parses_nothing_and_is_the_same(
    blobs: Path, tree: Path, capfd: pytest.CaptureFixture[str], form: str
) -> None:
    source = blobs if form == "csv" else tree
    first = read_cached(source)
    assert f"parsing {source}" in capfd.readouterr().err
    assert same(read_cached(source), first)
    assert "parsing" not in capfd.readouterr().err
    assert (first.splits[Split.TRAINING].rows is None) == (form == "tree")


def test_one_parse_gives_every_split_and_a_copy_of_the_file_needs_none(
    blobs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    read_splits(blobs)
    copy = tmp_path / "renamed.csv"
    copy.write_bytes(blobs.read_bytes())
    read_splits(copy)
    assert capfd.readouterr().err.count("parsing") == 1
    assert len(list(cache_folder().iterdir())) == 1


def test_changed_content_or_a_cut_cache_is_parsed_again(lines: list[str], tmp_path: Path) -> None:
    copy = written(tmp_path / "copy.csv", lines)
    assert len(read_splits(copy).training) == 112
    [file] = cache_folder().iterdir()
    for damage in (file.read_bytes()[:1000], b"", file.read_bytes()[:-1000] + bytes(1000)):
        file.write_bytes(damage)
        assert len(read_splits(copy).training) == 112
    written(copy, lines[:1] + lines[2:])
    assert len(read_splits(copy).training) == 111


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: (tree / "train/sad/b.png").rename(tree / "train/happy/b.png"),
        lambda tree: (tree / "train/sad/b.png").unlink(),
        lambda tree: repaint(tree / "train/sad/b.png"),
    ],
    ids=["moved", "removed", "repainted, with its old size and time"],
)
def test_a_tree_that_changed_is_read_again(tree: Path, change: Callable[[Path], object]) -> None:
    before = read_splits(tree).training.sha256()
    change(tree)
    assert read_splits(tree).training.sha256() != before


def repaint(file: Path) -> None:
    """Change a pixel's shade within the file and set the size and time that it had."""
    before = file.stat()
    cv2.imwrite(str(file), np.full((48, 48), 41, np.uint8))
    assert file.stat().st_size == before.st_size
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_cache_that_cannot_be_written_costs_only_time(
    blobs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert len(read_splits(blobs).training) == 112
    assert "parsed data cannot be cached" in capfd.readouterr().err


def test_a_tree_is_measured_on_what_it_has(tree: Path) -> None:
    splits = read_splits(tree)
    assert (len(splits.training), len(splits.public), splits.public.split) == (3, 2, Split.TEST)
    (tree / "test").rename(tree / "validation")
    assert read_splits(tree).public.split is Split.VALIDATION
    (tree / "validation").rename(tree / "PrivateTest")
    with pytest.raises(DataError, match="split PublicTest: no labelled faces found"):
        read_splits(tree)


def test_bad_rows_are_an_error_or_skipped_listed_and_counted(
    lines: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bad = ["7,1 2 3,Training\n", lines[1].replace("Training", "Trainig")]
    file = written(tmp_path / "bad.csv", lines[:10] + bad + lines[10:])
    for _cached in (False, True):
        with pytest.raises(DataError) as raised:
            read_splits(file)
        where, known = f"{file}, data row 9 (line 11)", ", ".join(FER2013_LABELS)
        assert f"{where}: label '7' is not 0..6 or {known}. It has 2 bad rows;" in str(raised.value)
        assert "--skip-bad" in str(raised.value)
        capfd.readouterr()
        splits = read_splits(file, skip_bad=True)
        assert (len(splits.training), len(splits.public), splits.bad) == (112, 28, 2)
        assert capfd.readouterr().err.splitlines()[-3:] == [
            f"{file}: 2 bad rows skipped",
            f"  data row 9 (line 11): label '7' is not 0..6 or {', '.join(FER2013_LABELS)}",
            "  data row 10 (line 12): Usage 'Trainig' is not Training, PublicTest, PrivateTest, validation, test",
        ]
    assert splits.training.rows is not None
    assert splits.training.rows[8:10].tolist() == [8, 11]


def test_the_list_of_bad_rows_is_bounded_and_the_count_is_not(
    lines: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path / "bad.csv", [*lines, *["0,,Training\n"] * 3000])
    assert read_splits(file, skip_bad=True).bad == 3000
    told = capfd.readouterr().err.splitlines()
    assert f"{file}: 3,000 bad rows skipped" in told
    assert told[-1] == "  and 2,980 more"
    assert len(told) == 23


def test_a_split_of_bad_rows_alone_is_empty(lines: list[str], tmp_path: Path) -> None:
    file = written(tmp_path / "bad.csv", [*lines[:50], "7,,PublicTest\n"])
    with pytest.raises(DataError, match="split PublicTest: no labelled faces found, only 49 of Training"):
        read_splits(file, skip_bad=True)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.csv"):
        read_splits(tmp_path / "absent.csv")


@pytest.mark.slow
def test_the_real_data_opens_the_second_time_in_a_fraction_of_the_time(fer2013: Path) -> None:
    read, seconds = [], []
    for _ in range(4):  # other work slows one reading down, and is not the reader's fault
        started = time.thread_time()
        read.append(read_splits(fer2013))
        seconds.append(time.thread_time() - started)
    assert min(seconds[1:]) < seconds[0] / 5
    parsed, *_, again = read
    assert (len(again.training), len(again.public), again.left_out[Split.PUBLIC]) == (28709 - 351 - 280, 3589, 351)
    assert again.near == 280
    assert str(again).endswith("351 that PublicTest has too, 280 near twins of PublicTest")
    assert again.training.sha256() == parsed.training.sha256()
    # Kaggle's complete file has a third split with copies of Training's pictures; the recipes' teachers fit it too.
    private = np.arange(28709) % 100 == 0
    complete = dataclasses.replace(parsed, shared={**parsed.shared, Split.PRIVATE: private})
    assert find_bank("student").faces_of("student", complete).sum() == 28709 - 351


def test_own_faces_are_joined_to_a_csv_for_training_and_keep_no_rows(blobs: Path, tree: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    shutil.copytree(tree / "train", own)  # happy/ and sad/, which state no split
    alone, joined = read_splits(blobs), read_splits(blobs, own)
    assert (len(alone.training), len(joined.training)) == (112, 115)
    assert joined.public.sha256() == alone.public.sha256()
    assert joined.training.rows is not None
    assert joined.training.rows[-3:].tolist() == [NO_ROW] * 3
    assert joined.first.sum() == 112
    found = joined.find_training(alone.training.sha256())
    assert found is not None
    assert np.array_equal(found, joined.first), "a run on the CSV alone fits the joined data"
    with_own = joined.find_with_joined(alone.training.sha256())
    assert with_own is not None
    assert with_own.all()
    assert joined.find_with_joined("the hash of other faces") is None


def test_faces_that_two_data_sets_measure_on_are_measured_together(
    blobs: Path, lines: list[str], tree: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(tree, other)
    next((other / "train" / "happy").iterdir()).unlink()
    joined = read_splits(tree, blobs, other)  # the tree's test is not FER2013's PublicTest
    assert (len(joined.public), joined.public.split) == (4, Split.TEST)
    shorter = written(tmp_path / "shorter.csv", lines[:1] + lines[2:])
    assert len(read_splits(blobs, shorter).public) == 2 * len(read_splits(blobs).public)


def test_data_that_is_given_twice_is_refused(blobs: Path, tree: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.csv.gz"
    copy.write_bytes(gzip.compress(blobs.read_bytes()))
    with pytest.raises(UsageError, match=r"copy\.csv\.gz: has the faces of .*fer2013\.csv, which would count twice"):
        read_splits(blobs, tree, copy)


def test_labels_without_a_face_are_told(blobs: Path, lines: list[str], tmp_path: Path) -> None:
    assert "warning" not in str(read_splits(blobs))
    happy = written(tmp_path / "happy.csv", [line for line in lines if line[0] in "e3" or "Public" in line])
    assert str(read_splits(happy)).splitlines()[1:] == [
        "warning: no training face shows angry, disgust, fear, sad, surprise, neutral, so the network cannot learn it"
    ]
    calm = written(tmp_path / "calm.csv", [line for line in lines if not (line[0] == "2" and "Public" in line)])
    assert str(read_splits(calm)).splitlines()[1:] == [
        "warning: PublicTest has no face of fear: the accuracy is that of the other labels"
    ]


def test_the_first_data_set_must_have_faces_to_train_and_to_measure_on(blobs: Path, tree: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    shutil.copytree(tree / "train", own)
    with pytest.raises(DataError, match="only 3 of unsplit"):
        read_splits(own, blobs)
