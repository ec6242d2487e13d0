"""Small files that would take much memory or never end: for tests and for measurements of real processes."""

import gzip
import os
import shutil
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.model.bundle import find_bundle
from tests.conftest import PORTRAIT


def png(width: int, height: int, *, rows: bool) -> bytes:
    """A black PNG of this size, with its rows or without."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer = zlib.compressobj()
    packed = b"".join(packer.compress(bytes(width + 1)) for _ in range(height if rows else 0)) + packer.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def make_pictures(folder: Path) -> list[Path]:
    """Pictures of hostile sizes and files that are no pictures; the last one is a portrait."""
    (folder / "declared.png").write_bytes(png(70_000, 70_000, rows=False))
    (folder / "declared.pgm").write_bytes(b"P5 40000 40000 255\n")
    (folder / "large.png").write_bytes(png(20_000, 20_000, rows=True))
    (folder / "wide.png").write_bytes(png(100_000, 1, rows=True))
    (folder / "tall.png").write_bytes(png(1, 100_000, rows=True))
    (folder / "empty.png").touch()
    (folder / "zero.png").symlink_to("/dev/zero")
    (folder / "loop.png").symlink_to("loop.png")
    os.mkfifo(folder / "pipe.png")
    made = sorted(folder.iterdir())
    with (folder / os.fsdecode(b"portr\xff\xe4it.jpg")).open("wb") as file:
        file.write(PORTRAIT.read_bytes())
    return [*made, folder / os.fsdecode(b"portr\xff\xe4it.jpg")]


def mjpeg_avi(pictures: list[bytes], width: int, height: int, *, rate: tuple[int, int] = (10, 1)) -> bytes:
    """An AVI of JPEG pictures that states one size for all; ``rate`` are frames in so many seconds."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)

    frames, seconds = rate
    main = struct.pack("<14I", 100_000, 0, 0, 0x10, len(pictures), 0, 1, 0, width, height, 0, 0, 0, 0)
    times = (0, 0, 0, 0, seconds, frames, 0, len(pictures), 0, 0, 0, 0, 0, width, height)
    stream = b"vidsMJPG" + struct.pack("<IHHIIIIIIIIhhhh", *times)
    picture = struct.pack("<IiiHH4sIiiII", 40, width, height, 1, 24, b"MJPG", width * height * 3, 0, 0, 0, 0)
    streams = chunk(b"LIST", b"strl" + chunk(b"strh", stream) + chunk(b"strf", picture))
    header = chunk(b"LIST", b"hdrl" + chunk(b"avih", main) + streams)
    movie = chunk(b"LIST", b"movi" + b"".join(chunk(b"00dc", one) for one in pictures))
    return chunk(b"RIFF", b"AVI " + header + movie)


def jpeg(width: int, height: int) -> bytes:
    return bytes(cv2.imencode(".jpg", np.zeros((height, width), np.uint8))[1].tobytes())


def large_pictures(number: int) -> Iterator[NDArray[np.uint8]]:
    """Coloured pictures of 3840x2160, in which something moves: what a decoder keeps differs from frame to frame."""
    picture = cv2.resize(np.asarray(cv2.imread(str(PORTRAIT)), np.uint8), (3840, 2160))
    return (np.roll(picture, 8 * shift, axis=1).astype(np.uint8) for shift in range(number))


def make_videos(folder: Path) -> list[Path]:
    """Videos of 12,000x12,000, one of which states 96x72, and one with a frame every four billion seconds."""
    small, large = jpeg(96, 72), jpeg(12_000, 12_000)
    videos = {
        "large.avi": mjpeg_avi([large] * 4, 12_000, 12_000),
        "grows.avi": mjpeg_avi([*[small] * 3, *[large] * 4], 96, 72),
        "slow.avi": mjpeg_avi([small] * 9, 96, 72, rate=(1, 4_000_000_000)),
    }
    for name, content in videos.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in videos]


def make_tables(folder: Path) -> list[Path]:
    """A gzip of 60 KB with a line of 60 MB, one with as many empty lines, and one with a row in as many lines."""
    head = b"emotion,pixels,Usage\n"
    for name, part in {"line": b"7" * 2**20, "empty": b"\n" * 2**20, "row": b'"\n",' * 2**18}.items():
        with gzip.open(folder / f"{name}.csv.gz", "wb") as file:
            file.write(head)
            for _ in range(60):
                file.write(part)
    return sorted(folder.glob("*.csv.gz"))


def make_tree(folder: Path) -> Path:
    """One labelled face, links in loops, and a lattice of links with 2^30 paths."""
    (folder / "happy").mkdir(parents=True)
    shutil.copy(PORTRAIT, folder / "happy" / "face.jpg")
    (folder / "happy" / "again").symlink_to(".")
    (folder / "above").symlink_to("..")
    (folder / "self").symlink_to("self")
    for level in range(30):
        (folder / f"level{level}").mkdir()
        for name in "ab":
            (folder / f"level{level}" / name).symlink_to(f"../level{level + 1}")
    (folder / "level30").symlink_to("happy")
    return folder


def make_bundle(folder: Path, card: bytes) -> Path:
    """A bundle with another card."""
    shutil.copytree(find_bundle("student-small"), folder)
    (folder / "card.json").write_bytes(card)
    return folder
