"""Checks of the operating system, the board, the settings, and the user that fer-edge runs as."""

import grp
import os
import pwd
import shlex
import shutil
import stat
import subprocess
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Final

from edge.diagnostics.access_check import may_access
from edge.diagnostics.finding import Finding, Level
from edge.errors import SettingsError
from edge.settings import BELONGS_TO, CameraSettings, PrivacySettings, Settings, load_settings
from edge.system.hardware import text_of, throttling
from edge.system.secret_files import SECRET_FILES
from edge.system.state import SERVICE_STATE
from edge.untrusted_file import is_folder, is_forbidden

_TESTED_PYTHONS: Final = {"3.11": "Bookworm", "3.13": "Trixie"}
_DISK_FAIL_MB: Final = 50
_DISK_WARN_MB: Final = 500


def check_system(os_release: Path, model: Path, machine: str) -> Finding:
    """The operating system and the board. ``model`` is the device tree's file that names the board."""
    fields = dict(line.split("=", 1) for line in text_of(os_release).splitlines() if "=" in line)
    system = fields.get("PRETTY_NAME", "an unknown system").strip('"')
    sentence = f"{system}, {machine}, {text_of(model) or 'not a Raspberry Pi'}"
    if machine not in ("aarch64", "x86_64"):
        remedy = "use 64-bit Raspberry Pi OS"
        return Finding("system", "warn", f"{sentence}: there are wheels for aarch64 and x86_64 only", remedy)
    return Finding("system", "ok", sentence)


def check_python(version: str, environment: str | None) -> Finding:
    """The Python version, and whether it is in a virtual environment (``environment``), as PEP 668 requires."""
    tested = ", ".join(f"{python} ({system})" for python, system in _TESTED_PYTHONS.items())
    if version.rpartition(".")[0] not in _TESTED_PYTHONS:
        sentence = f"{version} is not tested; tested versions are {tested}"
        return Finding("python", "warn", sentence, "create the virtual environment with a tested version")
    if environment is None:
        remedy = "python3 -m venv --system-site-packages /opt/fer-edge, and install there"
        return Finding("python", "warn", f"{version}, outside a virtual environment", remedy)
    return Finding("python", "ok", f"{version} in {environment}")


def check_clock(synced: bool) -> Finding:
    """Whether the times of events can be trusted."""
    if synced:
        return Finding("clock", "ok", "set by a time server")
    sentence = "not set by a time server: events carry clock_synced false"
    return Finding("clock", "warn", sentence, "sudo timedatectl set-ntp true; then check timedatectl timesync-status")


def check_throttling(command: Sequence[str], kernel: list[str] | None) -> Finding:
    """What the firmware reports about power and heat, by the output of ``command``.

    Without one, what the ``kernel`` says of now. It forgets after two seconds, so it cannot tell what was since boot.
    """
    try:
        now, since_boot = throttling(_output_of(command))
    except ValueError:
        if kernel is None:
            return Finding("throttling", "ok", "this board does not report it")
        if not kernel:
            return Finding("throttling", "ok", f"no limit now; only {command[0]} knows what was since boot")
        now, since_boot = kernel, []
    remedy = "use the board's official power supply and a heat sink or fan"
    if now:
        return Finding("throttling", "fail", f"now: {', '.join(now)}", remedy)
    if since_boot:
        return Finding("throttling", "warn", f"since boot: {', '.join(since_boot)}", remedy)
    return Finding("throttling", "ok", "full power and full speed since boot")


def _output_of(command: Sequence[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def check_disk(state: Path, user: str) -> Finding:
    """Whether ``user`` may write in the folder of the state, which must survive a restart, and what free space it has.

    A folder that is not there yet is made in the nearest one that is; that of a service is made by systemd.
    """
    paths = (state, *state.absolute().parents)
    nearest = next(path for path in paths if os.path.lexists(path))
    if not is_folder(nearest) and not is_forbidden(nearest):
        sentence = f"{nearest} is not a folder, so nothing can be kept in {state}"
        return Finding("disk", "fail", sentence, "move it elsewhere, or name another store.folder")
    existing = next(path for path in paths if is_folder(path))
    if os.statvfs(existing).f_flag & os.ST_RDONLY:
        return Finding(
            "disk", "fail", f"{state}: its disk is read-only", "see why with journalctl -k; check the SD card"
        )
    made_by_systemd = existing != state and SERVICE_STATE in (state, *state.parents)
    if not made_by_systemd and not may_access(existing, "-w", user):
        remedy = f"sudo install -d -o {user} {shlex.quote(str(state))}, or name another store.folder"
        return Finding("disk", "fail", f"{state}: {user} may not write in {existing}", remedy)
    for file in (*state.glob("*.outbox.db*"), *state.glob("*.state.json")):
        if not may_access(file, "-w", user):  # as when root has restored a backup
            remedy = f"sudo chown --recursive --no-dereference {user}: {shlex.quote(str(state))}"
            return Finding("disk", "fail", f"{user} may not write {file}", remedy)
    return judge_disk(state, shutil.disk_usage(existing).free // 1_000_000)


def judge_disk(state: Path, free_mb: int) -> Finding:
    """Whether so many free megabytes are enough."""
    level: Level = "fail" if free_mb < _DISK_FAIL_MB else "warn" if free_mb < _DISK_WARN_MB else "ok"
    remedy = "" if level == "ok" else "sudo apt clean; sudo journalctl --vacuum-size=50M"
    return Finding("disk", level, f"{free_mb:,} MB free for {state}", remedy)


def check_config(file: Path | None, installed: Path) -> tuple[Finding, Settings | None]:
    """The settings file, and its settings if they are valid."""
    try:
        settings = load_settings(file)
    except SettingsError as error:
        do = "sudo fer-edge doctor --config" if file and is_forbidden(file) else "sudoedit"
        remedy = f"{do} {shlex.quote(str(file))}"
        return Finding("config", "fail", str(error), remedy), None
    if file is None and installed.exists():
        sentence = f"the built-in defaults were checked, not {installed}"
        return Finding("config", "warn", sentence, f"sudo fer-edge doctor --config {installed}"), settings
    return Finding("config", "ok", f"{file}: valid" if file else "no file: the built-in defaults"), settings


def check_privacy(privacy: PrivacySettings) -> Finding:
    """What is published, and whether the operator has declared the purpose of this device."""
    published = "only counts are published" if privacy.aggregate_only else "events of single visitors are published"
    if not privacy.declared_use:
        remedy = "set privacy.declared_use to one sentence that says what visitors are told about the purpose"
        return Finding("privacy", "warn", f"{published}; the purpose is not declared", remedy)
    return Finding("privacy", "ok", f"{published}; declared use: {privacy.declared_use}")


def check_secrets(settings: Settings) -> Finding:
    """Whether only those may read the passwords and keys who have to, and whether each is used.

    ``settings`` name also those that lie beside the settings file.
    """
    files = [getattr(getattr(settings, secret.table), secret.key) for secret in SECRET_FILES]
    if opened := [file for file in filter(None, files) if _everybody_may_read(Path(file))]:
        sentence = f"every user of this machine may read {', '.join(opened)}"
        return Finding("secrets", "warn", sentence, f"sudo chmod o-rwx {shlex.join(opened)}")
    for table, key, needed in BELONGS_TO:
        section = getattr(settings, table)
        # One that this user may not read may be empty, as service install makes it.
        if os.access(file := getattr(section, key), os.R_OK) and not getattr(section, needed):
            setting = f"{table}.{needed}"
            remedy = f"set {setting}, or empty the file"
            return Finding("secrets", "warn", f"{file} is not used without {setting}", remedy)
    return Finding("secrets", "ok", "not every user may read the passwords and keys" if any(files) else "none")


def _everybody_may_read(file: Path) -> bool:
    try:
        folders = [folder.stat().st_mode & stat.S_IXOTH for folder in Path(os.path.realpath(file)).parents]
        return all(folders) and bool(file.stat().st_mode & stat.S_IROTH)
    except OSError:  # the check that needs the file says so
        return False


def check_groups(user: str, has: AbstractSet[str], existing: AbstractSet[str], camera: CameraSettings) -> Finding:
    """Whether the user that fer-edge runs as may open cameras, the GPU's buffers and a Coral stick."""
    missing = sorted({"video", "render", "plugdev"} & existing - has)
    if user == "root" or not missing:
        return Finding("groups", "ok", f"{user} may open cameras and accelerators")
    needed = "video" in missing and camera.source.startswith(("/dev/", "picamera2"))
    sentence = f"{user} is not in {', '.join(missing)}"
    return Finding("groups", "fail" if needed else "warn", sentence, f"sudo usermod -aG {','.join(missing)} {user}")


def service_user(service: str) -> str:
    """The service's own user once that exists, else the current user."""
    try:
        return pwd.getpwnam(service).pw_name
    except KeyError:
        return current_user()


def current_user() -> str:
    """The name of the user that runs this; the number of one without an account, as in a container."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def groups_of(user: str) -> set[str]:
    """Names of the groups that a user is in, by the system's own records; of one without an account, this process's."""
    try:
        ids = os.getgrouplist(user, pwd.getpwnam(user).pw_gid)
    except KeyError:
        ids = [os.getgid(), *os.getgroups()]
    return {group.gr_name for group in grp.getgrall() if group.gr_gid in ids}
