"""``fer-edge service``: make this virtual environment a systemd service, remove it again, show its status.

The work is first planned as a list of steps. ``--dry-run`` prints the list; without it the same list is carried out. A
second ``install`` finds nothing to write.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final, TypeAlias

from edge.errors import SystemCommandError, UsageError, exit_meanings
from edge.settings import load_settings
from edge.system.instance import FIRST, NAMED_UNITS, TEMPLATE, Instance, installed_instances, name_of_unit
from edge.system.secret_files import SECRET_FILES

USERS_FILE: Final = "etc/sysusers.d/fer-edge.conf"
UDEV_FILE: Final = "etc/udev/rules.d/60-fer-edge.rules"

_SECRETS: Final = ("mqtt-password", "camera-password")  # beside the settings; these are made

_SETTINGS_MODE: Final = 0o640  # an address in the settings may hold a password
_SECRET_MODE: Final = 0o600
_GROUP: Final = "fer-edge"

_UNIT_PREFIX: Final = "/opt/fer-edge"  # the virtual environment in the shipped unit
HIDDEN_FOLDERS: Final = ("/home/", "/root/", "/run/user/", "/tmp/", "/var/tmp/")
SHOWN_PROPERTIES: Final = (
    "LoadState",
    "ActiveState",
    "SubState",
    "UnitFileState",
    "StatusText",
    "Result",
    "ExecMainCode",
    "ExecMainStatus",
    "MainPID",
    "NRestarts",
)
_EXITED: Final = 1  # of waitid(2): CLD_EXITED

Run: TypeAlias = Callable[[Sequence[str]], str]


@dataclass(frozen=True)
class WriteFile:
    """Give a file this content and mode."""

    file: Path
    content: str
    mode: int = 0o644

    def __str__(self) -> str:
        return f"{'write' if self._differs() else 'keep '} {self.file} (mode {self.mode:04o})"

    def apply(self, _: Run) -> None:
        """Write the file unless it has that content and mode already."""
        if not self._differs():
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.touch(self.mode)  # a secret's file must never be readable by others, not even before it is written
        self.file.chmod(self.mode)
        self.file.write_text(self.content)

    def _differs(self) -> bool:
        if not self.file.is_file():
            return True
        return self.file.read_text() != self.content or self.file.stat().st_mode & 0o777 != self.mode


@dataclass(frozen=True)
class RemoveFile:
    """Remove a file."""

    file: Path

    def __str__(self) -> str:
        return f"remove {self.file}"

    def apply(self, _: Run) -> None:
        """Remove the file if it exists."""
        self.file.unlink(missing_ok=True)


@dataclass(frozen=True)
class RunCommand:
    """Run a command of the operating system."""

    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"run   {' '.join(self.words)}"

    def apply(self, run: Run) -> None:
        """Run it."""
        run(self.words)


@dataclass(frozen=True)
class CloseFile:
    """Give an existing file a mode that keeps others out."""

    file: Path
    mode: int = _SETTINGS_MODE

    def __str__(self) -> str:
        return f"close {self.file} (mode {self.mode:04o})"

    def apply(self, _: Run) -> None:
        """Set the mode; the content stays."""
        self.file.chmod(self.mode)


Step: TypeAlias = CloseFile | WriteFile | RemoveFile | RunCommand


@dataclass(frozen=True)
class Machine:
    """The machine to install on: its root folder, the Python environment, and whether this is its superuser."""

    root: Path = Path("/")
    prefix: Path = Path(sys.prefix)
    base_prefix: Path = Path(sys.base_prefix)
    superuser: bool = os.geteuid() == 0

    @property
    def booted(self) -> bool:
        """Whether systemd runs here; it does not where the image of a card is made."""
        return (self.root / "run/systemd/system").is_dir()

    def require_systemd(self) -> None:
        """Raise UsageError where no systemd runs."""
        if not self.booted:
            raise UsageError("systemd does not run here, so there is no service to handle. fer-edge run needs none.")

    def require_root(self, action: str) -> None:
        """Raise UsageError naming the command to use instead when this is not root."""
        if not self.superuser:
            raise UsageError(f"this needs root: sudo {self.prefix}/bin/fer-edge service {action}")

    def require_visible(self) -> None:
        """Raise UsageError when the service's sandbox would hide the program's own files."""
        for folder in (self.prefix, self.base_prefix):
            if f"{folder}/".startswith(HIDDEN_FOLDERS):
                raise UsageError(
                    f"{folder} is hidden from the service, which sees no home and no temporary folder. Make the "
                    f"virtual environment with the system's Python, in {_UNIT_PREFIX}."
                )


def can_read_settings(machine: Machine, instances: Sequence[Instance]) -> bool:
    """Whether this user may read the existing settings of these instances, on which the steps of an install depend."""
    files = [machine.root / instance.config_file for instance in instances]
    existing = [one for file in files for one in (file, _sample_beside(file)) if one.exists()]
    return all(os.access(file, os.R_OK, effective_ids=True) for file in existing)


def install_steps(machine: Machine, instances: Sequence[Instance] = (FIRST,), *, upgrade: bool = False) -> list[Step]:
    """The steps of ``service install``. Raises SettingsError when existing settings are not valid.

    With ``upgrade``, a service that was disabled stays so, and one that does not run is not started.
    """
    root = machine.root
    users, rules = root / USERS_FILE, root / UDEV_FILE
    unit = _shipped("fer-edge.service").replace(_UNIT_PREFIX, str(machine.prefix))
    wanted = {instance.unit_file for instance in instances}
    kinds = [kind for kind in (FIRST, TEMPLATE) if kind.unit_file in wanted or (root / kind.unit_file).exists()]
    return [
        *(step for instance in instances for step in _settings_steps(root, instance)),
        WriteFile(users, _shipped("sysusers.conf")),
        RunCommand(("systemd-sysusers", str(users))),
        *(_model_steps(root) if FIRST in instances else ()),
        # The service must be able to read its settings.
        *(RunCommand(("chown", f"root:{_GROUP}", str(root / instance.config_file))) for instance in instances),
        WriteFile(rules, _shipped("udev.rules")),
        *_udev_commands(root),
        *(WriteFile(root / kind.unit_file, kind.unit_text(unit)) for kind in kinds),
        *_start_steps(machine, [instance.unit for instance in instances], upgrade=upgrade),
    ]


def _start_steps(machine: Machine, units: Sequence[str], *, upgrade: bool) -> list[Step]:
    enable: list[Step] = [] if upgrade else [RunCommand(("systemctl", "enable", *units))]
    if not machine.booted:
        return enable
    verb = "try-restart" if upgrade else "restart"
    # Without waiting: a camera or broker that is missing must not make the installation hang.
    start = [RunCommand(("systemctl", verb, "--no-block", *units))] if units else []
    return [RunCommand(("systemctl", "daemon-reload")), *enable, *start]


def running_instances(machine: Machine, run: Run) -> list[Instance]:
    """The named instances that run, also those that are disabled.

    One that is deactivating, or inactive with a pending job, counts: restarts are not waited for, so it may be about to
    start again. systemd lists no other inactive unit.
    """
    if not machine.booted:
        return []
    listed = run(("systemctl", "list-units", "--plain", "--no-legend", "--full", NAMED_UNITS))
    rows = (line.split() for line in listed.splitlines())  # unit, load state, active state, ...
    return [Instance(name_of_unit(unit)) for unit, _, active, *_ in rows if active != "failed"]


def uninstall_steps(machine: Machine, instances: Sequence[Instance] = (FIRST,)) -> list[Step]:
    """The steps of ``service uninstall``; the settings, the state and the user stay."""
    root = machine.root
    units = [instance.unit for instance in instances if (root / instance.unit_file).exists()]
    others = {other.unit_file for other in installed_instances(root) if other not in instances}
    files = {instance.unit_file for instance in instances} - others
    if not others:
        files |= {TEMPLATE.unit_file, USERS_FILE, UDEV_FILE}
    now = ("--now",) if machine.booted else ()
    return [
        *([RunCommand(("systemctl", "disable", *now, *units))] if units else []),
        *(RemoveFile(root / file) for file in sorted(files) if (root / file).exists()),
        *_udev_commands(root),
        *([RunCommand(("systemctl", "daemon-reload"))] if machine.booted else []),
    ]


def _settings_steps(root: Path, instance: Instance) -> list[Step]:
    """The settings, an empty file for each password that there may be, and secrets that others may read closed."""
    file = root / instance.config_file
    secrets = [file.with_name(secret.name) for secret in SECRET_FILES]
    return [
        *_config_steps(file, instance.sample_text(_shipped("config.toml"))),
        *(WriteFile(one, "", _SECRET_MODE) for one in secrets if one.name in _SECRETS and not one.exists()),
        *(CloseFile(one, _SECRET_MODE) for one in secrets if _is_open_to_others(one)),
    ]


def _is_open_to_others(file: Path) -> bool:
    """Whether others may read or write a file. What a link leads to has the rights that its owner wants."""
    return file.is_file() and not file.is_symlink() and bool(file.stat().st_mode & 0o007)


def _config_steps(file: Path, sample: str) -> list[Step]:
    """Never overwrite the settings file, but close it; write a sample that differs from it beside it."""
    if not file.exists():
        return [WriteFile(file, sample, _SETTINGS_MODE)]
    load_settings(file)
    close: list[Step] = [CloseFile(file)] if file.stat().st_mode & 0o777 != _SETTINGS_MODE else []
    if file.read_text() == sample:
        return close
    return [*close, WriteFile(_sample_beside(file), sample, _SETTINGS_MODE)]


def _sample_beside(file: Path) -> Path:
    return file.with_name(f"{file.name}.new")


def _model_steps(root: Path) -> list[Step]:
    """Give the first service's models to the owner of its state folder; earlier versions installed them as root.

    They knew no instances. The state folder of one lies in a folder of the service's user, who may put a link there.
    """
    state = root / FIRST.state.relative_to("/")
    models = state / "models"
    if not os.path.lexists(models) or models.lstat().st_uid == state.lstat().st_uid:
        return []
    # Neither option follows a link that the owner of the folder has put there.
    return [RunCommand(("chown", "--recursive", "-P", "--no-dereference", f"{_GROUP}:{_GROUP}", str(models)))]


def _udev_commands(root: Path) -> list[Step]:
    if not (root / "run/udev/control").exists():  # as in a container
        return []
    return [
        RunCommand(("udevadm", "control", "--reload")),
        RunCommand(("udevadm", "trigger", "--subsystem-match=usb", "--subsystem-match=apex")),
    ]


def _shipped(name: str) -> str:
    return (resources.files("edge") / "systemd" / name).read_text()


def run_command(words: Sequence[str]) -> str:
    """Run a command and return its stdout. Raises SystemCommandError with its stderr when it fails."""
    try:
        done = subprocess.run(words, check=False, capture_output=True, text=True)
    except OSError as error:
        raise SystemCommandError(f"{words[0]} cannot be run: {error.strerror}") from error
    if done.returncode:
        raise SystemCommandError(f"{' '.join(words)} failed ({done.returncode}): {done.stderr.strip()}")
    return done.stdout


def describe(shown: dict[str, str]) -> dict[str, Any]:
    """The output of ``fer-edge service status --json``, from the properties of ``systemctl show``."""
    installed = shown["LoadState"] != "not-found"
    return {
        "state": shown["ActiveState"] if installed else "not installed",
        "sub_state": shown["SubState"],
        "enabled": shown["UnitFileState"] == "enabled",
        "status": shown.get("StatusText", ""),
        "pid": int(shown["MainPID"]) or None,
        "restarts": int(shown["NRestarts"]),
        "exit_code": int(shown["ExecMainStatus"]) if int(shown["ExecMainCode"]) == _EXITED else None,
        "exit_meaning": _exit_meaning(shown["Result"], int(shown["ExecMainCode"]), int(shown["ExecMainStatus"])),
    }


def _exit_meaning(result: str, how: int, status: int) -> str | None:
    """Why the last process ended; None when none has ended yet."""
    if how == 0:
        return None
    if result == "watchdog":
        return "No frame went through in time, so the watchdog ended it: see the journal for where it hung."
    if how != _EXITED:
        return f"It was killed by {signal.Signals(status).name}."
    return exit_meanings().get(status, f"systemd could not run it ({status}): see systemctl status fer-edge.")
