"""The Debian package of a made-up wheelhouse; tests/platform installs a real one."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from edge.errors import UsageError
from export.debian.build import _PROGRAM, build_package, main
from export.wheelhouse import parse_target
from tests.platform.roots import require_programs

TARGET = parse_target("aarch64", "3.11")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheelhouse with one wheel, of a release candidate."""
    folder = tmp_path_factory.mktemp("house")
    with zipfile.ZipFile(folder / "fer_edge-1.2rc3-py3-none-any.whl", "w") as wheel:
        info = "fer_edge-1.2rc3.dist-info"
        wheel.writestr("edge/__init__.py", "")
        wheel.writestr("edge/__pycache__/stray.cpython-311.pyc", "")  # as numpy's wheel has
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: fer-edge\nVersion: 1.2rc3\nProvides-Extra: litert\n"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/entry_points.txt", "[console_scripts]\nfer-edge = edge.cli.entry:main\n")
        wheel.writestr(f"{info}/RECORD", "")
    return folder


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory, house: Path) -> Path:
    require_programs("dpkg-deb")
    return build_package(TARGET, house, tmp_path_factory.mktemp("dist"))


def dpkg_deb(*words: object) -> str:
    return subprocess.run(["dpkg-deb", *map(str, words)], check=True, capture_output=True, text=True).stdout


def test_its_fields_fit_one_debian_release(package: Path) -> None:
    assert package.name == "fer-edge_1.2~rc3+deb12_arm64.deb"
    fields = dict(line.split(": ", 1) for line in dpkg_deb("--field", package).splitlines() if line[0] != " ")
    assert fields["Architecture"] == "arm64"
    assert fields["Version"] == "1.2~rc3+deb12"
    assert "python3 (>= 3.11), python3 (<< 3.12), libc6 (>= 2.36)" in fields["Depends"]
    subprocess.run(["dpkg", "--compare-versions", fields["Version"], "lt", "1.2+deb12"], check=True)


def test_it_holds_an_environment_and_a_link_to_its_program(tmp_path: Path, package: Path) -> None:
    dpkg_deb("--extract", package, tmp_path)
    prefix = tmp_path / "opt/fer-edge"
    assert (prefix / "bin/python3").readlink() == Path("/usr/bin/python3.11")
    assert (tmp_path / "usr/bin/fer-edge").readlink() == Path("/opt/fer-edge/bin/fer-edge")
    assert (prefix / "bin/fer-edge").read_text().startswith("#!/opt/fer-edge/bin/python3\n")
    assert "include-system-site-packages = true" in (prefix / "pyvenv.cfg").read_text()
    site = prefix / "lib/python3.11/site-packages"
    assert {folder.name for folder in site.iterdir()} == {"edge", "fer_edge-1.2rc3.dist-info"}
    assert not (site / "edge/__pycache__").exists()
    assert sys.prefix not in (site / "fer_edge-1.2rc3.dist-info/RECORD").read_text()
    assert "bin/" not in (site / "fer_edge-1.2rc3.dist-info/RECORD").read_text()
    listed = dpkg_deb("--contents", package)
    assert {line.split()[1] for line in listed.splitlines()} == {"root/root"}


def test_the_same_wheels_give_the_same_bytes(
    tmp_path: Path, house: Path, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    script = (
        "import os, sys; from pathlib import Path; os.umask(0o077); from tests.export.test_debian import TARGET; "
        "from export.debian.build import build_package; build_package(TARGET, Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    root = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", script, house, tmp_path]
    subprocess.run(command, check=True, env={"PATH": "/usr/bin:/bin", "PYTHONPATH": root, "TZ": "Asia/Tokyo"})
    assert (tmp_path / package.name).read_bytes() == package.read_bytes()


@pytest.mark.parametrize("name", ["preinst", "postinst", "prerm", "postrm"])
def test_its_scripts_are_valid_shell(tmp_path: Path, package: Path, name: str) -> None:
    dpkg_deb("--control", package, tmp_path / "control")
    assert (tmp_path / "control" / name).stat().st_mode & 0o777 == 0o755
    subprocess.run(["sh", "-n", tmp_path / "control" / name], check=True)


def test_a_32_bit_board_is_refused_with_the_reason() -> None:
    with pytest.raises(UsageError, match="64-bit Raspberry Pi OS"):
        main(["--arch", "armhf"])


def test_the_package_starts_the_program_as_the_wheel_does() -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    module, _, function = project["scripts"]["fer-edge"].partition(":")
    assert f"from {module} import {function}\n" in _PROGRAM
