"""The service in a real, booted systemd: installed from the wheel in a Debian 12 container, and then maltreated."""

import contextlib
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest

from edge.camera.sources import DemoSource
from edge.model.bundle import DEFAULT, find_bundle
from tests.conftest import ROOT, StandIn, wait_until
from tests.platform.roots import debian_root, require_root
from tests.soak.ledger import Evidence, Found, balance

pytestmark = pytest.mark.slow

PACKAGES = ("systemd", "systemd-sysv", "dbus", "udev", "python3", "python3-venv", "mosquitto", "mosquitto-clients")
# Without a unified hierarchy, these capabilities and bpf, systemd silently leaves the unit's DevicePolicy out.
NSPAWN = (
    "--boot",
    "--register=no",
    "--keep-unit",
    "--private-network",
    "--console=pipe",
    "--capability=all",
    "--system-call-filter=bpf",
)

STORM = int(os.environ.get("FER_EDGE_STORM", "2"))
"""How many faults the storm has."""

BOX = "opt/test"
"""Folder of the container that holds what only the tests need: wheels, the camera, a probe."""

CAMERA = """
import http.server, itertools, pathlib, time

PICTURES = [file.read_bytes() for file in sorted(pathlib.Path("/opt/test/frames").iterdir())]


class Stream(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
        self.end_headers()
        for picture in itertools.cycle(PICTURES):
            self.wfile.write(b"--next\\r\\nContent-Type: image/jpeg\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(picture))
            self.wfile.write(picture + b"\\r\\n")
            time.sleep(0.08)


http.server.ThreadingHTTPServer(("127.0.0.1", 8080), Stream).serve_forever()
"""

CAMERA_UNIT = """
[Service]
ExecStart=/usr/bin/python3 /opt/test/camera.py
[Install]
WantedBy=multi-user.target
"""

CONFIG = """
[camera]
source = "http://127.0.0.1:8080/"
[detect]
width = 160
[mqtt]
device = "kiosk"
statistics_seconds = 2
"""

PROBE = """
import ctypes, errno, json, pathlib, socket, os

def attempt(action):
    try:
        action()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"

def write(file):
    return attempt(lambda: pathlib.Path(file).write_text("x"))

def callback():
    ctypes.CFUNCTYPE(None)(lambda: None)()

result = {
    "devices": {name: attempt(lambda: os.close(os.open("/dev/" + name, os.O_RDWR))) for name in ("null", "forbidden")},
    "writes": {
        file: write(file)
        for file in (
            "/var/lib/fer-edge/probe", "/run/fer-edge/probe", "/var/lib/probe", "/etc/fer-edge/config.toml",
            "/usr/probe", "/opt/fer-edge/probe", "/var/log/probe", "/var/cache/probe", "/srv/probe", "/home/probe",
            "/root/probe", "/tmp/probe", "/var/tmp/probe",
        )
    },
    "user": os.getuid(),
    "groups": sorted(os.getgroups()),
    "packet_socket": attempt(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)),
    "mount": attempt(lambda: ctypes.CDLL(None, use_errno=True).mount(b"none", b"/mnt", b"tmpfs", 0, None)
                     and (_ for _ in ()).throw(OSError(ctypes.get_errno(), "mount"))),
    "callback": attempt(callback),
    "no_new_privileges": "NoNewPrivs:\\t1" in pathlib.Path("/proc/self/status").read_text(),
    "capabilities": [line.split()[1] for line in pathlib.Path("/proc/self/status").read_text().splitlines()
                     if line.startswith("CapBnd")],
}
pathlib.Path("/run/fer-edge/probe.json").write_text(json.dumps(result))
"""


class Container:
    """A booted Debian in systemd-nspawn, without a network but its own loopback."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "root"
        self._log = (folder / "boot.log").open("ab")
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._init = 0

    def boot(self) -> None:
        """Boot, and wait until systemd says that it is up."""
        self._nspawn = subprocess.Popen(
            ["systemd-nspawn", "-q", "-D", self.root, "-M", f"fer-{os.getpid()}", *NSPAWN],
            env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children")

        def found() -> bool:
            pids = children.read_text().split()
            self._init = int(pids[0]) if pids else 0
            return self._init > 0 and self.run("systemctl", "is-system-running", check=False).strip() in (
                "running",
                "degraded",
            )

        wait_until(found, 60)

    def reboot(self) -> None:
        """Restart the whole container; with --keep-unit nspawn says by its exit code that whoever started it should."""
        assert self._nspawn
        self.run("systemctl", "reboot", check=False)
        assert self._nspawn.wait(30) == 133
        self.boot()

    def power_off(self) -> None:
        """Shut down in order; a container that does not is killed."""
        assert self._nspawn
        self.run("systemctl", "poweroff", check=False)
        try:
            self._nspawn.wait(20)
        except subprocess.TimeoutExpired:
            self._nspawn.kill()
            self._nspawn.wait()
        self._log.close()

    def popen(self, *words: str, options: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        """Start a command inside, as root."""
        command = ["nsenter", "-t", str(self._init), "-a", "-r", "-w", *options, *words]
        clean = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
        return subprocess.Popen(command, env=clean, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def run(self, *words: str, check: bool = True) -> str:
        """Run a command inside and return what it prints."""
        with self.popen(*words) as process:
            said, _ = process.communicate(timeout=600)  # pip takes minutes on a busy machine
        assert not check or process.returncode == 0, f"{words} gave {process.returncode}: {said}"
        return said

    def write(self, file: str, text: str) -> None:
        path = self.root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def show(self, name: str) -> str:
        """A property of the unit."""
        return self.run("systemctl", "show", "fer-edge", f"--property={name}", "--value").strip()

    def ready(self, *, after: int = 0, seconds: float = 60) -> int:
        """Wait until the service is up with another process than ``after``; returns its process id."""
        found = 0

        def is_up() -> bool:
            nonlocal found
            # Both in one question: in between, a killed process may have been noticed, and its id be 0.
            told = dict(line.split("=") for line in self._properties("ActiveState", "MainPID").split())
            found = int(told["MainPID"])
            return told["ActiveState"] == "active" and found not in (0, after)

        wait_until(is_up, seconds)
        return found

    def _properties(self, *names: str) -> str:
        return self.run("systemctl", "show", "fer-edge", f"--property={','.join(names)}")

    def restart(self, changes: str = "") -> int:
        """Start afresh, with the unit changed as `systemctl edit` does; returns the process id."""
        self.write("etc/systemd/system/fer-edge.service.d/test.conf", f"[Service]\n{changes}")
        self.run("systemctl", "daemon-reload")
        self.run("systemctl", "restart", "fer-edge")
        return self.ready()

    def fer_edge(self, *words: str, check: bool = True) -> str:
        """Run the installed program."""
        return self.run("/opt/fer-edge/bin/fer-edge", *words, check=check)

    def status(self) -> dict[str, Any]:
        """What ``fer-edge service status --json`` says."""
        return dict(json.loads(self.fer_edge("service", "status", "--json", check=False)))


class Subscriber:
    """A real mosquitto_sub inside the container, read in the background; messages come as (topic, payload)."""

    def __init__(self, container: Container, topic: str, *more: str) -> None:
        self.messages: list[tuple[str, str]] = []
        # Without a fork it is this very process, which can be ended.
        self._process = container.popen("mosquitto_sub", "-t", topic, "-q", "1", "-v", *more, options=("--no-fork",))
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            topic, _, payload = line.rstrip("\n").partition(" ")
            self.messages.append((topic, "" if payload == "(null)" else payload))

    def wait(self, matches: Callable[[str, str], bool], seconds: float) -> str:
        """Wait for a message; returns its payload."""
        found: list[str] = []

        def come() -> bool:
            found.extend(payload for topic, payload in self.messages if matches(topic, payload))
            return bool(found)

        wait_until(come, seconds)
        return found[0]

    def close(self) -> None:
        self._process.terminate()
        self._reader.join()
        with self._process:
            pass


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make wheelhouse` gives a device: this tree's wheel and everything that it needs."""
    folder = tmp_path_factory.mktemp("wheels")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--wheel-dir", folder]
    subprocess.run([*pip, f"{ROOT}[litert]"], check=True, capture_output=True, timeout=300)
    return folder


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory, wheels: Path) -> Iterator[Container]:
    """A booted container with a broker and a camera (a server of MJPEG); nothing of fer-edge is installed yet."""
    require_root("systemd-nspawn", "mmdebstrap", "nsenter")
    folder = tmp_path_factory.mktemp("container")
    made = Container(folder)
    subprocess.run(["cp", "-a", "--reflink=auto", debian_root("bookworm", PACKAGES), made.root], check=True)
    (made.root / BOX).mkdir()
    wheels.rename(made.root / BOX / "wheels")
    _film(made.root / BOX / "frames")
    made.write(f"{BOX}/camera.py", CAMERA)
    made.write(f"{BOX}/probe.py", PROBE)
    made.write("etc/systemd/system/camera.service", CAMERA_UNIT)
    made.write("etc/hosts", "127.0.0.1 localhost\n")  # which mmdebstrap leaves out
    made.boot()
    made.run("systemctl", "enable", "--now", "camera", "mosquitto")
    yield made
    made.power_off()


@pytest.fixture(scope="module")
def installed(container: Container) -> Container:
    """The container after the commands of docs/kiosk.md, with the camera and the broker's name in its settings."""
    container.run("python3", "-m", "venv", "--system-site-packages", "/opt/fer-edge")
    pip = ("/opt/fer-edge/bin/pip", "install", "--quiet", "--no-index", "--find-links", f"/{BOX}/wheels")
    container.run(*pip, "fer-edge[litert]")
    container.write("etc/fer-edge/config.toml", CONFIG)
    container.fer_edge("service", "install")
    container.ready()
    return container


@pytest.fixture
def events(installed: Container) -> Iterator[Subscriber]:
    """Everything that this device tells."""
    subscriber = Subscriber(installed, "fer-edge/kiosk/#")
    yield subscriber
    subscriber.close()


def _film(folder: Path) -> None:
    """The demo's frames, thinned out, beginning when the face is near: a test need not wait for it."""
    folder.mkdir()
    frames = list(DemoSource().frames())[::2]
    for number, frame in enumerate(frames[35:] + frames[:35]):
        cv2.imwrite(str(folder / f"{number:03}.jpg"), frame.gray)


def test_the_wheel_becomes_a_service_that_tells_events(installed: Container, events: Subscriber) -> None:
    event = json.loads(events.wait(lambda topic, _: topic.endswith("/event"), 30))
    assert event["kind"] in ("appeared", "changed", "uncertain", "left")
    assert events.wait(lambda topic, _: topic.endswith("/availability"), 5) == "online"
    told = installed.status()
    assert (told["state"], told["enabled"]) == ("active", True)
    assert "cpu" in told["status"]


def test_installing_again_changes_nothing(installed: Container) -> None:
    again = installed.fer_edge("service", "install", "--dry-run")
    assert "write" not in again
    process = installed.show("MainPID")
    assert again in installed.fer_edge("service", "install")
    installed.ready(after=int(process))
    assert (installed.root / "etc/fer-edge/config.toml").read_text() == CONFIG


def test_a_hung_process_is_restarted_by_the_watchdog(installed: Container) -> None:
    hung = installed.restart("WatchdogSec=3\nRestartSec=1\n")
    began, began_at = time.monotonic(), time.time()
    installed.run("systemctl", "kill", "--signal=STOP", "fer-edge")
    wait_until(lambda: installed.show("ActiveState") != "active", 10)
    aborted = time.monotonic() - began
    installed.ready(after=hung)
    print(f"SIGSTOP, {aborted:.1f} s, abort; first frame of the next process {time.monotonic() - began:.1f} s after it")
    journal = _journal(installed, began_at)
    assert "Failed with result 'watchdog'" in journal
    assert "edge/app/run.py" in journal  # where it hung


@pytest.fixture
def edge_tpu(installed: Container, built_standin: Path) -> Iterator[StandIn]:
    """The service is told of a library that plays an Edge TPU, and of a bundle for it."""
    folder = installed.root / BOX / "tpu"
    folder.mkdir()
    made = StandIn(folder, built_standin)
    library, bundle = (f"/{path.relative_to(installed.root)}" for path in (made.library, made.bundle))
    installed.write(
        "etc/fer-edge/config.toml", f'{CONFIG}[model]\nbundle = "{bundle}"\nedgetpu_library = "{library}"\n'
    )
    yield made
    installed.write("etc/fer-edge/config.toml", CONFIG)


def test_an_edge_tpu_works_in_the_sandbox_and_its_hang_leaves_the_next_process_on_the_cpu(
    installed: Container, edge_tpu: StandIn
) -> None:
    hung = installed.restart("WatchdogSec=3\nRestartSec=1\n")
    heard = Subscriber(installed, "fer-edge/kiosk/#")
    began_at = time.time()
    try:
        heard.wait(lambda topic, told: topic.endswith("/statistics") and '"accelerator":"edgetpu"' in told, 30)
        edge_tpu.plays("hangs")
        installed.ready(after=hung)
        heard.wait(lambda topic, told: topic.endswith("/statistics") and '"accelerator":"cpu (degraded)"' in told, 30)
        fault = json.loads(heard.wait(lambda topic, told: topic.endswith("/fault") and '"code":21' in told, 5))
    finally:
        heard.close()
    assert "the last process ended, by a crash or the watchdog, while the Edge TPU computed" in fault["sentence"]
    journal = _journal(installed, began_at)
    assert "Failed with result 'watchdog'" in journal
    assert "edge/model/edgetpu.py" in journal  # where it hung


def test_a_killed_process_is_restarted(installed: Container) -> None:
    killed = installed.restart("RestartSec=1\n")
    installed.run("systemctl", "kill", "--signal=KILL", "fer-edge")
    installed.ready(after=killed)
    assert int(installed.show("NRestarts")) == 1


def test_a_lost_camera_is_told_as_a_fault_and_waited_for(installed: Container) -> None:
    # The start timeout is shorter than the wait after three failures, which has to extend it.
    former = installed.restart("RestartSec=1\nTimeoutStartSec=4\n")
    installed.run("systemctl", "stop", "camera")
    wait_until(lambda: installed.show("StatusText").startswith("waiting 10 s after 3 failures"), 40)
    late = Subscriber(installed, "fer-edge/kiosk/#")
    fault = json.loads(late.wait(lambda topic, _: topic.endswith("/fault"), 5))
    assert fault["code"] in (5, 10)  # ended, or stalled
    assert "127.0.0.1:8080" in fault["sentence"]
    assert late.wait(lambda topic, _: topic.endswith("/availability"), 5) == "offline"
    installed.run("systemctl", "start", "camera")
    waiting = int(installed.show("MainPID"))
    assert installed.ready(after=former) == waiting
    late.wait(lambda topic, payload: topic.endswith("/fault") and not payload, 5)
    late.close()
    later = Subscriber(installed, "fer-edge/kiosk/#")
    assert later.wait(lambda topic, _: topic.endswith("/availability"), 5) == "online"
    later.close()
    assert not [topic for topic, _ in later.messages if topic.endswith("/fault")]


def _ids(subscriber: Subscriber) -> list[str]:
    return [json.loads(payload)["id"] for topic, payload in list(subscriber.messages) if topic.endswith("/event")]


def test_events_outlive_kill_9_while_the_broker_is_away(installed: Container, events: Subscriber) -> None:
    installed.restart("RestartSec=1\n")
    before = len(_ids(events))  # whoever was in view has left, and was told under the old run's id
    wait_until(lambda: len(_ids(events)) > before, 30)
    run, told = _ids(events)[-1].split("-")
    installed.run("systemctl", "stop", "mosquitto")
    time.sleep(15)  # the film shows the visitor once in ten seconds
    installed.run("systemctl", "kill", "--signal=KILL", "fer-edge")
    installed.run("systemctl", "start", "mosquitto")
    later = Subscriber(installed, "fer-edge/kiosk/#")
    try:
        wait_until(
            lambda: any(one.startswith(f"{run}-") and int(one.split("-")[1]) > int(told) for one in _ids(later)), 60
        )
    finally:
        later.close()


def _hangs(installed: Container) -> None:
    installed.run("systemctl", "kill", "--signal=STOP", "fer-edge")


def _is_killed(installed: Container) -> None:
    installed.run("systemctl", "kill", "--signal=KILL", "fer-edge")


def _loses_its_camera(installed: Container) -> None:
    installed.run("systemctl", "restart", "camera")


def _loses_its_broker(installed: Container) -> None:
    installed.run("systemctl", "restart", "mosquitto")


def _is_told_nonsense(installed: Container) -> None:
    _command(installed, "pause", '{"on":"yes","file":"/etc/passwd"}')


ENDING = (_hangs, _is_killed, _loses_its_camera)


def test_a_storm_of_faults_in_the_booted_systemd(installed: Container) -> None:
    """FER_EDGE_STORM says how many. The storms of ``python -m tests.soak`` are wilder, but systemd is played there."""
    chance, began_at = random.Random(4), time.time()
    faults = [chance.choice((*ENDING, _loses_its_broker, _is_told_nonsense)) for _ in range(STORM)]
    process = installed.restart("WatchdogSec=3\nRestartSec=1\n")
    # The session outlives the broker's restarts, so that nothing that is acknowledged can pass unseen.
    subscriber = Subscriber(installed, "fer-edge/kiosk/event", "-i", "storm", "-c")
    took: dict[str, list[float]] = {}
    for fault in faults:
        time.sleep(chance.uniform(0, 3))
        installed.run("rm", "-f", "/run/fer-edge/failures.json")  # in a kiosk's life, hours lie between two faults
        began = time.monotonic()
        fault(installed)
        process = installed.ready(after=process if fault in ENDING else 0)
        took.setdefault(fault.__name__.strip("_"), []).append(round(time.monotonic() - began, 1))
    assert int(installed.show("NRestarts")) == sum(fault in ENDING for fault in faults), "only faults end it"
    run = _ids(subscriber)[-1:]
    wait_until(lambda: _ids(subscriber)[-1:] != run, 60)  # the last process tells events too
    installed.run("systemctl", "stop", "fer-edge")
    with contextlib.closing(sqlite3.connect(next(installed.root.glob("var/lib/fer-edge/*kiosk.outbox.db")))) as db:
        waiting = frozenset(json.loads(payload)["id"] for [payload] in db.execute("SELECT payload FROM events"))
        counters = dict(db.execute("SELECT name, value FROM counters"))
    installed.run("systemctl", "start", "fer-edge")
    seen = _ids(subscriber)
    subscriber.close()
    left = Found(waiting, counters.get("dropped", 0), counters.get("damaged", 0), len(seen))
    settled = balance(Evidence(seen, seen, [left]))
    print(f"{len(faults)} faults, seconds until it was ready: {took}; {settled}")
    assert settled.wrong == []
    assert "Traceback" not in _journal(installed, began_at)


def test_statistics_tell_what_the_sandbox_lets_them_know(installed: Container, events: Subscriber) -> None:
    installed.ready()
    told = json.loads(events.wait(lambda topic, _: topic.endswith("/statistics"), 30))
    print(told)
    assert told["fps"] > 0
    assert told["bytes_written_last_hour"] is not None
    assert told["outbox"]["durable"]


def _command(container: Container, name: str, payload: str) -> None:
    container.run("mosquitto_pub", "-q", "1", "-t", f"fer-edge/kiosk/command/{name}", "-m", payload)


def test_reload_starts_it_again_with_new_settings(installed: Container, events: Subscriber) -> None:
    former = installed.restart()
    installed.write("etc/fer-edge/config.toml", f'{CONFIG}user = "kiosk"\n')
    time.sleep(31)  # a reload is not obeyed sooner
    _command(installed, "reload", "")
    refused = json.loads(events.wait(lambda topic, _: topic.endswith("/reply"), 10))
    assert (refused["error"], "unknown key mqtt.user" in refused["sentence"]) == ("failed", True)
    installed.write("etc/fer-edge/config.toml", CONFIG.replace("= 2", "= 1"))
    _command(installed, "reload", '{"id":"new"}')
    events.wait(lambda topic, payload: topic.endswith("/reply") and json.loads(payload)["ok"], 10)
    installed.ready(after=former)
    assert int(installed.show("NRestarts")) == 1
    installed.write("etc/fer-edge/config.toml", CONFIG)


def test_a_model_that_root_installs_runs_and_one_that_crashes_gives_way(
    installed: Container, events: Subscriber
) -> None:
    bundle = Path(shutil.copytree(find_bundle("student-small"), installed.root / BOX / "mine"))
    card = json.loads((bundle / "card.json").read_text())
    (bundle / "card.json").write_text(json.dumps(card | {"name": "mine"}))

    def verified(name: str) -> Callable[[str, str], bool]:
        return lambda topic, payload: topic.endswith("/verification") and json.loads(payload)["model"] == name

    former = installed.restart("RestartSec=1\n")
    said = installed.fer_edge("model", "install", f"/{BOX}/mine")
    assert "in use: mine-" in said
    running = installed.ready(after=former)
    assert json.loads(events.wait(verified("mine"), 10))["ok"]
    assert "mine (" in installed.fer_edge("verify"), "the technician's command looks at what the service runs"
    installed.run("systemctl", "kill", "--signal=KILL", "fer-edge")
    events.messages.clear()
    installed.ready(after=running)
    events.wait(verified(DEFAULT), 10)
    fault = json.loads(events.wait(lambda topic, payload: topic.endswith("/fault") and bool(payload), 10))
    assert (fault["code"], "without an error message in its first minute" in fault["sentence"]) == (4, True)
    assert "refused   mine-" in installed.fer_edge("model", "list")
    assert f"in use: {DEFAULT}" in installed.fer_edge("model", "rollback")
    events.wait(lambda topic, payload: topic.endswith("/fault") and not payload, 30)


@pytest.mark.parametrize("hangs", [False, True])
def test_it_stops_within_five_seconds_even_when_the_camera_hangs(installed: Container, *, hangs: bool) -> None:
    installed.restart()
    if hangs:
        installed.run("systemctl", "kill", "--signal=STOP", "camera")
        time.sleep(0.5)
    began = time.monotonic()
    installed.run("systemctl", "stop", "fer-edge")
    took = time.monotonic() - began
    print(f"stopped in {took:.2f} s")
    installed.run("systemctl", "kill", "--signal=CONT", "camera")
    assert took < 5
    assert installed.show("Result") == "success"
    late = Subscriber(installed, "fer-edge/kiosk/availability")
    assert late.wait(lambda _topic, _payload: True, 5) == "offline"
    late.close()


def test_the_sandbox_denies_what_the_service_does_not_need(installed: Container) -> None:
    installed.run("mknod", "--mode=666", "/dev/forbidden", "c", "10", "229")  # as harmless as any: /dev/fuse
    inside = _probe(installed, "")
    assert inside["devices"] == {"null": "done", "forbidden": "EPERM"}
    # Nothing but the policy denied it.
    assert _probe(installed, "DevicePolicy=auto\nDeviceAllow=\n")["devices"]["forbidden"] == "done"
    allowed = {file for file, outcome in inside["writes"].items() if outcome == "done"}
    assert allowed == {"/var/lib/fer-edge/probe", "/run/fer-edge/probe"}
    assert set(inside["writes"].values()) == {"done", "EROFS", "EACCES"}
    groups = {installed.run("getent", "group", name).split(":")[2] for name in ("video", "render", "plugdev")}
    assert groups <= {str(group) for group in inside["groups"]}
    assert inside["user"] != 0
    assert inside["packet_socket"] == "EAFNOSUPPORT"
    assert inside["mount"] == "EPERM"
    assert inside["capabilities"] == ["0000000000000000"]
    assert inside["no_new_privileges"]
    assert inside["callback"] == "done"  # TFLite's delegates need one, in spite of MemoryDenyWriteExecute=


def _probe(container: Container, changes: str) -> dict[str, Any]:
    """Run the probe in the unit's own sandbox."""
    result = "/run/fer-edge/probe.json"
    container.run("systemctl", "stop", "fer-edge")
    # --wait would need a main process that ends: Type=oneshot is the one whose start returns with its end.
    text = f"[Service]\nType=oneshot\nRestart=no\nWatchdogSec=0\nRuntimeDirectoryPreserve=yes\nExecStart=\n{changes}"
    text += f"ExecStart=/usr/bin/python3 /{BOX}/probe.py\n"
    container.write("etc/systemd/system/fer-edge.service.d/test.conf", text)
    container.run("systemctl", "daemon-reload")
    container.run("systemctl", "start", "fer-edge")
    return dict(json.loads(container.run("cat", result)))


def test_the_password_comes_as_a_credential_and_may_be_absent(installed: Container) -> None:
    secret = installed.root / "etc/fer-edge/mqtt-password"
    assert secret.stat().st_mode & 0o777 == 0o600
    secret.unlink()
    installed.restart()
    installed.write("etc/mosquitto/conf.d/locked.conf", "listener 1884 127.0.0.1\npassword_file /etc/mosquitto/users\n")
    installed.run("mosquitto_passwd", "-b", "-c", "/etc/mosquitto/users", "kiosk", "open sesame")
    installed.run("chown", "mosquitto", "/etc/mosquitto/users")
    installed.run("systemctl", "restart", "mosquitto")
    secret.write_text("open sesame\n")
    secret.chmod(0o600)
    installed.write("etc/fer-edge/config.toml", f'{CONFIG}port = 1884\nusername = "kiosk"\n')
    began = time.time()
    installed.restart()
    wait_until(lambda: "connected to the MQTT broker at localhost:1884" in _journal(installed, began), 10)
    process = installed.show("MainPID")
    assert "sesame" not in installed.run("cat", f"/proc/{process}/cmdline", f"/proc/{process}/environ")
    installed.write("etc/fer-edge/config.toml", CONFIG)
    (installed.root / "etc/mosquitto/conf.d/locked.conf").unlink()
    installed.run("systemctl", "restart", "mosquitto")


def _journal(container: Container, since: float) -> str:
    return container.run("journalctl", "--unit=fer-edge", f"--since=@{since:.0f}", "--output=cat")


def test_an_upgrade_keeps_the_settings_and_names_a_key_that_is_gone(installed: Container) -> None:
    former = installed.restart()
    pip = ("/opt/fer-edge/bin/pip", "install", "--quiet", "--no-index", "--find-links", f"/{BOX}/wheels")
    installed.run(*pip, "--upgrade", "--force-reinstall", "--no-deps", "fer-edge")
    installed.write("etc/fer-edge/config.toml", f'{CONFIG}user = "kiosk"\n')
    refused = installed.fer_edge("service", "install", check=False)
    assert "unknown key mqtt.user; did you mean mqtt.username?" in refused
    assert int(installed.show("MainPID")) == former
    installed.write("etc/fer-edge/config.toml", CONFIG)
    installed.fer_edge("service", "install")
    installed.ready(after=former)
    assert (installed.root / "etc/fer-edge/config.toml").read_text() == CONFIG
    assert (installed.root / "etc/fer-edge/config.toml.new").read_text().startswith("# Settings of fer-edge.")


def test_settings_that_are_not_valid_end_it_with_their_code(installed: Container) -> None:
    installed.restart("RestartSec=60\n")
    installed.write("etc/fer-edge/config.toml", "[mqtt]\nuser = 1\n")
    installed.run("systemctl", "restart", "fer-edge", check=False)
    told = installed.status()
    assert told["exit_code"] == 3
    assert "mqtt.user" in told["status"]
    installed.write("etc/fer-edge/config.toml", CONFIG)


def test_it_comes_back_after_a_reboot(installed: Container) -> None:
    installed.restart()
    installed.reboot()
    installed.ready()
    later = Subscriber(installed, "fer-edge/kiosk/availability")
    later.wait(lambda _, payload: payload == "online", 10)
    later.close()
    assert installed.status()["state"] == "active"


def test_a_pause_survives_a_reboot(installed: Container, events: Subscriber) -> None:
    _command(installed, "pause", '{"on":true}')
    events.wait(lambda topic, payload: topic.endswith("/paused") and payload == "ON", 10)
    installed.reboot()
    installed.ready()
    assert installed.status()["status"] == "paused: the camera is closed"
    time.sleep(25)  # longer than the watchdog's patience
    assert (installed.show("ActiveState"), installed.show("NRestarts")) == ("active", "0")
    tcp = [line.split() for line in installed.run("cat", "/proc/net/tcp").splitlines()]
    assert not [fields for fields in tcp if fields[2].endswith(":1F90") and fields[3] == "01"], "nobody watches"
    _command(installed, "pause", '{"on":false}')
    wait_until(lambda: "frames/s" in installed.show("StatusText"), 40)


def test_uninstalling_leaves_the_settings(installed: Container) -> None:
    installed.fer_edge("service", "uninstall")
    assert installed.status()["state"] == "not installed"
    assert (installed.root / "etc/fer-edge/config.toml").exists()
    for file in ("systemd/system/fer-edge.service", "udev/rules.d/60-fer-edge.rules", "sysusers.d/fer-edge.conf"):
        assert not (installed.root / "etc" / file).exists()
    installed.fer_edge("service", "uninstall")


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a program that exists, as `service install` writes it."""
    require_root("systemd-analyze")
    file = tmp_path / "fer-edge.service"
    shipped = (ROOT / "systemd" / "fer-edge.service").read_text()
    file.write_text(shipped.replace("/opt/fer-edge", sys.prefix))
    return file


def test_systemd_finds_nothing_wrong_with_the_unit(unit: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", "--recursive-errors=no", unit],
        cwd="/",
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_systemd_rates_the_unit_as_little_exposed(unit: Path) -> None:
    rate = ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=20", unit]
    done = subprocess.run(rate, check=False, capture_output=True, text=True)
    print(done.stdout.splitlines()[-1])
    assert done.returncode == 0, done.stdout
