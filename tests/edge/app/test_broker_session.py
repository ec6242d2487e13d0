"""The whole program with a live camera (an MJPEG server) and a real broker: what it publishes, and its commands."""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import numpy as np
import pytest

from edge.model.bundle import DEFAULT
from edge.mqtt.messages import PAYLOADS, schemas
from tests.conftest import PORTRAIT, ROOT, Broker, StandIn, wait_until
from tests.edge.listener import Listener, listening
from tests.edge.mjpeg import Mjpeg, jpeg
from tests.edge.trace import strace, written

FER_EDGE = [sys.executable, "-c", "import sys; from edge.cli.main import main; sys.exit(main())"]


def test_the_committed_schemas_are_the_codes() -> None:
    for name, text in schemas().items():
        assert (ROOT / "docs" / name).read_text() == text, f"make schema: docs/{name}"


class Kiosk:
    """A running ``fer-edge`` as systemd starts it, and its messages to the broker and to systemd."""

    def __init__(self, folder: Path, url: str, broker: Broker, more: str = "") -> None:
        self.folder = folder
        self.config = folder / "config.toml"
        self.write(
            f'[camera]\nsource = "{url}"\n[detect]\nmin_face = 0.2\n[mqtt]\nhost = "127.0.0.1"\nport = {broker.port}\n'
            f'device = "kiosk"\nstatistics_seconds = 1\n{more}'
        )
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(str(folder / "notify"))
        self._notify.settimeout(0.01)
        self.notified: list[str] = []
        self.process: subprocess.Popen[str] | None = None
        self.tracer: tuple[str, ...] = ()

    def write(self, text: str) -> None:
        self.config.write_text(text)

    def start(self) -> None:
        environ = {
            **os.environ,
            "NOTIFY_SOCKET": str(self.folder / "notify"),
            "WATCHDOG_USEC": "4000000",
            "STATE_DIRECTORY": str(self.folder / "state"),
            "PYTHONDONTWRITEBYTECODE": "1",  # as under the unit, where nothing but the state can be written
        }
        if self.tracer:
            environ.pop("COVERAGE_PROCESS_CONFIG", None)  # the files of `make coverage` are none of the device's
        command = [*self.tracer, *FER_EDGE, "run", "--config", str(self.config), "--events", "mqtt"]
        self.process = subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True)

    def notified_of(self, word: str) -> bool:
        """Whether systemd was notified of this since the last call."""
        try:
            while True:
                self.notified += self._notify.recv(4096).decode().split("\n")
        except TimeoutError:
            found = any(word in line for line in self.notified)
            self.notified = []
            return found

    def end(self, *, kill: bool = False) -> int:
        assert self.process
        self.process.kill() if kill else self.process.terminate()
        self.process.communicate(timeout=20)
        return self.process.returncode

    def close(self) -> None:
        if self.process and self.process.poll() is None:
            self.end(kill=True)
        self._notify.close()


def visitor() -> Iterator[bytes]:
    """A face near the camera, with a sensor's noise, for ever."""
    portrait = cv2.imread(str(PORTRAIT))
    assert portrait is not None
    height, width = portrait.shape[:2]
    near = portrait[int(0.05 * height) : int(0.55 * height), int(0.12 * width) : int(0.62 * width)]
    near = cv2.resize(near, (320, 240), interpolation=cv2.INTER_AREA)
    noise = np.random.default_rng(1)
    while True:
        yield jpeg(cv2.add(near, noise.integers(0, 12, near.shape, np.uint8)))


class Camera(Mjpeg):
    """A camera that knows whether somebody watches."""

    @property
    def watched(self) -> bool:
        before = self.sent
        time.sleep(0.5)
        return self.sent > before


@pytest.fixture
def camera() -> Iterator[Camera]:
    with Camera(visitor) as made:
        yield made


Starting = Callable[..., Kiosk]


@pytest.fixture
def kiosk(tmp_path: Path, broker: Broker, camera: Camera) -> Iterator[Starting]:
    made: list[Kiosk] = []

    def start(more: str = "", *, tracer: tuple[str, ...] = ()) -> Kiosk:
        one = Kiosk(tmp_path, camera.url, broker, more)
        one.tracer = tracer
        made.append(one)
        one.start()
        return one

    yield start
    for one in made:
        one.close()


def replies(listener: Listener, command: str) -> list[dict[str, Any]]:
    return [reply for reply in listener.json("reply") if reply["command"] == command]


@pytest.mark.slow
def test_everything_that_is_published_fits_its_schema_and_is_described(broker: Broker, kiosk: Starting) -> None:
    with listening(broker.port) as listener:
        running = kiosk("[homeassistant]\nenabled = true\n")
        # A verification in the second of the start's would have the same payload, which is not sent again.
        wait_until(lambda: len(listener.of("statistics")) > 1 and listener.of("event"), 60)
        for name, payload in (("verify", '{"id":"1"}'), ("fly", ""), ("pause", '{"on":"yes"}')):
            listener.send(f"command/{name}", payload)
        wait_until(lambda: len(listener.of("reply")) == 3 and len(listener.of("verification")) == 2, 20)
        listener.send("command/pause", '{"on":true,"id":"2"}')
        wait_until(lambda: listener.last("paused") == "ON" and len(listener.of("reply")) == 4, 20)
        assert running.end() == 0
        wait_until(lambda: listener.last("availability") == "offline", 5)
        messages = list(listener.messages)
    described = (ROOT / "docs" / "mqtt-reference.md").read_text()
    seen = set()
    for topic, payload, _ in messages:
        name = topic.removeprefix("fer-edge/kiosk/")
        if name.startswith("command/"):
            continue
        seen.add(name)
        assert (f"`.../{name}`" if "/device/" not in name else "homeassistant/device/") in described, name
        kind = "event" if name == "homeassistant/event" else name.replace("/", ".")
        if kind in PAYLOADS and payload:
            schema = json.loads((ROOT / "docs" / f"{kind}.schema.json").read_text())
            jsonschema.validate(json.loads(payload), schema)
    discovered = "homeassistant/device/fer-edge-kiosk/config"
    assert seen == {
        "availability",
        "camera",
        "homeassistant/event",
        "homeassistant/fault",
        "state",
        "event",
        "statistics",
        "fault",
        "paused",
        "reply",
        "verification",
        discovered,
    }
    asked = listener.json("verification")[1]
    started = next(json.loads(payload) for topic, payload, _ in messages if topic.endswith("/verification"))
    assert (started["ok"], started["n"]) == (True, 16)
    verified = next(json.loads(payload) for topic, payload, _ in messages if '"command":"verify"' in payload)
    assert verified["ok"]
    assert verified["result"]["n"] == 16
    assert verified["result"] == asked, "retained when asked by command too"


@pytest.mark.slow
def test_pause_closes_the_camera_survives_kill_9_and_ends_by_command(
    broker: Broker, kiosk: Starting, camera: Camera
) -> None:
    with listening(broker.port) as listener:
        running = kiosk()
        wait_until(lambda: listener.json("state") and listener.json("state")[-1]["faces"], 60)
        assert camera.watched
        listener.send("command/pause", '{"on":true,"id":"a"}')
        wait_until(lambda: replies(listener, "pause"), 20)
        assert replies(listener, "pause")[0] == {
            "command": "pause",
            "id": "a",
            "ok": True,
            "error": None,
            "sentence": None,
            "result": {"paused": True},
        }
        assert listener.last("paused") == "ON"
        assert listener.json("state")[-1]["faces"] == 0
        assert listener.json("event")[-1]["kind"] == "left"
        heard = [(topic.rpartition("/")[2], payload) for topic, payload, _ in listener.messages]
        closed = len(heard) - 1 - heard[::-1].index(("camera", "offline"))
        emptied = max(n for n, (topic, payload) in enumerate(heard) if topic == "state" and '"faces":0' in payload)
        assert closed < emptied, "or it would look as if everybody had left"
        wait_until(lambda: not camera.watched, 3)  # what was under way on the network still counts
        assert running.notified_of("STATUS=paused: the camera is closed")
        wait_until(lambda: running.notified_of("WATCHDOG=1"), 5)
        running.end(kill=True)
        running.start()
        wait_until(lambda: running.notified_of("READY=1"), 60)
        wait_until(lambda: running.notified_of("WATCHDOG=1"), 5)
        assert not camera.watched, "the next process has not opened it"
        wait_until(lambda: listener.json("statistics")[-1]["paused"], 10)
        listener.send("command/pause", '{"on":false,"id":"b"}')
        wait_until(lambda: len(replies(listener, "pause")) == 2 and listener.last("paused") == "OFF", 20)
        assert camera.watched
        wait_until(lambda: listener.json("state")[-1]["faces"] and listener.json("event")[-1]["kind"] == "appeared", 20)
        first, again = listener.json("event")[0], listener.json("event")[-1]
        assert (first["track"], again["track"]) == (1, 1), "track ids start over"
        assert first["id"].split("-")[0] != again["id"].split("-")[0]
        assert running.end() == 0


@pytest.mark.slow
def test_junk_and_retained_commands_do_not_stop_a_pause(broker: Broker, kiosk: Starting, camera: Camera) -> None:
    """Nine retained commands at the connection, one junk message a second, and 15 pauses: each obeyed and answered."""
    with listening(broker.port) as listener, ThreadPoolExecutor() as pool:
        for number in range(9):
            listener.send(f"command/{'pause' if number == 0 else f'old{number}'}", '{"on":true}', retain=True)
        running = kiosk()
        wait_until(lambda: listener.last("availability") == "online", 60)
        ending = threading.Event()

        def send_junk() -> None:
            while not ending.wait(1):
                listener.send("command/pause", "ON")
                listener.send("command/fly", "{}", retain=True)

        junk = pool.submit(send_junk)
        try:
            wait_until(lambda: listener.json("state") and listener.json("state")[-1]["faces"], 60)
            for number in range(15):
                on = number % 2 == 0
                listener.send("command/pause", json.dumps({"on": on, "id": f"p{number}"}))
                wait_until(lambda n=number: any(reply["id"] == f"p{n}" for reply in replies(listener, "pause")), 20)
                wait_until(lambda word="ON" if on else "OFF": listener.last("paused") == word, 5)
        finally:
            ending.set()
            junk.result()
        answered = [reply for reply in replies(listener, "pause") if reply["id"]]
        assert [(reply["id"], reply["ok"]) for reply in answered] == [(f"p{number}", True) for number in range(15)]
        wait_until(lambda: not camera.watched, 3)
        assert len(listener.of("reply")) < len([topic for topic, *_ in listener.messages if "/command/" in topic])
        assert listener.json("statistics")[-1]["commands_ignored"] > 9
        assert running.end() == 0


@pytest.mark.slow
def test_a_damaged_state_file_keeps_the_camera_closed_until_a_command(
    broker: Broker, kiosk: Starting, camera: Camera, tmp_path: Path
) -> None:
    file = tmp_path / "state" / "fer-edge-kiosk.state.json"
    file.parent.mkdir()
    file.write_bytes(b"")
    with listening(broker.port) as listener:
        running = kiosk("[homeassistant]\nenabled = true\n")
        for _ in range(2):  # a restart does not forget it
            wait_until(lambda: listener.last("paused") == "ON" and listener.last("fault"), 60)
            wait_until(lambda: running.notified_of("READY=1"), 60)
            assert not camera.watched
            fault = json.loads(listener.last("fault") or "")
            assert fault["code"] == 18
            assert f"{file} is damaged" in fault["sentence"]
            assert '{"on":false} on .../command/pause' in fault["sentence"]
            assert running.end() == 0
            listener.messages.clear()
            running.start()
        wait_until(lambda: listener.last("paused") == "ON", 60)
        listener.send("command/pause", '{"on":false,"id":"1"}')
        wait_until(lambda: replies(listener, "pause") and listener.last("paused") == "OFF", 60)
        wait_until(lambda: listener.last("fault") == "", 10)
        assert replies(listener, "pause")[0]["ok"]
        assert camera.watched
        assert running.end() == 0


@pytest.mark.slow
def test_a_reload_just_after_the_start_is_refused_and_nothing_ends(broker: Broker, kiosk: Starting) -> None:
    with listening(broker.port) as listener:
        running = kiosk()
        wait_until(lambda: listener.of("statistics"), 60)
        listener.send("command/reload", '{"id":"early"}')
        wait_until(lambda: replies(listener, "reload"), 10)
        assert replies(listener, "reload")[0]["error"] == "too-fast"
        assert running.process
        assert running.process.poll() is None


@pytest.mark.slow
def test_a_reload_for_settings_that_cannot_start_ends_nothing(broker: Broker, kiosk: Starting) -> None:
    with listening(broker.port) as listener:
        running = kiosk()
        wait_until(lambda: listener.of("statistics"), 60)
        time.sleep(30)  # before, every reload is refused
        sound = running.config.read_text()
        running.write(f'{sound}[[preset]]\nname = "smile"\nexpression = "hapy"\n')
        listener.send("command/reload", '{"id":"wrong"}')
        wait_until(lambda: replies(listener, "reload"), 10)
        reply = replies(listener, "reload")[0]
        assert (reply["ok"], reply["error"]) == (False, "failed")
        assert f"preset 'smile': the model {DEFAULT} has no expression 'hapy'" in reply["sentence"]
        assert running.process
        assert running.process.poll() is None
        running.write(f'{sound}[[preset]]\nname = "smile"\nexpression = "happy"\n')
        listener.send("command/reload", '{"id":"right"}')
        wait_until(lambda: len(replies(listener, "reload")) == 2, 10)
        assert replies(listener, "reload")[1]["ok"]
        running.process.communicate(timeout=20)
        assert running.process.returncode == 0


@pytest.mark.slow
def test_what_a_full_disk_refused_at_the_start_is_kept_once_there_is_room(
    small_disk: Path, broker: Broker, kiosk: Starting
) -> None:
    """Without it a device that is renamed would leave its description in Home Assistant for ever."""
    ballast = small_disk / "ballast"
    with contextlib.suppress(OSError):
        ballast.write_bytes(bytes(600_000))
    with listening(broker.port) as listener:
        running = kiosk(f'[homeassistant]\nenabled = true\n[store]\nfolder = "{small_disk}"\n')
        wait_until(lambda: listener.of("event"), 60)
        record = small_disk / "device.json"
        assert not record.exists()
        ballast.unlink()
        wait_until(lambda: record.exists() and json.loads(record.read_bytes())["base"] == "fer-edge/kiosk", 20)
        running.end()


@pytest.mark.slow
def test_nothing_but_outbox_state_and_sockets_is_written_and_no_picture_leaves(
    broker: Broker, kiosk: Starting, tmp_path: Path
) -> None:
    """Under a trace of every system call that can write, from start to end, with a face in view."""
    if not shutil.which("strace"):
        pytest.skip("strace is not installed (apt install strace)")
    trace = tmp_path / "trace"
    with listening(broker.port) as listener:
        running = kiosk("[homeassistant]\nenabled = true\n", tracer=strace(trace))
        wait_until(lambda: listener.of("statistics") and listener.of("event"), 120)
        listener.send("command/verify", '{"id":"1"}')
        wait_until(lambda: replies(listener, "verify"), 60)
        listener.send("command/pause", '{"on":true,"id":"2"}')
        wait_until(lambda: replies(listener, "pause"), 60)
        assert running.end() == 0
        events = listener.of("event")
    assert running.process
    ended = re.compile(rf"^{running.process.pid} +\+\+\+ exited with 0", re.MULTILINE)
    wait_until(lambda: ended.search(trace.read_text(errors="replace")), 20)
    found = written(trace)
    state = f"{tmp_path}/state"
    names = {Path(file).name for file in found.files if file.startswith(f"{state}/")}
    outbox = {f"fer-edge-kiosk.outbox.db{part}" for part in ("", "-wal", ".inventory")}
    assert {*outbox, "fer-edge-kiosk.state.json"} <= names
    elsewhere = {file for file in found.files if file != state and not file.startswith(f"{state}/")}
    assert elsewhere <= {"/dev/null"}, "files written outside the state directory"
    assert found.others == [], "other ways of writing"
    network = [data for where, data in found.sockets.items() if "TCP" in where]
    sent = b"".join(network)
    assert all(event.encode() in sent for event in events), "or the trace has missed what was sent"
    assert sum(byte >= 0x80 for byte in sent) < len(sent) / 50, "text and a few packet heads; pictures are not text"
    assert len(sent) < 200_000
    stored = b"".join(file.read_bytes() for file in Path(state).iterdir())
    assert b"\xff\xd8\xff" not in stored + sent, "JPEG"


@pytest.mark.slow
def test_the_trace_would_have_seen_a_picture_written(tmp_path: Path) -> None:
    if not shutil.which("strace"):
        pytest.skip("strace is not installed (apt install strace)")
    script = (
        "import mmap, os, socket; open('face.pgm', 'wb').write(b'P5'); os.rename('face.pgm', 'x')\n"
        "with open('map', 'w+b') as file: file.truncate(9); mmap.mmap(file.fileno(), 9)[:2] = b'P5'\n"
        "os.memfd_create('hidden'); near, far = socket.socketpair(); near.send(bytes([7, 200, 34, 92]))\n"
        "try: os.write(99, b'to nobody')\nexcept OSError: pass\n"
    )
    trace = tmp_path / "trace"
    subprocess.run([*strace(trace), sys.executable, "-c", script], cwd=tmp_path, check=True, timeout=60)
    wait_until(lambda: "+++ exited with 0" in trace.read_text(), 10)
    found = written(trace)
    assert {"face.pgm", "x", "map", f"{tmp_path}/face.pgm"} <= found.files
    assert "" not in found.files, "a descriptor that is closed is no file"
    assert len(found.others) == 2, "a shared mapping and a file in memory"
    assert list(found.sockets.values()) == [bytes([7, 200, 34, 92])]


@pytest.mark.slow
def test_an_edge_tpu_that_fails_is_a_fault_while_the_device_goes_on(
    broker: Broker, kiosk: Starting, standin: StandIn
) -> None:
    """A stand-in for Coral's library plays it; no Edge TPU is involved."""

    def computes(accelerator: str) -> bool:
        running.notified_of("STATUS")  # a socket that nobody reads would hold up the service
        return any(sent["accelerator"] == accelerator and sent["fps"] for sent in listener.json("statistics")[-1:])

    with listening(broker.port) as listener:
        running = kiosk(f'[model]\nbundle = "{standin.bundle}"\nedgetpu_library = "{standin.library}"\n')
        wait_until(lambda: computes("edgetpu"), 60)
        assert not listener.last("fault")
        standin.plays("vanished")
        wait_until(lambda: listener.last("fault"), 30)
        fault = listener.json("fault")[-1]
        assert fault["code"] == 21
        assert "the Edge TPU failed while it computed" in fault["sentence"]
        wait_until(lambda: computes("cpu (degraded)"), 20)
        assert listener.json("statistics")[-1]["fault"] == 21
        assert listener.last("availability") == "online"
        listener.send("command/verify", '{"id":"1"}')
        wait_until(lambda: replies(listener, "verify"), 20)
        verified = replies(listener, "verify")[0]["result"]
        assert (verified["accelerator"], verified["top1"]) == ("cpu (degraded)", 1.0)
        assert running.end() == 0
