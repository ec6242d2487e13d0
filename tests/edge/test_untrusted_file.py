"""Files that are no files: pipes, devices, folders, and those that are too long."""

import os
import tracemalloc
from pathlib import Path

import pytest

from edge.untrusted_file import (
    MALFORMED_JSON,
    bounded_lines,
    is_char_device,
    is_file,
    is_folder,
    open_regular,
    read_regular,
)

TOO_LONG = Path("a" * 300)


def test_a_file_is_read_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "link", 3) == b"abc"


def test_whatever_is_no_file_is_refused_by_its_kind(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name, kind in {"pipe": "a named pipe", "zero": "a device", ".": "a folder"}.items():
        with pytest.raises(OSError, match=f"this is {kind}, not a file"):
            open_regular(tmp_path / name)


def test_a_file_or_a_line_that_is_too_long_is_refused_before_it_is_read_whole(tmp_path: Path) -> None:
    file = tmp_path / "sparse"
    with file.open("wb") as opened:
        opened.write(b"line\n")
        opened.truncate(2**40)
    with pytest.raises(OSError, match="larger than 1,000 bytes"):
        read_regular(file, 1000)
    with open_regular(file) as opened:
        lines = bounded_lines(opened, 1000)
        assert next(lines) == b"line\n"
        with pytest.raises(OSError, match="a line is longer than 1,000 bytes"):
            next(lines)


def test_a_small_file_takes_little_memory_however_large_it_might_be(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"abc")
    tracemalloc.start()
    try:
        assert read_regular(tmp_path / "small", 2**25) == b"abc"
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_a_file_that_states_no_size_is_read_whole() -> None:
    maps = Path("/proc/self/maps")  # regular, and longer than a page
    assert maps.stat().st_size == 0
    assert read_regular(maps, 2**25).endswith(b"\n")
    with pytest.raises(OSError, match="larger than 1,000 bytes"):
        read_regular(maps, 1000)


def test_names_that_are_too_long_are_nothing(tmp_path: Path) -> None:
    assert [ask(TOO_LONG) for ask in (is_file, is_folder, is_char_device)] == [False, False, False]
    assert is_char_device(Path("/dev/zero"))
    assert RecursionError in MALFORMED_JSON
