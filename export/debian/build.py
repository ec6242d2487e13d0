"""Build ``fer-edge_VERSION_ARCH.deb``: the environment under /opt/fer-edge as plain files, made from the wheelhouse.

``make deb`` runs it from a source checkout. It uses pip and dpkg-deb. The same wheels always give the same bytes.
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from importlib import metadata, resources
from pathlib import Path
from typing import Final

from edge.system.installer import run_command
from edge.system.shutdown import guarded
from export.wheelhouse import (
    DEBIAN_RELEASES,
    PROJECT,
    WheelTarget,
    build_wheelhouse,
    install_wheels,
    parse_target,
)

PREFIX: Final = Path("opt/fer-edge")

_ARCHES: Final = {"arm64": "aarch64", "amd64": "x86_64", "armhf": "armv7l"}
"""Debian's names of architectures, and those of wheels."""

_SCRIPTS: Final = ("preinst", "postinst", "prerm", "postrm")
_EPOCH: Final = "1580601600"  # as in the wheel, when SOURCE_DATE_EPOCH is not set

_PROGRAM: Final = """\
#!/opt/fer-edge/bin/python3
import sys

from edge.cli.entry import main

sys.exit(main())
"""

_ENVIRONMENT: Final = """\
home = /usr/bin
include-system-site-packages = true
version = {python}
"""

_CONTROL: Final = """\
Package: fer-edge
Version: {version}
Section: video
Priority: optional
Architecture: {arch}
Depends: python3 (>= {python}), python3 (<< {next_python}), libc6 (>= 2.{glibc}), libstdc++6, systemd
Suggests: python3-picamera2, mosquitto
Installed-Size: {kilobytes}
Maintainer: the fer-edge developers
Homepage: https://github.com/fer-edge/fer-edge
Description: facial expressions from a camera, published over MQTT
 A camera on a Raspberry Pi sees a visitor's face. fer-edge says which of seven
 expressions it shows, and publishes events over MQTT. It runs as a service.
 .
 This package is for {release}. It contains all Python packages that it needs.
"""


def build_package(wanted: WheelTarget, house: Path, dist: Path) -> Path:
    """Make the package of a wheelhouse in the folder ``dist``; returns its file.

    Raises WheelhouseError when pip fails, SystemCommandError when dpkg-deb does.
    """
    with tempfile.TemporaryDirectory(prefix="fer-edge-deb-") as scratch:
        root = Path(scratch) / "root"
        version = _lay_out(wanted, house, root)
        _write_control(wanted, version, root)
        _normalize_modes(root)
        file = dist / f"fer-edge_{version}_{_debian_arch(wanted)}.deb"
        epoch = os.environ.get("SOURCE_DATE_EPOCH", _EPOCH)
        # One thread: with more, the compressor may cut elsewhere. A Pi unpacks zstd several times faster than xz.
        options = ("--root-owner-group", "-Zzstd", "--threads-max=1")
        run_command(("env", f"SOURCE_DATE_EPOCH={epoch}", "dpkg-deb", *options, "--build", str(root), str(file)))
    return file


def _lay_out(wanted: WheelTarget, house: Path, root: Path) -> str:
    """Write all files that the package installs; returns the package's version."""
    prefix = root / PREFIX
    site = prefix / "lib" / f"python{wanted.python}" / "site-packages"
    install_wheels(wanted, house, site, "--no-compile")
    _drop_unwanted(site)
    [own] = metadata.distributions(name="fer-edge", path=[str(site)])
    (prefix / "pyvenv.cfg").write_text(_ENVIRONMENT.format(python=wanted.python))
    (prefix / "bin").mkdir()
    (prefix / "bin" / "python3").symlink_to(f"/usr/bin/python{wanted.python}")
    (prefix / "bin" / "python").symlink_to("python3")
    program = prefix / "bin" / "fer-edge"
    program.write_text(_PROGRAM)
    program.chmod(0o755)
    (root / "usr" / "bin").mkdir(parents=True)
    (root / "usr" / "bin" / "fer-edge").symlink_to(f"/{PREFIX}/bin/fer-edge")
    documents = root / "usr" / "share" / "doc" / "fer-edge"
    documents.mkdir(parents=True)
    shutil.copyfile(PROJECT / "LICENSE", documents / "copyright")
    return f"{_debian_version(own.version)}+deb{DEBIAN_RELEASES[wanted.python].number}"


def _drop_unwanted(site: Path) -> None:
    """Remove the packages' programs, which name the Python that built them, and byte code, which the device makes."""
    shutil.rmtree(site / "bin", ignore_errors=True)
    for folder in list(site.rglob("__pycache__")):
        shutil.rmtree(folder)
    for record in site.glob("*.dist-info/RECORD"):
        lines = record.read_text().splitlines(keepends=True)
        record.write_text("".join(line for line in lines if "../bin/" not in line and "__pycache__" not in line))


def _write_control(wanted: WheelTarget, version: str, root: Path) -> None:
    release = DEBIAN_RELEASES[wanted.python]
    major, minor = wanted.python.split(".")
    sizes = (file.stat().st_size for file in root.rglob("*") if file.is_file() and not file.is_symlink())
    control = root / "DEBIAN"
    control.mkdir()
    (control / "control").write_text(
        _CONTROL.format(
            version=version,
            arch=_debian_arch(wanted),
            python=wanted.python,
            next_python=f"{major}.{int(minor) + 1}",
            glibc=release.glibc,
            kilobytes=sum(-(-size // 1024) for size in sizes),
            release=release.name,
        )
    )
    for name in _SCRIPTS:
        script = control / name
        script.write_text((resources.files("export.debian") / name).read_text())
        script.chmod(0o755)


def _normalize_modes(root: Path) -> None:
    """Give every file and folder the usual mode, whatever the umask of the builder."""
    for file in (root, *root.rglob("*")):
        if not file.is_symlink():
            file.chmod(0o755 if file.is_dir() or file.stat().st_mode & 0o100 else 0o644)


def _debian_version(version: str) -> str:
    """A Python version for dpkg, which sorts what follows a tilde before the version without it."""
    for early in (".dev", "a", "b", "rc"):
        version = version.replace(early, f"~{early.strip('.')}")
    return version


def _debian_arch(wanted: WheelTarget) -> str:
    return next(debian for debian, wheels in _ARCHES.items() if wheels == wanted.arch)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m export.debian.build``: one package for each Debian release."""
    parser = argparse.ArgumentParser("python -m export.debian.build", description=__doc__)
    parser.add_argument("--arch", default="arm64")
    parser.add_argument("--dist", type=Path, default=PROJECT / "dist")
    arguments = parser.parse_args(argv)
    for python in DEBIAN_RELEASES:
        wanted = parse_target(_ARCHES.get(arguments.arch, arguments.arch), python)
        file = build_package(wanted, build_wheelhouse(wanted, arguments.dist), arguments.dist)
        print(f"{file.stat().st_size / 1e6:8.1f} MB  {file}  ({DEBIAN_RELEASES[python].name})")
    return 0


if __name__ == "__main__":
    sys.exit(guarded("deb", main))
