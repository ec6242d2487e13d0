"""Files that are no files: pipes, devices, folders, and those that are too long."""

import os
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.camera.sources import open_source
from edge.errors import BundleError, SourceError
from edge.model.bundle import find_bundle
from edge.settings import CameraSettings
from edge.untrusted_file import (
    MALFORMED_JSON,
    bounded_lines,
    is_char_device,
    is_file,
    is_folder,
    is_forbidden,
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


@pytest.fixture
def closed_folder() -> Iterator[Path]:
    """A folder with a file, a folder and a bundle, which this user (as root, nobody) may not enter."""
    with tempfile.TemporaryDirectory(dir="/tmp") as closed:  # every user can reach it
        folder = Path(closed)
        (folder / "clip.mp4").write_text("a video")
        (folder / "bundle").mkdir()
        (folder / "bundle" / "card.json").touch()
        folder.chmod(0)
        if os.geteuid() == 0:
            os.seteuid(65534)
        try:
            yield folder
        finally:
            if os.getuid() == 0:
                os.seteuid(0)
            folder.chmod(0o700)


def test_what_this_user_may_not_read_is_not_said_to_be_absent(closed_folder: Path) -> None:
    assert is_forbidden(closed_folder / "clip.mp4")
    assert [is_forbidden(Path(name)) for name in ("/absent", "a" * 300, "/")] == [False, False, False]
    for name in ("clip.mp4", "bundle"):
        with pytest.raises(SourceError, match=f"source '{closed_folder}/{name}': this user may not read it"):
            open_source(CameraSettings(source=str(closed_folder / name)))
    with pytest.raises(BundleError, match="bundle: this user may not read it"):
        find_bundle(str(closed_folder / "bundle"))


def test_a_video_that_this_user_may_not_read_is_not_said_to_be_no_video(closed_folder: Path) -> None:
    # Root opens the folder for a moment; the file itself stays closed.
    if os.getuid() == 0:
        os.seteuid(0)
    closed_folder.chmod(0o755)
    (closed_folder / "clip.mp4").chmod(0)
    if os.getuid() == 0:
        os.seteuid(65534)
    with pytest.raises(SourceError, match="this user may not read it"):
        open_source(CameraSettings(source=str(closed_folder / "clip.mp4")))
