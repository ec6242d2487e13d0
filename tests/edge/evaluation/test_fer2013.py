"""Synthetic data in every form of FER2013: CSV files and trees of pictures."""

import gzip
import io
import lzma
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.errors import DataError, UsageError
from edge.evaluation.fer2013 import LabelledFaces, Split, measured_split, read_data, read_faces
from edge.evaluation.picture_tree import pictures
from edge.labels import FER2013_LABELS
from tests.edge.hostile_files import make_tree


def pixels(shade: int) -> str:
    return " ".join([str(shade)] * 2304)


def row(label: int, shade: int, usage: str) -> str:
    return f"{label},{pixels(shade)},{usage}\n"


ROWS = [(3, 10, "Training"), (0, 20, "PublicTest"), (6, 255, "Training"), (1, 0, "PrivateTest")]
TEXT = "emotion,pixels,Usage\n" + "".join(row(*values) for values in ROWS)
ICML = "emotion, Usage, pixels\n" + "".join(f"{label},{usage},{pixels(shade)}\n" for label, shade, usage in ROWS)


def tarred(**members: str) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, text in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return content.getvalue()


def zipped(**members: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return content.getvalue()


FORMS = {
    "fer2013.csv": TEXT.encode(),
    "fer2013.csv.gz": gzip.compress(TEXT.encode()),
    "fer2013.csv.xz": lzma.compress(TEXT.encode()),
    "fer2013.zip": zipped(**{"fer2013/fer2013.csv": TEXT}),
    "fer2013.tar.gz": tarred(
        **{"fer2013/fer2013.csv": TEXT, "fer2013/README": "Challenge", "fer2013/fer2013.bib": "@"}
    ),
    "icml_face_data.csv": ICML.encode(),
    "icml_face_data.csv.xz": lzma.compress(ICML.encode()),
    "challenge.zip": zipped(**{"icml_face_data.csv": ICML, "train.csv": "", "test.csv": "", "fer2013.tar.gz": ""}),
}


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    file = tmp_path / "fer2013.csv"
    file.write_text(TEXT)
    return file


def draw(file: Path, shade: int, size: int = 48) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(file), np.full((size, size), shade, np.uint8))


@pytest.mark.parametrize("name", FORMS)
def test_every_form_holds_the_same_faces_rows_and_splits(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_bytes(FORMS[name])
    faces = read_faces(file, "Training")
    assert faces.pixels.shape == (2, 48, 48)
    assert faces.pixels.dtype == np.uint8
    assert faces.pixels[:, 0, 0].tolist() == [10, 255]
    assert faces.labels.tolist() == [3, 6]
    assert faces.rows is not None
    assert faces.rows.tolist() == [0, 2]
    data = read_data(file)
    assert {str(split): held.labels.tolist() for split, held in data.splits.items()} == {
        "Training": [3, 6],
        "PublicTest": [0],
        "PrivateTest": [1],
    }
    assert data.bad == ()
    assert data.faces(Split.TRAINING).sha256() == faces.sha256()


def test_the_hash_is_of_the_content_not_of_the_compression(tmp_path: Path, csv: Path) -> None:
    packed = tmp_path / "fer2013.csv.xz"
    packed.write_bytes(FORMS[packed.name])
    assert read_faces(csv).sha256() == read_faces(packed).sha256() != read_faces(csv, "Training").sha256()


def test_reading_all_splits_keeps_the_order_of_the_rows(csv: Path) -> None:
    faces = read_faces(csv)
    assert faces.rows is not None
    assert (faces.labels.tolist(), faces.rows.tolist(), faces.split) == ([3, 0, 6, 1], [0, 1, 2, 3], None)


def test_the_challenges_train_csv_is_all_training(tmp_path: Path) -> None:
    file = tmp_path / "train.csv"
    file.write_text(f"emotion,pixels\n3,{pixels(1)}\n4,{pixels(2)}\n")
    assert read_faces(file, "Training").labels.tolist() == [3, 4]
    for read in (lambda: read_faces(file, "PublicTest"), lambda: read_data(file).faces(Split.PUBLIC)):
        with pytest.raises(DataError, match=r"only 2 of Training.*without Usage.*fer2013\.csv has every split"):
            read()
    file.write_text(f"pixels\n{pixels(1)}\n")
    with pytest.raises(DataError, match="no column emotion"):
        read_faces(file)


def test_headers_usages_and_labels_are_read_as_people_write_them(tmp_path: Path) -> None:
    file = tmp_path / "own.csv"
    floats = " ".join(["7.0"] * 2304)
    file.write_text(
        f"Emotion,PIXELS,usage\n3.0,{floats},train\nHappy,{pixels(1)},TRAINING\nsadness,{pixels(2)},test\n"
        f"6,{pixels(3)},val\n"
    )
    data = read_data(file)
    assert data.bad == ()
    assert {str(split): faces.labels.tolist() for split, faces in data.splits.items()} == {
        "Training": [3, 3],
        "test": [4],
        "validation": [6],
    }
    assert data.faces(Split.TRAINING).pixels[:, 0, 0].tolist() == [7, 1]
    assert measured_split(file) is Split.VALIDATION
    file.write_text(f"emotion,pixels,Usage\n0,{pixels(1)},train\n0,{pixels(1)},test\n0,{pixels(2)},PublicTest\n")
    assert measured_split(file) is Split.PUBLIC
    file.write_text(f"emotion,pixels,Usage\n0,{pixels(1)},Training\n")
    assert measured_split(file) is Split.PUBLIC


def test_a_header_that_is_not_understood_is_named(tmp_path: Path) -> None:
    file = tmp_path / "own.csv"
    file.write_text(f"emotion,pixels,set\n3,{pixels(1)},test\n")
    for read in (read_data, read_faces, measured_split):
        with pytest.raises(DataError, match=r"data row 0 \(line 2\): column 'set' states the split 'test'; name that"):
            read(file)
    file.write_text(f"emotion,pixels,Usage,usage\n3,{pixels(1)},train,test\n")
    with pytest.raises(DataError, match="more than one column Usage, in upper or lower case; keep one"):
        read_data(file)
    file.write_text(f"emotion,pixels,id\n3,{pixels(1)},17\n")
    assert set(read_data(file).splits) == {Split.TRAINING}


CLASSES = f"0..6 or {', '.join(FER2013_LABELS)}"
BAD = {
    row(7, 0, "Training"): f"label '7' is not {CLASSES}",
    f"²,{pixels(0)},Training\n": f"label '²' is not {CLASSES}",
    row(0, 256, "Training"): "pixel '256' is not a whole number from 0 to 255",
    row(0, -1, "Training"): "pixel '-1' is not a whole number from 0 to 255",
    "2,1 2 3,Training\n": "3 pixels, expected 2304",
    f"2,{pixels(0)} 1,Training\n": "2305 pixels, expected 2304",
    "2,1 1_0 3,Training\n": "pixel '1_0' is not a whole number from 0 to 255",
    "2\n": "Usage '' is not Training, PublicTest, PrivateTest, validation, test",
    row(0, 1, "Tests"): "Usage 'Tests' is not Training, PublicTest, PrivateTest, validation, test",
    ",,Training\n": f"label '' is not {CLASSES}",
}


@pytest.mark.parametrize("bad", BAD)
def test_the_error_for_a_bad_row_names_file_row_line_and_reason(tmp_path: Path, bad: str) -> None:
    file = tmp_path / "fer2013.csv"
    file.write_text("emotion,pixels,Usage\n" + row(0, 1, "Training") + bad)
    with pytest.raises(DataError) as raised:
        read_faces(file)
    assert f"{file}, data row 1 (line 3): {BAD[bad]}" in str(raised.value)


def test_reading_all_splits_collects_bad_rows_and_keeps_row_numbers(tmp_path: Path) -> None:
    file = tmp_path / "fer2013.csv"
    file.write_text("emotion,pixels,Usage\n" + "".join(BAD) + row(5, 9, "PublicTest"))
    data = read_data(file)
    assert [str(bad) for bad in data.bad] == [
        f"data row {number} (line {number + 2}): {reason}" for number, reason in enumerate(BAD.values())
    ]
    rows = data.faces(Split.PUBLIC).rows
    assert rows is not None
    assert rows.tolist() == [len(BAD)]


def test_reading_one_split_checks_only_the_usage_of_other_rows(tmp_path: Path) -> None:
    file = tmp_path / "fer2013.csv"
    file.write_text(TEXT + "9,1 2 3,Training\n")
    assert len(read_faces(file, "PublicTest")) == 1
    file.write_text(TEXT + "9,1 2 3,Trainig\n")
    with pytest.raises(DataError, match=r"data row 4 \(line 6\): Usage 'Trainig'"):
        read_faces(file, "PublicTest")


def test_reading_one_split_holds_only_its_faces_in_memory(tmp_path: Path) -> None:
    file = tmp_path / "fer2013.csv.gz"
    file.write_bytes(gzip.compress((TEXT + row(0, 100, "Training") * 3000).encode()))
    tracemalloc.start()
    try:
        assert len(read_faces(file, "PublicTest")) == 1
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000, "3,000 faces of Training take 7 MB"


def test_a_missing_file_an_unknown_split_and_an_empty_split_are_named(tmp_path: Path, csv: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_faces(tmp_path / "absent.csv")
    with pytest.raises(UsageError, match="unknown split 'Public': choose from Training, PublicTest"):
        read_faces(csv, "Public")
    with pytest.raises(DataError, match="split validation: no labelled faces found, only 2 of Training, 1 of PublicT"):
        read_faces(csv, "validation")
    csv.write_text("emotion,pixels,Usage\n")
    for read in (read_faces, read_data):
        with pytest.raises(DataError, match="no labelled faces found; it must have rows"):
            read(csv)


@given(
    content=st.one_of(
        st.binary(max_size=300),
        st.binary(max_size=60).map(lambda tail: TEXT.encode() + tail),
        st.text(max_size=60).map(lambda tail: (TEXT + tail).encode()),
        st.builds(
            lambda whole, at, byte: whole[: at % len(whole)] + bytes([byte]) + whole[at % len(whole) + 1 :],
            st.sampled_from([content for name, content in FORMS.items() if not name.endswith("csv")]),
            st.integers(0, 5000),
            st.integers(0, 255),
        ),
    )
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_faces_or_a_data_error(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "fuzz"
    file.write_bytes(content)
    try:
        faces = read_faces(file)
        data = read_data(file)
    except DataError as error:
        assert str(file) in str(error)  # noqa: PT017  either end is right
    else:
        assert isinstance(faces, LabelledFaces)
        assert faces.pixels.shape == (len(faces), 48, 48)
        assert sum(map(len, data.splits.values())) == len(faces)


def test_a_tree_is_read_by_its_folder_names_in_upper_or_lower_case(tmp_path: Path) -> None:
    draw(tmp_path / "Train" / "Happy" / "a.png", 200, size=96)
    draw(tmp_path / "Train" / "angry" / "b.jpg", 40)
    draw(tmp_path / "test" / "SURPRISED" / "a.PNG", 90)
    (tmp_path / "Train" / "angry" / "notes.txt").write_text("no picture")
    (tmp_path / "Train" / "angry" / "._b.jpg").write_text("what macOS leaves")
    faces = read_faces(tmp_path, "Training")
    assert [FER2013_LABELS[label] for label in faces.labels] == ["happy", "angry"]
    assert faces.pixels[:, 5, 5].tolist() == [200, 40]
    assert faces.rows is None
    assert [FER2013_LABELS[label] for label in read_faces(tmp_path, "test").labels] == ["surprise"]
    assert measured_split(tmp_path) is Split.TEST


OTHERS = ("neutral", "contempt", "happiness")


@pytest.mark.parametrize("names", [OTHERS, FER2013_LABELS[::-1]], ids=["others", "another order"])
def test_the_classes_are_those_of_other_labels(tmp_path: Path, names: tuple[str, ...]) -> None:
    """Numbers are FER2013's, and names have other words; what the labels lack is left out and counted."""
    file = tmp_path / "own.csv"
    words = ["3", "happy", "Happiness", "6.0", "neutral", "0", "anger", *(["contempt"] if "contempt" in names else [])]
    lines = "".join(f"{word},{pixels(10 * number)},PublicTest\n" for number, word in enumerate(words))
    file.write_text("emotion,pixels,Usage\n" + lines)
    for number, word in enumerate(word for word in words if word.isalpha()):
        draw(tmp_path / "tree" / word / f"{number}.png", number)
    known = {"happiness": "happiness"} if "happiness" in names else {"happiness": "happy"}
    expected = [known["happiness"]] * 3 + ["neutral"] * 2
    expected += ["contempt"] if "contempt" in names else ["angry"] * 2
    for split in ("PublicTest", None):
        faces = read_faces(file, split, names)
        assert [names[label] for label in faces.labels] == expected
        assert faces.names == names
        assert faces.left_out == ({"angry": 2} if "contempt" in names else {})
    tree = read_faces(tmp_path / "tree", None, names)
    assert sorted(names[label] for label in tree.labels) == sorted(expected[1:3] + expected[4:5] + expected[-1:])
    [data] = read_data(file, names).splits.values()
    assert data.labels.tolist() == faces.labels.tolist()


def test_faces_that_show_nothing_the_labels_have_are_an_error(csv: Path) -> None:
    for read in (lambda: read_faces(csv, "Training", ("calm", "cross")), lambda: read_data(csv, ("calm", "cross"))):
        with pytest.raises(DataError, match=r"no face shows one of calm, cross; they show: .*1 happy.*FER2013's"):
            read()


def test_a_split_without_a_face_of_the_labels_is_none(csv: Path) -> None:
    data = read_data(csv, ("angry", "calm"))
    assert set(data.splits) == {Split.PUBLIC}


def test_every_kind_of_picture_is_read_and_what_is_not_is_counted_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number, suffix in enumerate((".jpg", ".jpe", ".webp", ".tif", ".tiff", ".pgm", ".jp2", ".dib", ".PNG")):
        draw(tmp_path / "train" / "happy" / f"a{suffix}", number)
    (tmp_path / "train" / "happy" / "a.jpg").rename(tmp_path / "train" / "happy" / "a.jfif")
    for name in ("a.heic", "b.HEIC", "notes.txt", "README"):
        (tmp_path / "train" / name).write_text("not read")
    assert len(read_faces(tmp_path, "Training")) == 9
    passed = "passed over 4 of other kinds than pictures: 2 .heic, 1 no suffix, 1 .txt, such as train/README"
    assert caplog.messages == [f"{tmp_path}: {passed}"]
    assert len(read_data(tmp_path).faces(Split.TRAINING)) == 9
    assert len(caplog.messages) == 2


def test_a_tree_of_nothing_but_other_files_says_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "happy").mkdir()
    (tmp_path / "happy" / "a.heic").write_text("not read")
    with pytest.raises(
        DataError, match=r"passed over 1 of other kinds than pictures: 1 \.heic, such as happy/a\.heic; name"
    ):
        read_data(tmp_path)


def test_folders_above_the_tree_are_skipped(tmp_path: Path) -> None:
    draw(tmp_path / "archive" / "fer" / "train" / "happy" / "a.png", 1)
    draw(tmp_path / "archive" / "fer" / "test" / "sad" / "a.png", 2)
    for folder in (tmp_path, tmp_path / "archive", tmp_path / "archive" / "fer"):
        data = read_data(folder)
        assert (data.bad, set(data.splits)) == ((), {Split.TRAINING, Split.TEST})
        assert measured_split(folder) is Split.TEST


def test_file_names_distinguish_publictest_and_privatetest_below_test(tmp_path: Path) -> None:
    for number, name in enumerate(
        ("train/fear/Training_3908.jpg", "test/fear/PublicTest_87012441.jpg", "test/sad/PrivateTest_95094.jpg")
    ):
        draw(tmp_path / name, 50 * number)
    data = read_data(tmp_path)
    assert {str(split): faces.labels.tolist() for split, faces in data.splits.items()} == {
        "Training": [2],
        "PublicTest": [2],
        "PrivateTest": [4],
    }
    assert measured_split(tmp_path) is Split.PUBLIC
    assert measured_split(tmp_path / "test") is Split.PUBLIC


def test_file_names_or_folders_named_for_usage_state_the_split(tmp_path: Path) -> None:
    draw(tmp_path / "a" / "happy" / "PrivateTest_1.png", 1)
    draw(tmp_path / "a" / "happy" / "training_2.png", 2)
    assert set(read_data(tmp_path / "a").splits) == {Split.PRIVATE, Split.TRAINING}
    for folder in ("Training", "PublicTest", "PrivateTest", "val"):
        draw(tmp_path / "b" / folder / "neutral" / "Training_7.png", 3)
    draw(tmp_path / "b" / "Training" / "neutral" / "PublicTest_8.png", 4)
    data = read_data(tmp_path / "b")
    assert {split: len(faces) for split, faces in data.splits.items()} == {Split.TRAINING: 1, Split.VALIDATION: 1}
    assert [str(bad) for bad in data.bad] == [
        "PrivateTest/neutral/Training_7.png: is in the folder of PrivateTest, and its name says Training",
        "PublicTest/neutral/Training_7.png: is in the folder of PublicTest, and its name says Training",
        "Training/neutral/PublicTest_8.png: is in the folder of Training, and its name says PublicTest",
    ]


def test_a_tree_without_splits_is_measured_whole_and_has_no_training(tmp_path: Path) -> None:
    draw(tmp_path / "angry" / "a.png", 1)
    draw(tmp_path / "neutral" / "b.png", 2)
    assert measured_split(tmp_path) is None
    assert read_faces(tmp_path).labels.tolist() == [0, 6]
    with pytest.raises(DataError, match="split Training: no labelled faces found, only 2 of unsplit"):
        read_data(tmp_path).faces(Split.TRAINING)


def test_accuracy_is_not_measured_on_training_by_default(tmp_path: Path) -> None:
    draw(tmp_path / "train" / "angry" / "a.png", 1)
    with pytest.raises(DataError, match="split PublicTest: no labelled faces found, only 1 of Training"):
        read_faces(tmp_path, measured_split(tmp_path))


def test_foreign_labels_and_unreadable_pictures_of_a_tree_are_bad_rows(tmp_path: Path) -> None:
    draw(tmp_path / "train" / "happy" / "good.png", 9)
    for name in ("train/contempt/a.png", "train/4/b.png", "c.png"):
        draw(tmp_path / name, 9)
    (tmp_path / "train" / "sad").mkdir()
    (tmp_path / "train" / "sad" / "empty.png").write_bytes(b"")
    (tmp_path / "train" / "sad" / "text.jpg").write_text("not a picture")
    data = read_data(tmp_path)
    nowhere = f"in no folder named {', '.join(FER2013_LABELS)}"
    assert [str(bad) for bad in data.bad] == [
        f"c.png: {nowhere}",
        f"train/4/b.png: {nowhere}; numbers are not read, since trees differ in their order",
        f"train/contempt/a.png: {nowhere}",
        "train/sad/empty.png: not a readable picture",
        "train/sad/text.jpg: not a readable picture",
    ]
    assert len(data.faces(Split.TRAINING)) == 1
    with pytest.raises(DataError, match=r"c\.png: in no folder named angry"):
        read_faces(tmp_path)


def test_a_split_below_the_label_is_refused(tmp_path: Path) -> None:
    """Such pictures were of no split, so a run trained on those of ``test``."""
    for name in ("happy/train/a.png", "happy/Test/b.png", "test/sad/val/c.png", "test/sad/test/d.png", "sad/ann/e.png"):
        draw(tmp_path / name, 9)
    data = read_data(tmp_path)
    assert [str(bad) for bad in data.bad] == [
        "happy/Test/b.png: the folder Test of a split is below the label: it must be above, as Test/happy",
        "happy/train/a.png: the folder train of a split is below the label: it must be above, as train/happy",
        "test/sad/val/c.png: the folder val of a split is below the label: it must be above, as val/sad",
    ]
    assert {split: len(faces) for split, faces in data.splits.items()} == {Split.UNSPLIT: 1, Split.TEST: 1}


def test_a_folder_without_pictures_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "happy").mkdir()
    for read in (read_faces, read_data):
        with pytest.raises(DataError, match="no labelled faces found; name its folders angry"):
            read(tmp_path)


@pytest.mark.slow
def test_the_real_data_has_its_published_counts(fer2013: Path) -> None:
    faces = read_faces(fer2013, "PublicTest")
    assert np.bincount(faces.labels).tolist() == [467, 56, 496, 895, 653, 415, 607]


def test_each_folder_is_read_once_however_links_lead_to_it(tmp_path: Path) -> None:
    faces = read_faces(make_tree(tmp_path / "tree"))
    assert faces.labels.tolist() == [FER2013_LABELS.index("happy")]
    assert pictures(tmp_path / "tree") == ["happy/face.jpg"], "the folder itself goes before the links to it"


def test_a_folder_that_a_link_leads_to_is_read(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    (tmp_path / "data" / "train").mkdir(parents=True)
    (tmp_path / "data" / "train" / "sad").symlink_to(tree / "happy")
    assert pictures(tmp_path / "data") == ["train/sad/face.jpg"]
