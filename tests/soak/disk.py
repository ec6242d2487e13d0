"""The device's state folder: a small file system of its own, which can be full and can hang."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

_BYTES: Final = 32_000_000


def can_be_mounted() -> bool:
    """Whether a small disk can be made here: that needs root, mkfs.ext4 and loop devices."""
    return os.getuid() == 0 and bool(shutil.which("mkfs.ext4")) and Path("/dev/loop-control").exists()


class Disk:
    """An ext4 file system in a file, mounted at ``folder``: the kernel counts what is written to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._image = folder.with_suffix(".img")
        self._ballast = folder / "ballast"
        folder.mkdir()
        with self._image.open("wb") as image:
            image.truncate(_BYTES)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", self._image], check=True)
        subprocess.run(["mount", "-o", "loop", self._image, folder], check=True)

    def fill(self) -> None:
        """Take every free block."""
        with self._ballast.open("wb") as ballast:
            room = os.statvfs(self.folder).f_bavail * os.statvfs(self.folder).f_frsize
            while room >= 1024:
                try:
                    os.posix_fallocate(ballast.fileno(), ballast.seek(0, os.SEEK_END), room)
                except OSError:  # less is free than statvfs reported
                    room //= 2

    def empty(self) -> None:
        """Free these blocks."""
        self._ballast.unlink(missing_ok=True)

    def hang(self) -> None:
        """Block every writer (fsfreeze)."""
        subprocess.run(["fsfreeze", "-f", self.folder], check=True)

    def resume(self) -> None:
        subprocess.run(["fsfreeze", "-u", self.folder], check=False, stderr=subprocess.DEVNULL)

    def close(self) -> None:
        self.resume()
        subprocess.run(["umount", self.folder], check=True)
        self._image.unlink()
