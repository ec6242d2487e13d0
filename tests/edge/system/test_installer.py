"""The steps of `fer-edge service` and its status, without a real systemd. That one is in tests/platform."""

import json
import os
import re
import tempfile
import tomllib
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import pytest

from edge.cli.reference import reference, sample
from edge.cli.service import install_service, service_status, uninstall_service
from edge.errors import FerEdgeError, SettingsError, SystemCommandError, UsageError, exit_meanings
from edge.settings import Ignore, Preset, Settings, load_settings
from edge.system.installer import UDEV_FILE, USERS_FILE, Machine, describe, run_command
from edge.system.owner_rights import rights_of_owner
from tests.conftest import ROOT

SHIPPED = ROOT / "systemd"
CONFIG_FILE = "etc/fer-edge/config.toml"
PASSWORD_FILE = "etc/fer-edge/mqtt-password"
CAMERA_PASSWORD_FILE = "etc/fer-edge/camera-password"
UNIT_FILE = "etc/systemd/system/fer-edge.service"
TEMPLATE_FILE = "etc/systemd/system/fer-edge@.service"
SHOWN = {
    "LoadState": "loaded",
    "ActiveState": "active",
    "SubState": "running",
    "UnitFileState": "enabled",
    "StatusText": "24.9 frames/s on cpu",
    "Result": "success",
    "ExecMainCode": "0",
    "ExecMainStatus": "0",
    "MainPID": "17",
    "NRestarts": "2",
}


class Commands:
    """Takes commands instead of the operating system, and keeps them."""

    def __init__(self, answer: str = "") -> None:
        self.run: list[str] = []
        self._answer = answer

    def __call__(self, words: Sequence[str]) -> str:
        self.run.append(" ".join(words))
        return self._answer


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine with systemd and udev, whose files are in a temporary folder."""
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    (tmp_path / "run/udev").mkdir()
    (tmp_path / "run/udev/control").touch()
    return Machine(tmp_path, prefix=Path("/srv/fer"), base_prefix=Path("/usr"), superuser=True)


def arguments(
    action: str, *, dry_run: bool = False, instance: str | None = None, from_package: bool = False
) -> Namespace:
    return Namespace(action=action, dry_run=dry_run, json=True, instance=instance, from_package=from_package)


def mode(file: Path) -> int:
    return file.stat().st_mode & 0o777


def files(machine: Machine) -> dict[str, str]:
    etc = machine.root / "etc"
    return {str(file.relative_to(machine.root)): file.read_text() for file in etc.rglob("*") if file.is_file()}


def test_install_writes_the_files_and_runs_the_commands(machine: Machine) -> None:
    commands = Commands()
    assert install_service(arguments("install"), machine, commands) == 0
    assert files(machine) == {
        CONFIG_FILE: (SHIPPED / "config.toml").read_text(),
        PASSWORD_FILE: "",
        CAMERA_PASSWORD_FILE: "",
        USERS_FILE: (SHIPPED / "sysusers.conf").read_text(),
        UDEV_FILE: (SHIPPED / "udev.rules").read_text(),
        UNIT_FILE: (SHIPPED / "fer-edge.service").read_text().replace("/opt/fer-edge", "/srv/fer"),
    }
    assert "ExecStart=/srv/fer/bin/fer-edge run" in files(machine)[UNIT_FILE]
    for secret in (PASSWORD_FILE, CAMERA_PASSWORD_FILE):
        assert mode(machine.root / secret) == 0o600
    assert mode(machine.root / CONFIG_FILE) == 0o640
    assert [line.split()[:2] for line in commands.run] == [
        ["systemd-sysusers", f"{machine.root}/{USERS_FILE}"],
        ["chown", "root:fer-edge"],
        ["udevadm", "control"],
        ["udevadm", "trigger"],
        ["systemctl", "daemon-reload"],
        ["systemctl", "enable"],
        ["systemctl", "restart"],
    ]


def test_the_user_is_made_before_the_service_starts_and_the_unit_is_read_before(machine: Machine) -> None:
    commands = Commands()
    install_service(arguments("install"), machine, commands)
    assert commands.run[-1].endswith("--no-block fer-edge.service")


def test_installing_twice_writes_nothing_the_second_time(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    install_service(arguments("install"), machine, Commands())
    before = files(machine)
    capsys.readouterr()
    install_service(arguments("install"), machine, Commands())
    assert files(machine) == before
    assert not [line for line in capsys.readouterr().out.splitlines() if line.startswith("write")]


@pytest.mark.parametrize("superuser", [True, False])
def test_a_dry_run_says_the_same_and_does_nothing(
    machine: Machine, capsys: pytest.CaptureFixture[str], *, superuser: bool
) -> None:
    commands = Commands()
    plain = Machine(machine.root, machine.prefix, machine.base_prefix, superuser=superuser)
    assert install_service(arguments("install", dry_run=True), plain, commands) == 0
    output = capsys.readouterr().out
    assert files(machine) == {}
    assert commands.run == []
    install_service(arguments("install"), machine, commands)
    assert capsys.readouterr().out.startswith(output)
    uninstall_service(arguments("uninstall", dry_run=True), plain, commands)
    output = capsys.readouterr().out
    assert UNIT_FILE in files(machine)
    uninstall_service(arguments("uninstall"), machine, commands)
    assert capsys.readouterr().out.startswith(output)


def test_settings_and_password_are_never_overwritten(machine: Machine) -> None:
    own = '[mqtt]\nhost = "broker.lan"\n'
    (machine.root / "etc/fer-edge").mkdir(parents=True)
    (machine.root / CONFIG_FILE).write_text(own)
    (machine.root / PASSWORD_FILE).write_text("sesame")
    install_service(arguments("install"), machine, Commands())
    assert files(machine)[CONFIG_FILE] == own
    assert files(machine)[PASSWORD_FILE] == "sesame"
    assert files(machine)[f"{CONFIG_FILE}.new"] == sample()


def test_settings_that_others_could_read_are_closed_and_a_sample_is_too(machine: Machine) -> None:
    """An address in them may hold a camera's password; earlier versions wrote them with mode 0644."""
    (machine.root / "etc/fer-edge").mkdir(parents=True)
    config = machine.root / CONFIG_FILE
    for content in (sample(), "[camera]\n"):
        config.write_text(content)
        config.chmod(0o644)
        commands = Commands()
        install_service(arguments("install"), machine, commands)
        assert mode(config) == 0o640
        assert config.read_text() == content
        assert f"chown root:fer-edge {config}" in commands.run
    assert mode(config.with_name("config.toml.new")) == 0o640


def test_secrets_that_others_could_read_are_closed(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    folder = machine.root / "etc/fer-edge"
    folder.mkdir(parents=True)
    for name, given, wanted in (
        ("mqtt-password", 0o644, 0o600),
        ("mqtt-key", 0o604, 0o600),
        ("camera-password", 0o640, 0o640),
        ("of another program", 0o644, 0o644),
    ):
        (folder / name).write_text("sesame")
        (folder / name).chmod(given)
        install_service(arguments("install"), machine, Commands())
        assert mode(folder / name) == wanted, name
        assert (folder / name).read_text() == "sesame"
    assert f"close {folder}/mqtt-key (mode 0600)" in capsys.readouterr().out
    (folder / "mqtt-key").rename(folder / "of another program")
    (folder / "of another program").chmod(0o644)
    (folder / "mqtt-key").symlink_to("of another program")
    install_service(arguments("install"), machine, Commands())
    assert mode(folder / "of another program") == 0o644, "its rights are another's affair"


def test_settings_from_an_old_version_stop_an_upgrade_before_it_begins(machine: Machine) -> None:
    (machine.root / "etc/fer-edge").mkdir(parents=True)
    (machine.root / CONFIG_FILE).write_text('[mqtt]\nuser = "kiosk"\n')
    commands = Commands()
    with pytest.raises(SettingsError, match=r"unknown key mqtt\.user; did you mean mqtt\.username\?"):
        install_service(arguments("install"), machine, commands)
    assert commands.run == []
    assert list(files(machine)) == [CONFIG_FILE]


def test_uninstall_leaves_settings_password_and_user(machine: Machine) -> None:
    install_service(arguments("install"), machine, Commands())
    commands = Commands()
    assert uninstall_service(arguments("uninstall"), machine, commands) == 0
    assert set(files(machine)) == {CONFIG_FILE, PASSWORD_FILE, CAMERA_PASSWORD_FILE}
    assert commands.run[0] == "systemctl disable --now fer-edge.service"
    again = Commands()
    assert uninstall_service(arguments("uninstall"), machine, again) == 0
    assert "systemctl disable --now fer-edge.service" not in again.run


@pytest.mark.parametrize(("action", "command"), [("install", install_service), ("uninstall", uninstall_service)])
def test_without_root_the_command_to_use_is_named(machine: Machine, action: str, command) -> None:  # noqa: ANN001
    plain = Machine(machine.root, machine.prefix, machine.base_prefix, superuser=False)
    with pytest.raises(UsageError, match=f"sudo /srv/fer/bin/fer-edge service {action}") as raised:
        command(arguments(action), plain, Commands())
    assert raised.value.exit_code == 2


@pytest.mark.parametrize("closed", ["config.toml", "config.toml.new"])
@pytest.mark.parametrize("dry_run", [False, True])
def test_settings_that_only_root_may_read_are_no_wrong_settings(closed: str, *, dry_run: bool) -> None:
    if os.geteuid():
        pytest.skip("needs root")
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        root = Path(name)
        root.chmod(0o755)
        (root / "run/systemd/system").mkdir(parents=True)
        settings = root / CONFIG_FILE
        settings.parent.mkdir(parents=True)
        settings.write_text("[camera]\n")
        settings.with_name(closed).touch(0o600)
        settings.with_name(closed).chmod(0o600)
        home = root / "home"
        home.mkdir()
        os.chown(home, 65534, 65534)
        plain = Machine(root, Path("/srv/fer"), Path("/usr"), superuser=False)
        needed = f"sudo /srv/fer/bin/fer-edge service install{' --dry-run' if dry_run else ''}$"
        with rights_of_owner(home), pytest.raises(UsageError, match=needed):
            install_service(arguments("install", dry_run=dry_run), plain, Commands())


@pytest.mark.parametrize("command", [install_service, uninstall_service, service_status])
def test_without_systemd_it_says_so(tmp_path: Path, command) -> None:  # noqa: ANN001
    with pytest.raises(UsageError, match="systemd does not run here"):
        command(
            arguments("install"), Machine(tmp_path, Path("/opt/fer-edge"), Path("/usr"), superuser=True), Commands()
        )


@pytest.mark.parametrize("prefix", ["/home/pi/fer-edge", "/root/venv", "/tmp/venv"])
def test_a_program_that_the_sandbox_would_hide_is_refused(machine: Machine, prefix: str) -> None:
    for pair in ((prefix, "/usr"), ("/opt/fer-edge", prefix)):
        hidden = Machine(machine.root, Path(pair[0]), Path(pair[1]), superuser=True)
        with pytest.raises(UsageError, match=prefix):
            install_service(arguments("install", dry_run=True), hidden, Commands())


def test_a_command_that_fails_is_reported_with_its_stderr() -> None:
    with pytest.raises(SystemCommandError, match=r"sh -c .* failed \(3\): no such unit"):
        run_command(("sh", "-c", "echo no such unit >&2; exit 3"))
    with pytest.raises(SystemCommandError, match="cannot be run: No such file"):
        run_command(("fer-edge-no-such-program",))
    assert run_command(("echo", "done")) == "done\n"


def test_status_of_a_service_that_works(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    shown = Commands("\n".join(f"{name}={value}" for name, value in SHOWN.items()))
    assert service_status(arguments("status"), machine, shown) == 0
    assert json.loads(capsys.readouterr().out) == {
        "state": "active",
        "sub_state": "running",
        "enabled": True,
        "status": "24.9 frames/s on cpu",
        "pid": 17,
        "restarts": 2,
        "exit_code": None,
        "exit_meaning": None,
    }


@pytest.mark.parametrize(
    ("changes", "code", "meaning"),
    [
        ({"Result": "exit-code", "ExecMainCode": "1", "ExecMainStatus": "5"}, 5, "camera"),
        ({"Result": "exit-code", "ExecMainCode": "1", "ExecMainStatus": "3"}, 3, "configuration file"),
        ({"Result": "success", "ExecMainCode": "1", "ExecMainStatus": "0"}, 0, "ended normally"),
        ({"Result": "exit-code", "ExecMainCode": "1", "ExecMainStatus": "217"}, 217, "systemd could not run it"),
        ({"Result": "watchdog", "ExecMainCode": "2", "ExecMainStatus": "6"}, None, "watchdog"),
        ({"Result": "signal", "ExecMainCode": "2", "ExecMainStatus": "9"}, None, "SIGKILL"),
        ({"Result": "core-dump", "ExecMainCode": "3", "ExecMainStatus": "11"}, None, "SIGSEGV"),
    ],
)
def test_status_says_what_the_last_end_means(changes: dict[str, str], code: int | None, meaning: str) -> None:
    service = describe({**SHOWN, **changes})
    assert service["exit_code"] == code
    assert meaning in service["exit_meaning"]


def test_status_without_an_installed_service(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    absent = {**SHOWN, "LoadState": "not-found", "ActiveState": "inactive", "UnitFileState": ""}
    shown = Commands("\n".join(f"{name}={value}" for name, value in absent.items()))
    assert service_status(Namespace(json=False, instance=None), machine, shown) == 1
    assert "not installed" in capsys.readouterr().out


def test_every_error_has_a_code_and_a_meaning_of_its_own() -> None:
    kinds = FerEdgeError.__subclasses__()
    assert len({kind.exit_code for kind in kinds}) == len(kinds)
    device = [kind for kind in kinds if kind.__module__ == "edge.errors"]  # export has one of its own
    assert len(device) == len(exit_meanings()) - 2
    assert all(exit_meanings()[kind.exit_code].endswith(".") for kind in device)


def test_the_sample_that_is_shipped_is_up_to_date() -> None:
    assert (SHIPPED / "config.toml").read_text() == sample(), "run: make sample"
    assert (ROOT / "docs" / "configuration.md").read_text() == reference(), "run: make sample"


def test_the_sample_holds_every_default_and_describes_it(tmp_path: Path) -> None:
    uncommented = "\n".join(line.removeprefix("#") if line[:2] != "# " else line for line in sample().splitlines())
    file = tmp_path / "config.toml"
    file.write_text(uncommented)
    assert load_settings(file) == Settings()
    file.write_text(sample())
    assert load_settings(file) == Settings()
    tables = tomllib.loads(uncommented)
    for name in set(Settings.__struct_fields__) - {"preset"}:
        assert set(tables[name]) == set(getattr(Settings(), name).__struct_fields__) - {"ignore"}  # is an example
    examples = re.findall(r"^# \[\[[\w.]+\]\]\n(?:# \w+ = .*\n)+", sample(), re.MULTILINE)
    file.write_text(re.sub("^# ", "", "".join(examples), flags=re.MULTILINE))
    shown = load_settings(file)
    assert shown.preset == (Preset(name="smile", expression="happy", for_seconds=1.5),)
    assert shown.detect.ignore == (Ignore(left=0.0, top=0.1, width=0.25, height=0.5),)
    assert "every twenty seconds.\n#min_face = 0.05" in sample()


def test_the_coral_stick_is_known_before_and_after_its_first_use() -> None:
    rules = (SHIPPED / "udev.rules").read_text()
    for vendor, product in (("1a6e", "089a"), ("18d1", "9302")):
        [rule] = [line for line in rules.splitlines() if vendor in line]
        assert product in rule
        assert 'GROUP="plugdev"' in rule


def enabled(machine: Machine, name: str) -> None:
    """Do what `systemctl enable` does for a named instance."""
    link = machine.root / f"etc/systemd/system/multi-user.target.wants/fer-edge@{name}.service"
    link.parent.mkdir(exist_ok=True)
    link.symlink_to("/etc/systemd/system/fer-edge@.service")


def test_a_named_instance_has_settings_secrets_state_and_a_name_of_its_own(machine: Machine) -> None:
    install_service(arguments("install"), machine, Commands())
    first = files(machine)
    commands = Commands()
    assert install_service(arguments("install", instance="door"), machine, commands) == 0
    added = {name: text for name, text in files(machine).items() if name not in first}
    assert set(added) == {
        "etc/fer-edge/door/config.toml",
        "etc/fer-edge/door/mqtt-password",
        "etc/fer-edge/door/camera-password",
        TEMPLATE_FILE,
    }
    assert load_settings(machine.root / "etc/fer-edge/door/config.toml").mqtt.device == "{board}-door"
    template = added[TEMPLATE_FILE]
    for line in (
        "ExecStart=/srv/fer/bin/fer-edge run --config /etc/fer-edge/%i/config.toml --events mqtt",
        "LoadCredential=mqtt-password:/etc/fer-edge/%i/mqtt-password",
        "ConfigurationDirectory=fer-edge/%i",
        "StateDirectory=fer-edge/%i",
        "StateDirectoryMode=0750",
        "RuntimeDirectory=fer-edge-%i",
        "User=fer-edge",
    ):
        assert line in template.splitlines()
    assert commands.run[-2:] == [
        "systemctl enable fer-edge@door.service",
        "systemctl restart --no-block fer-edge@door.service",
    ]
    assert "chown root:fer-edge" in " ".join(commands.run)
    assert {name: files(machine)[name] for name in first} == first


@pytest.mark.parametrize("name", ["", "Door", "a/b", "..", "-x", "x" * 33, "models", "a b", "%i"])
def test_a_name_that_is_no_instance_is_refused(machine: Machine, name: str) -> None:
    for action, command in (("install", install_service), ("uninstall", uninstall_service)):
        with pytest.raises(UsageError, match="--instance"):
            command(arguments(action, instance=name), machine, Commands())
    assert files(machine) == {}


def test_removing_one_instance_leaves_what_the_others_need(machine: Machine) -> None:
    for name in (None, "door", "gate"):
        install_service(arguments("install", instance=name), machine, Commands())
        if name:
            enabled(machine, name)
    commands = Commands()
    uninstall_service(arguments("uninstall", instance="door"), machine, commands)
    (machine.root / "etc/systemd/system/multi-user.target.wants/fer-edge@door.service").unlink()
    assert commands.run[0] == "systemctl disable --now fer-edge@door.service"
    assert {UNIT_FILE, TEMPLATE_FILE, USERS_FILE, UDEV_FILE} <= files(machine).keys()
    uninstall_service(arguments("uninstall"), machine, Commands())
    assert UNIT_FILE not in files(machine)
    assert {TEMPLATE_FILE, USERS_FILE, UDEV_FILE} <= files(machine).keys()
    uninstall_service(arguments("uninstall", instance="gate"), machine, Commands())
    assert not {UNIT_FILE, TEMPLATE_FILE, USERS_FILE, UDEV_FILE} & files(machine).keys()
    assert "etc/fer-edge/door/config.toml" in files(machine)


def test_an_instance_that_was_never_installed_cannot_be_removed(machine: Machine) -> None:
    install_service(arguments("install", instance="door"), machine, Commands())
    enabled(machine, "door")
    commands = Commands()
    with pytest.raises(UsageError, match=r"--instance dor: there is no such service; those with a name: door$"):
        uninstall_service(arguments("uninstall", instance="dor"), machine, commands)
    assert commands.run == []


def test_the_commands_to_use_name_the_instance(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    plain = Machine(machine.root, machine.prefix, machine.base_prefix, superuser=False)
    with pytest.raises(UsageError, match="sudo /srv/fer/bin/fer-edge service install --instance door"):
        install_service(arguments("install", instance="door"), plain, Commands())
    install_service(arguments("install", instance="door"), machine, Commands())
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith("/etc/fer-edge/door/config.toml; state: fer-edge service status --instance door")
    shown = Commands("\n".join(f"{name}={value}" for name, value in SHOWN.items()))
    assert service_status(arguments("status", instance="door"), machine, shown) == 0
    assert "fer-edge@door.service" in shown.run[0]


def test_a_package_enables_once_and_upgrades_without_starting_what_was_stopped(machine: Machine) -> None:
    first = Commands()
    install_service(arguments("install", from_package=True), machine, first)
    assert first.run[-2:] == ["systemctl enable fer-edge.service", "systemctl restart --no-block fer-edge.service"]
    enabled(machine, "door")
    (machine.root / UNIT_FILE).write_text("of the version before")
    again = Commands()
    install_service(arguments("install", from_package=True), machine, again)
    assert "[Unit]" in files(machine)[UNIT_FILE]
    assert not [command for command in again.run if command.startswith("systemctl enable")]
    assert again.run[-1] == "systemctl try-restart --no-block fer-edge.service fer-edge@door.service"


def test_a_package_never_starts_the_first_service_for_a_disabled_instance(machine: Machine) -> None:
    (machine.root / TEMPLATE_FILE).parent.mkdir(parents=True)
    (machine.root / TEMPLATE_FILE).write_text("of the version before")
    commands = Commands()
    install_service(arguments("install", from_package=True), machine, commands)
    assert UNIT_FILE not in files(machine)
    assert "[Unit]" in files(machine)[TEMPLATE_FILE]
    changing = [command for command in commands.run if command.startswith("systemctl") and "list-units" not in command]
    assert changing == ["systemctl daemon-reload"]


def test_a_package_restarts_and_removes_an_instance_that_runs_though_it_is_disabled(machine: Machine) -> None:
    install_service(arguments("install", from_package=True), machine, Commands())
    install_service(arguments("install", instance="door"), machine, Commands())
    enabled(machine, "gate")
    running = Commands(
        "fer-edge@door.service loaded active running door: expressions\n"
        "fer-edge@hall.service loaded deactivating stop-sigterm hall: expressions\n"
        "fer-edge@lift.service loaded inactive dead start lift: expressions\n"
        "fer-edge@shop.service loaded failed failed shop: expressions\n"
    )
    install_service(arguments("install", from_package=True), machine, running)
    units = " ".join(["fer-edge.service", *(f"fer-edge@{name}.service" for name in ("gate", "door", "hall", "lift"))])
    assert running.run[-1] == f"systemctl try-restart --no-block {units}"
    assert not [command for command in running.run if command.startswith("systemctl enable")]
    running.run.clear()
    uninstall_service(arguments("uninstall", from_package=True), machine, running)
    assert f"systemctl disable --now {units}" in running.run


def test_a_package_installs_where_an_images_systemd_does_not_run(tmp_path: Path) -> None:
    machine = Machine(tmp_path, Path("/opt/fer-edge"), Path("/usr"), superuser=True)
    commands = Commands()
    install_service(arguments("install", from_package=True), machine, commands)
    assert [line for line in commands.run if "systemctl" in line] == ["systemctl enable fer-edge.service"]
    commands.run.clear()
    uninstall_service(arguments("uninstall", from_package=True), machine, commands)
    assert commands.run == ["systemctl disable fer-edge.service"]
    assert {UNIT_FILE, USERS_FILE, UDEV_FILE}.isdisjoint(files(machine))


def test_a_package_removes_every_instance(machine: Machine) -> None:
    install_service(arguments("install", from_package=True), machine, Commands())
    install_service(arguments("install", instance="door"), machine, Commands())
    enabled(machine, "door")
    commands = Commands()
    uninstall_service(arguments("uninstall", from_package=True), machine, commands)
    assert commands.run[1] == "systemctl disable --now fer-edge.service fer-edge@door.service"
    assert {UNIT_FILE, TEMPLATE_FILE, USERS_FILE, UDEV_FILE}.isdisjoint(files(machine))
