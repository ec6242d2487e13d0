"""The Debian package in a booted Debian without a network: installed, upgraded, removed and purged with apt.

The tests follow each other in one container. It is Bookworm, or what the environment variable DEBIAN names.
"""

import os
import subprocess
from collections.abc import Iterator

import pytest

from export.debian.build import build_package
from export.wheelhouse import DEBIAN_RELEASES, build_wheelhouse, parse_target
from tests.conftest import wait_until
from tests.platform.conftest import new_container
from tests.platform.container import BOX, CONFIG, Container
from tests.platform.roots import require_root

pytestmark = pytest.mark.slow

SUITE = os.environ.get("DEBIAN", "bookworm")
[PYTHON] = (python for python, release in DEBIAN_RELEASES.items() if release.name.lower() == SUITE)
INSTALL = ("apt-get", "install", "--yes", "--reinstall", f"/{BOX}/fer-edge.deb")


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """A booted container in which nothing of fer-edge is installed, and the package."""
    require_root("systemd-nspawn", "mmdebstrap", "nsenter", "dpkg-deb")
    folder = tmp_path_factory.mktemp("debian")
    made = new_container(folder, SUITE)
    target = parse_target("x86_64", PYTHON)
    build_package(target, build_wheelhouse(target, folder), folder).rename(made.root / BOX / "fer-edge.deb")
    made.boot()
    made.run("systemctl", "enable", "--now", "camera", "mosquitto")
    yield made
    made.power_off()


def test_an_environment_of_pip_is_not_mixed_with_the_package(debian: Container) -> None:
    debian.write("opt/fer-edge/pyvenv.cfg", "")
    assert "sudo rm -r /opt/fer-edge" in debian.run(*INSTALL, check=False)
    assert not (debian.root / "usr/bin/fer-edge").exists()
    debian.run("rm", "-r", "/opt/fer-edge")


def test_one_command_installs_and_starts_the_service(debian: Container) -> None:
    debian.run(*INSTALL)
    assert (debian.root / "etc/fer-edge/config.toml").stat().st_mode & 0o777 == 0o640
    assert "plugdev" in debian.run("id", "fer-edge")
    wait_until(lambda: "/dev/video0: no such camera" in debian.show("StatusText"), 30)
    debian.write("etc/fer-edge/config.toml", CONFIG)
    debian.run("systemctl", "restart", "fer-edge")
    debian.ready()
    assert "active" in debian.run("fer-edge", "service", "status")
    compiled = debian.root / f"opt/fer-edge/lib/python{PYTHON}/site-packages/edge/__pycache__"
    assert list(compiled.glob("*.pyc"))
    assert debian.run("dpkg", "--verify", "fer-edge") == ""


def test_an_instance_has_a_process_and_a_name_of_its_own(debian: Container) -> None:
    debian.run("fer-edge", "service", "install", "--instance", "door")
    settings = CONFIG.replace('"kiosk"', '"{board}-door"')
    debian.write("etc/fer-edge/door/config.toml", settings)
    debian.run("systemctl", "restart", "--no-block", "fer-edge@door")
    wait_until(lambda: debian.run("systemctl", "is-active", "fer-edge@door", check=False).strip() == "active", 60)
    name = f"{debian.run('hostname').strip()}-door"
    topic = f"fer-edge/{name}/availability"
    assert debian.run("mosquitto_sub", "-t", topic, "-C", "1", "-W", "10").strip() == "online"
    assert (debian.root / f"var/lib/fer-edge/door/fer-edge-{name}.outbox.db").exists()
    assert debian.show("ActiveState") == "active"
    listed = debian.run("fer-edge", "model", "list", "--config", "/etc/fer-edge/door/config.toml")
    assert "in use" in listed


def test_an_upgrade_keeps_settings_and_state_and_restarts_every_instance(debian: Container) -> None:
    former = debian.ready()
    debian.run("systemctl", "disable", "fer-edge@door")  # it goes on, with files that the upgrade replaces
    door = debian.run("systemctl", "show", "fer-edge@door", "--property=MainPID")
    before = {file.name for file in (debian.root / "var/lib/fer-edge").iterdir()}
    debian.run(*INSTALL)
    debian.ready(after=former)
    assert debian.run("systemctl", "show", "fer-edge@door", "--property=MainPID") != door
    assert debian.run("systemctl", "is-enabled", "fer-edge@door", check=False).strip() == "disabled"
    assert (debian.root / "etc/fer-edge/config.toml").read_text() == CONFIG
    assert before <= {file.name for file in (debian.root / "var/lib/fer-edge").iterdir()}


def test_settings_of_another_version_stop_an_upgrade_and_a_disabled_service_stays_off(debian: Container) -> None:
    former = debian.ready()
    debian.write("etc/fer-edge/config.toml", f'{CONFIG}user = "kiosk"\n')
    refused = debian.run(*INSTALL, check=False)
    assert "unknown key mqtt.user; did you mean mqtt.username?" in refused
    assert "sudo dpkg --configure fer-edge" in refused
    assert int(debian.show("MainPID")) == former
    debian.write("etc/fer-edge/config.toml", CONFIG)
    debian.run("systemctl", "disable", "--now", "fer-edge")
    debian.run("dpkg", "--configure", "fer-edge")
    assert debian.run("systemctl", "is-enabled", "fer-edge", check=False).strip() == "disabled"
    assert debian.show("ActiveState") == "inactive"


def test_removal_keeps_settings_and_state_and_purging_removes_them(debian: Container) -> None:
    debian.run("apt-get", "remove", "--yes", "fer-edge")
    etc = debian.root / "etc"
    left = [*etc.glob("systemd/system/**/fer-edge*"), *etc.glob("udev/rules.d/*fer*"), *etc.glob("sysusers.d/*fer*")]
    assert left == []
    assert not (debian.root / "opt/fer-edge").exists()
    assert not (debian.root / "usr/bin/fer-edge").is_symlink()
    assert debian.run("find", "/proc", "-maxdepth", "1", "-user", "fer-edge") == ""
    assert (etc / "fer-edge/config.toml").read_text() == CONFIG
    assert (debian.root / "var/lib/fer-edge/door").is_dir()
    debian.write("etc/systemd/system/fer-edge.service.d/override.conf", "")  # as `systemctl edit` makes it
    debian.run("apt-get", "purge", "--yes", "fer-edge")
    assert (etc / "systemd/system/fer-edge.service.d/override.conf").exists(), "it is the administrator's"
    assert not (etc / "fer-edge").exists()
    assert not (debian.root / "var/lib/fer-edge").exists()


def test_an_image_that_does_not_run_gets_an_enabled_service(debian: Container) -> None:
    debian.power_off()
    command = ["systemd-nspawn", "-q", "--register=no", "--keep-unit", "--pipe", "-D", debian.root]
    subprocess.run([*command, "dpkg", "--install", f"/{BOX}/fer-edge.deb"], check=True, capture_output=True)
    assert (debian.root / "etc/systemd/system/multi-user.target.wants/fer-edge.service").is_symlink()
    debian.boot()
    debian.write("etc/fer-edge/config.toml", CONFIG)
    debian.run("systemctl", "restart", "fer-edge")
    debian.ready()


def test_removal_ends_every_service_although_the_program_is_gone(debian: Container) -> None:
    debian.run("fer-edge", "service", "install", "--instance", "door")
    debian.write("etc/fer-edge/door/config.toml", CONFIG.replace('"kiosk"', '"door"'))
    debian.run("systemctl", "restart", "--no-block", "fer-edge@door")
    wait_until(lambda: debian.run("systemctl", "is-active", "fer-edge@door", check=False).strip() == "active", 60)
    debian.run("rm", "-r", "/opt/fer-edge")
    debian.run("apt-get", "remove", "--yes", "fer-edge")
    assert debian.run("find", "/proc", "-maxdepth", "1", "-user", "fer-edge") == ""
    assert not list((debian.root / "etc/systemd/system").glob("*.wants/fer-edge*"))
