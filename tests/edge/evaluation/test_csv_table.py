"""CSV tables, plain and in every container that is read."""

import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.errors import DataError
from edge.evaluation.csv_table import read_table

TEXT = "\n name , value\na,1\n\nb, 2 \n  \n,\n"


def zipped(**members: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return content.getvalue()


def tarred(mode: str, **members: str) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode=mode) as archive:
        for name, text in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return content.getvalue()


CONTAINERS: dict[str, Callable[[str], bytes]] = {
    "t.csv": str.encode,
    "bom.csv": lambda text: text.encode("utf-8-sig"),
    "t.csv.gz": lambda text: gzip.compress(text.encode()),
    "t.csv.xz": lambda text: lzma.compress(text.encode()),
    "t.zip": lambda text: zipped(**{"in/t.csv": text, "__MACOSX/in/._t.csv": "x"}),
    "t.tar": lambda text: tarred("w", README="read me", **{"in/t.csv": text}),
    "t.tar.gz": lambda text: tarred("w:gz", README="read me", **{"in/t.csv": text, "in/t.bib": "@"}),
    "t.tar.xz": lambda text: tarred("w:xz", **{"in/t.csv": text}),
}


@pytest.fixture(params=CONTAINERS)
def container(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    file = tmp_path / request.param
    file.write_bytes(CONTAINERS[request.param](TEXT))
    return file


def test_every_container_is_read_whatever_its_name(container: Path) -> None:
    for name in (container.name, "other.dat"):
        container = container.rename(container.with_name(name))
        rows = list(read_table(container, "names", ("name",)))
        assert [dict(row.values) for row in rows] == [{"name": "a", "value": "1"}, {"name": "b", "value": "2"}]
        assert [str(row) for row in rows] == ["data row 0 (line 3)", "data row 1 (line 5)"]


def test_a_short_row_has_empty_values_and_a_long_one_is_cut(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("name,value\na\nb,2,3\n")
    assert [dict(row.values) for row in read_table(file, "names", ())] == [
        {"name": "a", "value": ""},
        {"name": "b", "value": "2"},
    ]


def test_an_archive_must_hold_one_csv_or_one_of_the_preferred_name(tmp_path: Path) -> None:
    two = {"all/x.csv": "name\nx\n", "all/y.csv": "name\ny\n"}
    for file, content in ((tmp_path / "two.zip", zipped(**two)), (tmp_path / "two.tar.gz", tarred("w:gz", **two))):
        file.write_bytes(content)
        with pytest.raises(DataError, match=r"holds 2 CSV files \(all/x.csv, all/y.csv\)"):
            list(read_table(file, "names", ("name",)))
        [row] = read_table(file, "names", ("name",), preferred=("y.csv", "z.csv"))
        assert row.values["name"] == "y"
    for file, content in ((tmp_path / "none.zip", zipped(a="a")), (tmp_path / "none.tar", tarred("w", a="a"))):
        file.write_bytes(content)
        with pytest.raises(DataError, match="holds 0 CSV files, expected one"):
            list(read_table(file, "names", ("name",)))


@pytest.mark.parametrize("name", [name for name in CONTAINERS if not name.endswith(".csv")])
def test_the_error_for_a_truncated_container_names_it(tmp_path: Path, name: str) -> None:
    text = "name\n" + "".join(f"{number * 7919}\n" for number in range(20_000))
    whole = CONTAINERS[name](text)
    for size in (len(whole) // 2, 12):
        file = tmp_path / name
        file.write_bytes(whole[:size])
        with pytest.raises(DataError, match=name):
            list(read_table(file, "names", ("name",)))


def test_the_error_says_after_which_row_reading_failed(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_bytes(b"name\na\nb\n" + b"c" * 200_000)
    with pytest.raises(DataError, match=r"after data row 1 \(line 3\): field larger than field limit"):
        list(read_table(file, "names", ("name",)))


def test_the_error_for_another_format_says_what_was_found(tmp_path: Path) -> None:
    file = tmp_path / "t.zip"
    for content, words in (
        (b"", "not a names CSV: no column name; found 'an empty file'"),
        (b"a,b\n", "no column name; found 'a, b'"),
        (b"PK\3\4 not a zip", "cannot be read"),
        (b"\xff\xfe\xfd", "cannot be read"),
        (b"\0" * 2000, "holds 0 CSV"),
    ):
        file.write_bytes(content)
        with pytest.raises(DataError, match=words):
            list(read_table(file, "names", ("name",)))
    with pytest.raises(DataError, match="cannot be read"):
        list(read_table(tmp_path, "names", ("name",)))


def test_an_encrypted_zip_is_rejected(tmp_path: Path) -> None:
    content = bytearray(zipped(**{"t.csv": TEXT}))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1  # the flag for encryption
    file = tmp_path / "t.zip"
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"cannot be read.*(encrypted|password)"):
        list(read_table(file, "names", ("name",)))


@pytest.mark.parametrize("part", ["7", "\n", '"\n",'], ids=["line", "empty lines", "row over many lines"])
def test_a_row_that_is_too_long_is_refused_before_it_is_read_whole(tmp_path: Path, part: str) -> None:
    file = tmp_path / "t.csv.gz"
    file.write_bytes(gzip.compress(("name\n" + part * 2_000_000).encode()))
    with pytest.raises(DataError, match="the next row is longer than 1,048,576 characters"):
        list(read_table(file, "names", ("name",)))
