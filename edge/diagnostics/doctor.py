"""``fer-edge doctor``: is this device healthy? One line for each thing that has gone wrong in the field.

Each check is a function that looks at what it is given and returns a Finding. What may hang or crash (imports, camera,
network) runs in a child process with a time limit (edge.diagnostics.probes).
"""

import grp
import json
import os
import platform
import pwd
import shutil
import signal
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from edge.errors import SettingsError
from edge.model.edgetpu_trial import HOW_TO_INSTALL, EdgeTpuTrial
from edge.settings import CameraSettings, ModelSettings, MqttSettings, PrivacySettings, Settings, load_settings
from edge.system.clock import clock_synced
from edge.system.hardware import MODEL, THROTTLED, text_of, throttling
from edge.system.state import INSTALLED_CONFIG, SERVICE_STATE, with_secret_files

Level = Literal["ok", "warn", "fail"]

SERVICE_USER: Final = "fer-edge"

_SUPPORTED: Final = {"3.11": "Bookworm", "3.13": "Trixie"}
_DISK_FAIL_MB: Final = 50
_DISK_WARN_MB: Final = 500
_BLANK: Final = 8  # grey levels between the darkest and the brightest pixel of a covered lens
_USB_IDS: Final = {"1a6e:089a": "not used since it was plugged in", "18d1:9302": "in use or used before"}
# What tflite-runtime 2.14 differs from the runtime that made the golden outputs.
_USUAL_TOP1: Final = 0.9

_NUMPY_1: Final = f"{sys.executable} -m pip install 'numpy<2' 'opencv-python-headless<4.12'"
_PICAMERA2: Final = "sudo apt install --no-install-recommends python3-picamera2 (and a venv --system-site-packages)"


@dataclass(frozen=True)
class _Child:
    """What a child process told, line by line, and the sentence about how it went wrong, if it did."""

    told: list[dict[str, Any]]
    problem: str


@dataclass(frozen=True)
class Coral:
    """Where the kernel shows Edge TPUs, and the command that names the installed packages of their library."""

    usb: Path = Path("/sys/bus/usb/devices")
    devices: Path = Path("/dev")
    packages: Sequence[str] = (
        "dpkg-query",
        "-W",
        "-f",
        "${Package} ${Version}\\n",
        "libedgetpu1-std",
        "libedgetpu1-max",
    )


@dataclass(frozen=True)
class Finding:
    """What one check found; ``mend`` is the command or the step that puts it right, empty when there is none."""

    name: str
    level: Level
    sentence: str
    mend: str = ""


def doctor(arguments: Namespace) -> int:
    """Carry out ``fer-edge doctor``: 0 when no check fails, 1 when one does; a warning is no failure."""
    findings = []
    for finding in examine(arguments.config):
        findings.append(finding)
        if not arguments.json:
            print(as_text(finding), flush=True)
    if arguments.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    return 1 if any(finding.level == "fail" for finding in findings) else 0


def as_text(finding: Finding) -> str:
    """One aligned line for a person, and under it what to do."""
    line = f"{finding.level:4}  {finding.name:10}  {finding.sentence}"
    return f"{line}\n{'':18}-> {finding.mend}" if finding.mend else line


def examine(config: Path | None, python: str = sys.executable) -> Iterator[Finding]:
    """All checks of this device; those that need settings come last."""
    yield check_system(Path("/etc/os-release"), MODEL, platform.machine())
    yield check_python(platform.python_version(), sys.prefix if sys.prefix != sys.base_prefix else None)
    yield check_clock(clock_synced())
    yield check_throttling(THROTTLED, ("vcgencmd", "get_throttled"))
    yield check_disk(SERVICE_STATE)
    finding, settings = check_config(config, INSTALLED_CONFIG)
    yield finding
    if settings is None:
        for name in ("privacy", "packages", "groups", "camera", "model", "edgetpu", "broker"):
            yield Finding(name, "warn", "not checked, because the settings cannot be read")
        return
    yield check_privacy(settings.privacy)
    user = service_user(SERVICE_USER)
    yield check_packages((python,), settings.camera)
    yield check_groups(user, groups_of(user), {group.gr_name for group in grp.getgrall()}, settings.camera)
    yield check_camera((python,), settings.camera)
    model = deployed_model(settings)
    yield check_model((python,), model)
    yield from check_edgetpu((python,), model, Coral())
    yield check_broker((python,), with_secret_files(settings.mqtt, config), needed=config is not None)


def check_privacy(privacy: PrivacySettings) -> Finding:
    """What the operator says this device is for."""
    told = "only counts are published" if privacy.aggregate_only else "events of single visitors are published"
    if not privacy.declared_use:
        mend = "set privacy.declared_use: one sentence, as you told the visitors"
        return Finding("privacy", "warn", f"{told}; nobody has declared what for", mend)
    return Finding("privacy", "ok", f"{told}; declared use: {privacy.declared_use}")


def check_system(os_release: Path, model: Path, machine: str) -> Finding:
    """The operating system and the board."""
    fields = dict(line.split("=", 1) for line in text_of(os_release).splitlines() if "=" in line)
    system = fields.get("PRETTY_NAME", "an unknown system").strip('"')
    board = text_of(model)
    sentence = f"{system}, {machine}, {board or 'not a Raspberry Pi'}"
    if machine not in ("aarch64", "x86_64"):
        return Finding(
            "system", "warn", f"{sentence}: there are wheels for aarch64 and x86_64", "use 64-bit Raspberry Pi OS"
        )
    return Finding("system", "ok", sentence)


def check_python(version: str, environment: str | None) -> Finding:
    """The Python, and whether it is a virtual environment's (``environment``), as PEP 668 wants it."""
    known = ", ".join(f"{python} ({system})" for python, system in _SUPPORTED.items())
    if version.rpartition(".")[0] not in _SUPPORTED:
        return Finding(
            "python", "warn", f"{version}; tested are {known}", "make the virtual environment with one of these"
        )
    if environment is None:
        mend = "python3 -m venv --system-site-packages /opt/fer-edge, and install there"
        return Finding("python", "warn", f"{version}, outside a virtual environment", mend)
    return Finding("python", "ok", f"{version} in {environment}")


def check_clock(synced: bool) -> Finding:
    """Whether the times of events can be trusted."""
    if synced:
        return Finding("clock", "ok", "set by a time server")
    sentence = "not set by a time server: events carry clock_synced false"
    return Finding("clock", "warn", sentence, "sudo timedatectl set-ntp true; then look at timedatectl timesync-status")


def check_throttling(file: Path, command: Sequence[str]) -> Finding:
    """What the firmware says about power and heat: ``file`` of the kernel, else the output of ``command``."""
    stored = text_of(file)
    try:
        if not stored and shutil.which(command[0]):
            stored = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout
        now, since = throttling(stored)
    except (ValueError, subprocess.TimeoutExpired):
        return Finding("throttling", "ok", "this board tells nothing about it")
    mend = "use the board's own power supply and a heat sink or fan"
    if now:
        return Finding("throttling", "fail", f"now: {', '.join(now)}", mend)
    if since:
        return Finding("throttling", "warn", f"since the start: {', '.join(since)}", mend)
    return Finding("throttling", "ok", "full power, full speed since the start")


def check_disk(state: Path) -> Finding:
    """Room for what must outlive a restart."""
    existing = next(folder for folder in (state, *state.parents) if folder.is_dir())
    return judge_disk(state, shutil.disk_usage(existing).free // 1_000_000)


def judge_disk(state: Path, free_mb: int) -> Finding:
    """Whether so many free megabytes are enough."""
    level: Level = "fail" if free_mb < _DISK_FAIL_MB else "warn" if free_mb < _DISK_WARN_MB else "ok"
    mend = "" if level == "ok" else "sudo apt clean; sudo journalctl --vacuum-size=50M"
    return Finding("disk", level, f"{free_mb:,} MB free for {state}", mend)


def check_config(file: Path | None, installed: Path) -> tuple[Finding, Settings | None]:
    """The settings file, and its settings when they are valid."""
    try:
        settings = load_settings(file)
    except SettingsError as error:
        return Finding("config", "fail", str(error), f"sudoedit {file}"), None
    if file is None and installed.exists():
        sentence = f"the built-in defaults were checked, not {installed}"
        return Finding("config", "warn", sentence, f"fer-edge doctor --config {installed}"), settings
    return Finding("config", "ok", f"{file}: valid" if file else "no file: the built-in defaults"), settings


def check_packages(python: Sequence[str], camera: CameraSettings, seconds: float = 60) -> Finding:
    """Whether one process can hold numpy, OpenCV, the TFLite runtime and, if it is there, picamera2."""
    child = _probe(python, "imports", "", seconds)
    versions = {told["imported"]: told["version"] for told in child.told if "imported" in told}
    have = ", ".join(f"{name} {version}" for name, version in versions.items())
    wants_picamera2 = camera.source.startswith("picamera2")
    if child.problem:
        guilty = next((told["importing"] for told in reversed(child.told) if "importing" in told), "fer-edge")
        numpy_2 = not versions.get("numpy", "1").startswith("1.")
        mend = _NUMPY_1 if numpy_2 and guilty in ("picamera2", "tflite-runtime") else _install(guilty)
        level: Level = "warn" if guilty == "picamera2" and not wants_picamera2 else "fail"
        return Finding("packages", level, f"{guilty} cannot be imported beside {have or '-'}: {child.problem}", mend)
    if not versions.keys() & {"ai-edge-litert", "tflite-runtime"}:
        return Finding("packages", "fail", f"no TFLite runtime beside {have}", _install("ai-edge-litert"))
    if wants_picamera2 and "picamera2" not in versions:
        return Finding("packages", "fail", f"the camera wants picamera2, and there is only {have}", _PICAMERA2)
    return Finding("packages", "ok", have)


def check_groups(user: str, has: AbstractSet[str], existing: AbstractSet[str], camera: CameraSettings) -> Finding:
    """Whether the user that fer-edge runs as may open cameras, the GPU's buffers and a Coral stick."""
    missing = sorted({"video", "render", "plugdev"} & existing - has)
    if user == "root" or not missing:
        return Finding("groups", "ok", f"{user} may open cameras and accelerators")
    needed = "video" in missing and camera.source.startswith(("/dev/", "picamera2"))
    sentence = f"{user} is not in {', '.join(missing)}"
    return Finding("groups", "fail" if needed else "warn", sentence, f"sudo usermod -aG {','.join(missing)} {user}")


def check_camera(python: Sequence[str], camera: CameraSettings, seconds: float = 20) -> Finding:
    """A frame from the configured source within a time limit."""
    child = _probe(python, "frame", msgspec.json.encode(camera).decode(), seconds)
    if child.problem or not child.told:
        return Finding("camera", "fail", child.problem or f"{kind_of(camera.source)}: no frame", _camera_mend(camera))
    told = child.told[0]
    sentence = f"{kind_of(camera.source)}: a frame of {told['width']}x{told['height']}"
    if told["brightest"] - told["darkest"] < _BLANK:
        return Finding("camera", "warn", f"{sentence}, but it is blank", "take the cap off the lens, or turn on light")
    return Finding("camera", "ok", sentence)


def check_model(python: Sequence[str], model: ModelSettings, seconds: float = 60) -> Finding:
    """The bundle opens, and its network gives here what it gave where it was made."""
    child = _probe(python, "golden", msgspec.json.encode(model).decode(), seconds)
    if child.problem or not child.told:
        return Finding("model", "fail", child.problem or "no answer", f"look at model.bundle ({model.bundle})")
    told = child.told[0]
    sentence = (
        f"{told['name']} on {told['runtime']}: {told['n']} golden outputs, largest difference {told['largest_lsb']} "
        f"steps (up to {told['allowed_lsb']} is rounding), {told['top1']:.0%} the same expression"
    )
    reinstall = _install("ai-edge-litert")
    if told["top1"] < _USUAL_TOP1:
        return Finding("model", "fail", sentence, reinstall)
    if told["top1"] < 1 or told["largest_lsb"] > told["allowed_lsb"]:
        return Finding("model", "warn", sentence, reinstall)
    return Finding("model", "ok", sentence)


def check_edgetpu(python: Sequence[str], model: ModelSettings, coral: Coral) -> Iterator[Finding]:
    """Whether there is an Edge TPU, its library, and whether a trial of both with the bundle's network succeeds."""
    if model.accelerator == "cpu":
        yield Finding("edgetpu", "ok", 'not used: model.accelerator = "cpu"')
        return
    needed = model.accelerator == "edgetpu"
    child = _probe(python, "coral", model.edgetpu_library, 20)
    devices = edge_tpus(coral)
    if not (needed or devices or child.told):
        yield Finding("edgetpu", "ok", f"none on USB or PCIe, and no {model.edgetpu_library}: the CPU computes")
        return
    yield judge_devices(devices, _all_told(child, "devices"), needed=needed)
    yield judge_library(model.edgetpu_library, child, _output(coral.packages), needed=needed)
    verdict = EdgeTpuTrial(model, python).wait()
    level: Level = "ok" if verdict.outcome == "healthy" else "fail" if needed else "warn"
    yield Finding("tpu trial", level, verdict.sentence, verdict.remedy)


def edge_tpus(coral: Coral) -> list[str]:
    """The Edge TPUs that the kernel shows on USB and PCIe."""
    found = []
    for device in sorted(coral.usb.glob("*")):
        ids = f"{text_of(device / 'idVendor')}:{text_of(device / 'idProduct')}"
        if ids in _USB_IDS:
            found.append(f"USB {ids}, {_USB_IDS[ids]}")
    return found + [f"PCIe {file}" for file in sorted(coral.devices.glob("apex_*"))]


def judge_devices(devices: list[str], listed: list[str], *, needed: bool) -> Finding:
    """Whether there is a device; ``listed`` is what pycoral, where it is installed, lists."""
    if devices:
        pycoral = f"; pycoral lists {', '.join(listed)}" if listed else ""
        return Finding("edgetpu", "ok", f"{', '.join(devices)}{pycoral}")
    sentence = "no Edge TPU on USB or PCIe"
    if needed:
        mend = "plug it in, into a USB 3 port that gives enough power; lsusb must show 18d1:9302 or 1a6e:089a"
        return Finding("edgetpu", "fail", f'{sentence}, and model.accelerator = "edgetpu"', mend)
    return Finding("edgetpu", "ok", sentence)


def judge_library(name: str, child: _Child, packages: str, *, needed: bool) -> Finding:
    """Whether the library can be loaded, and whether its Debian package (``packages``) suits today's runtimes."""
    if child.problem and not child.told:
        sentence = child.problem if name in child.problem else f"{name}: {child.problem}"
        return Finding("libedgetpu", "fail" if needed else "warn", sentence, HOW_TO_INSTALL)
    installed = ", ".join(packages.split("\n"))
    version = next(iter(_all_told(child, "version")), "it tells no version")
    sentence = f"{name}: {version}{f' ({installed})' if installed else ''}"
    if any("tf" not in package.partition(" ")[2] for package in packages.split("\n") if package):
        sentence += ": Coral's own build works with TFLite up to 2.11, and crashes with newer ones"
        return Finding("libedgetpu", "warn", sentence, f"{HOW_TO_INSTALL}: a build for a newer TFLite")
    return Finding("libedgetpu", "ok", sentence)


def check_broker(python: Sequence[str], settings: MqttSettings, *, needed: bool, seconds: float = 20) -> Finding:
    """Whether the broker can be reached, speaks TLS if it shall, and accepts this device. Nothing is published."""
    child = _probe(python, "broker", msgspec.json.encode(settings).decode(), seconds)
    outcome, detail = next(((told["outcome"], told["detail"]) for told in child.told), ("", child.problem))
    where = f"{settings.host}:{settings.port}"
    user = f"user {settings.username}" if settings.username else "a device without a user name"
    if outcome == "accepted":
        return Finding("broker", "ok", f"{where} accepts {user}, {'TLS' if settings.encrypted else 'without TLS'}")
    sentence, mend = {
        "unreachable": (f"{where} cannot be reached: {detail}", "is it running? check mqtt.host and mqtt.port"),
        "tls": (f"{where}: no TLS: {detail}", "check mqtt.ca_file, mqtt.host and mqtt.port"),
        "silent": (f"{where} gives no MQTT answer", "does it want TLS (mqtt.ca_file)? check mqtt.host and mqtt.port"),
        "refused": (f"{where} refuses {user}: {detail}", "check mqtt.username and mqtt.password_file"),
    }.get(outcome, (detail, "check mqtt.password_file and mqtt.ca_file, and who may read them"))
    return Finding("broker", "fail" if needed else "warn", sentence, mend)


def deployed_model(settings: Settings) -> ModelSettings:
    """The settings of the model, with the folder of the bundle that a run uses."""
    if settings.model.bundle:
        return settings.model
    try:
        from edge.model.registry import deployed_folder  # noqa: PLC0415  doctor speaks when numpy does not import
    except ImportError:
        return settings.model
    return msgspec.structs.replace(settings.model, bundle=str(deployed_folder(settings, os.environ)))


def service_user(service: str) -> str:
    """The service's own user once it is installed, else who asks."""
    try:
        return pwd.getpwnam(service).pw_name
    except KeyError:
        return pwd.getpwuid(os.getuid()).pw_name


def groups_of(user: str) -> set[str]:
    """Names of the groups that a user is in, by the system's own records."""
    ids = os.getgrouplist(user, pwd.getpwnam(user).pw_gid)
    return {group.gr_name for group in grp.getgrall() if group.gr_gid in ids}


def _probe(python: Sequence[str], name: str, argument: str, seconds: float) -> _Child:
    command = [*python, "-m", "edge.diagnostics.probes", name, argument]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as late:
        output = late.stdout.decode() if isinstance(late.stdout, bytes) else late.stdout or ""
        return _Child(_lines(output), f"no answer within {seconds:g} s")
    problem = ""
    if done.returncode < 0:
        problem = f"crashed with {signal.Signals(-done.returncode).name}"
    elif done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        problem = last.removeprefix("probe: error: ")
    return _Child(_lines(done.stdout), problem)


def _all_told(child: _Child, name: str) -> list[Any]:
    """What a child process told under one name; lists as their items."""
    found = [told[name] for told in child.told if name in told]
    return [item for value in found for item in (value if isinstance(value, list) else [value])]


def _output(command: Sequence[str]) -> str:
    """What a command prints, where it is installed; its failure is no matter."""
    if not shutil.which(command[0]):
        return ""
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout.strip()


def _lines(output: str) -> list[dict[str, Any]]:
    """The JSON objects among the lines; libraries print there too."""
    return [json.loads(line) for line in output.splitlines() if line.startswith("{") and line.endswith("}")]


def kind_of(source: str) -> str:
    """The kind of a camera source, and its name without a stream's password."""
    scheme, separator, address = source.partition("://")
    if separator:
        return f"stream {scheme}://{address.rpartition('@')[2]}"
    if source.startswith("picamera2"):
        return f"Raspberry Pi camera {source}"
    if source.startswith("/dev/"):
        return f"V4L2 camera {source}"
    return f"source {source}"


def _camera_mend(camera: CameraSettings) -> str:
    if camera.source.startswith("picamera2"):
        return "rpicam-hello --list-cameras (is it plugged in?); sudo systemctl stop fer-edge (is it in use?)"
    if camera.source.startswith("/dev/"):
        return "ls -l /dev/video* (is it plugged in?); sudo systemctl stop fer-edge (is it in use?)"
    return "check camera.source"


def _install(package: str) -> str:
    extra = package if package == "tflite-runtime" else "litert"
    return _PICAMERA2 if package == "picamera2" else f"{sys.executable} -m pip install 'fer-edge[{extra}]'"
