"""Debian root file systems and other things that platform tests build once, in a cache outside the repository."""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fer-edge" / "roots"


def require_root(*programs: str) -> None:
    """Skip the test without root, or without the programs that it needs."""
    if os.getuid() != 0:
        pytest.skip("needs root")
    require_programs(*programs)


def require_programs(*programs: str) -> None:
    """Skip the test where one of the programs is not installed."""
    missing = [program for program in programs if not shutil.which(program)]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


def debian_root(suite: str, packages: tuple[str, ...], *, variant: str = "minbase", arch: str = "amd64") -> Path:
    """A root file system with these packages, built once. Treat it as read-only, and work on a copy or an overlay."""

    def make(folder: Path) -> list[str | Path]:
        command = ["mmdebstrap", f"--variant={variant}", f"--arch={arch}", f"--include={','.join(packages)}"]
        return [*command, suite, folder, _mirror()]

    return cached(f"{suite}-{arch}", (suite, variant, arch, *sorted(packages)), make)


def cached(name: str, contents: tuple[str, ...], make: Callable[[Path], list[str | Path]]) -> Path:
    """A folder of the cache for a list of contents. A command fills it at its first use, in one process at a time."""
    folder = CACHE / f"{name}-{hashlib.sha256(chr(10).join(contents).encode()).hexdigest()[:12]}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            unfinished = folder.with_suffix(".part")
            shutil.rmtree(unfinished, ignore_errors=True)
            subprocess.run(make(unfinished), check=True, capture_output=True, timeout=600)
            unfinished.rename(folder)
    return folder


def _mirror() -> str:
    """The mirror that this machine's own apt uses."""
    for file in sorted(Path("/etc/apt").glob("sources.list*")) + sorted(Path("/etc/apt/sources.list.d").glob("*")):
        found = re.search(r"^(?:URIs:|deb)\s+(\S+)", file.read_text(), re.MULTILINE) if file.is_file() else None
        if found:
            return found[1]
    pytest.skip("no Debian mirror is configured")
