"""Files that cannot be written are named before the work, and those that are replaced stay whole."""

import os
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from edge.errors import UsageError
from train.cli import _main
from train.data.twins import write_list
from train.outputs import check_folder, check_output, replacing

ABSENT = "cannot be written: there is no folder"


def refused(*arguments: object) -> str:
    with pytest.raises(UsageError) as told:
        _main([str(argument) for argument in arguments])
    return str(told.value)


def test_twins_are_not_searched_when_the_list_cannot_be_written(tmp_path: Path) -> None:
    data, out = tmp_path / "none.csv", tmp_path / "absent" / "twins.csv"
    assert ABSENT in refused("twins", "--data", data, "--out", out)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["bank", "predict"])
def test_no_network_is_opened_when_its_answers_cannot_be_written(command: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="the train extra is not installed")
    data, out = tmp_path / "none.csv", tmp_path / "absent" / "answers"
    assert ABSENT in refused(command, "nobody", "--data", data, "--out", out)


@pytest.mark.slow
def test_a_network_that_is_not_there_is_told_before_the_data_is_read(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="the train extra is not installed")
    told = refused("predict", "nobody", "--data", tmp_path / "none.csv", "--out", tmp_path / "answers.csv")
    assert told.startswith("nobody: no run folder")


@pytest.mark.slow
@pytest.mark.parametrize(("option", "name"), [("--keep", "kept.npz"), ("--out", "confusion.svg")])
def test_nothing_is_measured_when_it_cannot_be_written(option: str, name: str, blobs: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="the train extra is not installed")
    assert ABSENT in refused("evaluate", "nobody", "--data", blobs, option, tmp_path / "absent" / name)


def test_the_data_is_not_replaced_by_what_is_made_of_it(tmp_path: Path) -> None:
    data = tmp_path / "fer2013.csv"
    data.write_text("emotion,pixels,Usage\n")
    (tmp_path / "other").symlink_to(tmp_path)
    for command in (["twins"], ["predict", "nobody"], ["bank", "nobody"], ["judge"]):
        if command != ["twins"]:
            pytest.importorskip("tensorflow", reason="the train extra is not installed")
        told = refused(*command, "--data", data, "--out", tmp_path / "other" / data.name)
        assert "is read by this command, and would be lost" in told, command


@pytest.mark.parametrize(("option", "wrong"), [("--views", "0"), ("--views", "many"), ("--seed", "-1")])
def test_a_bank_of_no_views_is_refused(option: str, wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        _main(["bank", "nobody", "--data", "none.csv", "--out", "bank.npz", option, wrong])
    assert ended.value.code == 2
    assert f"argument {option}: {wrong!r}: give a whole number from " in capsys.readouterr().err


def test_a_folder_and_a_name_that_is_too_long_cannot_be_written(tmp_path: Path) -> None:
    check_output(tmp_path / "new")
    check_output(Path("new"))
    with pytest.raises(UsageError, match="it is a folder"):
        check_output(tmp_path)
    for check in (check_output, check_folder):
        with pytest.raises(UsageError, match="File name too long"):
            check(tmp_path / ("x" * 300))


def test_a_read_only_place_is_named(tmp_path: Path) -> None:
    if (
        os.getuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", tmp_path], check=False).returncode
    ):
        pytest.skip("mounting a file system needs root")
    outside = tmp_path.with_name(f"{tmp_path.name}-link")
    outside.symlink_to(tmp_path / "new")
    try:
        for file in (tmp_path / "new", outside):
            with pytest.raises(UsageError, match=f"cannot be written: {tmp_path} is read-only for this user"):
                check_output(file)
        with pytest.raises(UsageError, match=f"no folder can be made there: {tmp_path} is read-only for this user"):
            check_folder(tmp_path / "runs" / "new")
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_file_is_replaced_only_when_the_new_one_is_whole(tmp_path: Path, small_disk: Path) -> None:
    file = small_disk / "bank.npz"
    file.write_bytes(b"before")
    with pytest.raises(UsageError, match=r"bank\.npz: cannot be written: No space left"), replacing(file) as target:
        target.write(bytes(1_000_000))
    assert file.read_bytes() == b"before"
    with suppress(KeyError), replacing(file) as target:
        target.write(b"half")
        raise KeyError
    assert [(one.name, one.read_bytes()) for one in small_disk.iterdir()] == [("bank.npz", b"before")]
    with replacing(file) as target:
        target.write(b"after")
    assert file.read_bytes() == b"after"


def test_a_link_stays_and_the_file_that_it_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    file, link = tmp_path / "disk" / "bank.npz", tmp_path / "bank.npz"
    link.symlink_to(file)
    for content in (b"first", b"second"):
        check_output(link)
        with replacing(link) as target:
            target.write(content)
        assert (link.is_symlink(), file.read_bytes()) == (True, content)
    assert len(list(file.parent.iterdir())) == 1


def test_a_device_or_pipe_is_written_and_not_replaced_by_a_file(tmp_path: Path) -> None:
    """`fer-train bank --out /dev/null` as root put a file in the place of the device."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        check_output(pipe)
        with replacing(pipe) as target:
            target.write(b"answers")
        assert os.read(reader, 100) == b"answers"
    finally:
        os.close(reader)
    assert [(one.name, one.is_fifo()) for one in tmp_path.iterdir()] == [("pipe", True)]


def test_a_list_of_twins_stays_whole_when_the_disk_is_full(small_disk: Path) -> None:
    file = small_disk / "twins.csv"
    write_list(file, "abc", [(1, 5, 1.0)])
    before = file.read_bytes()
    with pytest.raises(UsageError, match=r"twins\.csv: cannot be written: No space left"):
        write_list(file, "abc", [(row, row + 1, 1.0) for row in range(60_000)])
    assert [(one.name, one.read_bytes()) for one in small_disk.iterdir()] == [("twins.csv", before)]
