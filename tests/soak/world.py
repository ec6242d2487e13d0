"""The program and everything around it that can fail: broker, proxy, camera, disk, clock, Edge TPU, operator."""

import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from edge.model.bundle import find_bundle
from edge.model.registry import ModelRegistry
from tests.conftest import ROOT, Broker, StandIn, build_library, free_port, wait_until
from tests.soak.camera import Camera
from tests.soak.device import Device, End
from tests.soak.disk import Disk, can_be_mounted
from tests.soak.ledger import OutboxContent
from tests.soak.operator import STORED_OPENINGS, Keeper, Operator
from tests.soak.outbox_content import content_of
from tests.soak.proxy import SoakProxy

PASSWORD: Final = "sesame"
MOST_EVENTS: Final = 40
"""The outbox holds so few events that some are dropped."""

_PAGE_TRIES: Final = 30
_FER_EDGE: Final = [sys.executable, "-c", "import sys; from edge.cli.main import main; sys.exit(main())"]

_CONFIG: Final = """
[camera]
source = "{camera}"
[detect]
min_face = 0.2
[track]
lost_after = 0.3
[model]
{bundle}edgetpu_library = "{library}"
rate = {rate}
[events]
smoothing = 0.1
dwell = 0.1
[mqtt]
host = "127.0.0.1"
port = {port}
device = "kiosk"
username = "kiosk"
password_file = "{password}"
statistics_seconds = {statistics}
[store]
events = {most}
[homeassistant]
enabled = true
[metrics]
enabled = true
port = {metrics}
"""


class World:
    """Everything, started; ``disk`` is None where none can be mounted. Use :func:`opened`."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.ends: list[tuple[End, str | None]] = []
        self.outboxes: list[OutboxContent] = []
        self.injected = 0
        self.blamed: str | None = None
        """The fault that lasts now and may end the process."""
        self.added_seconds = 0
        self.state_is_damaged = False
        """Whether the kept pause was damaged since the camera was last opened: it may then be closed."""
        self.openings_are_spent = False
        self.reachable_since = 0.0
        """When the last long outage has ended, of the monotonic clock; infinite during one."""
        self.technician = threading.Lock()
        """Held by who works in the state folder beside the service."""
        self._password = folder / "password"
        self._clock = folder / "clock"
        self.set_clock(0)
        self.set_password(PASSWORD)
        self.broker = _broker(folder)
        self.broker.start()
        stack.callback(self.broker.stop)
        self.proxy = stack.enter_context(closing(SoakProxy(self.broker.port)))
        self.operator = stack.enter_context(closing(Operator(self.broker.port, PASSWORD)))
        self.camera = stack.enter_context(closing(Camera()))
        self.state = folder / "state"
        self.disk = stack.enter_context(closing(Disk(self.state))) if can_be_mounted() else None
        self.state.mkdir(exist_ok=True)
        self.standin = StandIn(folder, build_library(ROOT / "tests" / "edge" / "standin_edgetpu.c", folder))
        self.bad_bundles = _bad_bundles(folder / "bad")
        self.models = _installed_models(self.state, self.standin.bundle)
        shutil.copytree(self.models, folder / "models")
        self._metrics_port = free_port()
        self._config = folder / "config.toml"
        self.write_settings()
        self.environ = {**os.environ, "STATE_DIRECTORY": str(self.state), "PYTHONDONTWRITEBYTECODE": "1"}
        clock = build_library(Path(__file__).with_name("clock.c"), folder)
        run = [*_FER_EDGE, "run", "--config", str(self._config), "--events", "mqtt"]
        preloaded = {**self.environ, "LD_PRELOAD": str(clock), "SOAK_CLOCK": str(self._clock)}
        self.device = stack.enter_context(closing(Device(folder, run, preloaded, self._metrics_port, self._ended)))
        self.keeper = Keeper(self.operator, self._is_closed, self._excuse, self.opened)
        self.keeper.start()
        stack.callback(self.keeper.close)
        if self.disk:
            stack.callback(self.disk.resume)  # otherwise no process could end

    def write_settings(self, *, bundle: bool = True, rate: int = 8, statistics: int = 1, broken: str = "") -> None:
        """Write the settings for the next start; without ``bundle`` the installed model is used."""
        text = _CONFIG.format(
            camera=self.camera.url,
            bundle=f'bundle = "{self.standin.bundle}"\n' if bundle else "",
            library=self.standin.library,
            rate=rate,
            port=self.proxy.port,
            password=self._password,
            statistics=statistics,
            most=MOST_EVENTS,
            metrics=self._metrics_port,
        )
        new = self._config.with_suffix(".new")
        new.write_text(text + broken)
        new.replace(self._config)

    def set_password(self, password: str) -> None:
        self._password.write_text(f"{password}\n")

    def set_clock(self, seconds: int) -> None:
        """Let the device's wall clock be so many seconds ahead of this machine's."""
        self.added_seconds = seconds
        with self._clock.open("r+b" if self._clock.exists() else "wb") as file:
            file.write(struct.pack("q", seconds))

    def fer_edge(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run another command on the device, as a technician does."""
        command = [*_FER_EDGE, *words, "--config", str(self._config)]
        return subprocess.run(command, env=self.environ, capture_output=True, text=True, check=False, timeout=300)

    def choice(self) -> bytes:
        """The file that says which installed model is in use."""
        file = self.models / "choice.json"
        return file.read_bytes() if file.exists() else b""

    def restore_models(self) -> None:
        """Install the two models again, and forget what the service found out about them."""
        shutil.rmtree(self.models)
        shutil.copytree(self.folder / "models", self.models)
        (self.state / "verdict.json").unlink(missing_ok=True)

    def file(self, pattern: str) -> Path | None:
        """The file of the state folder that a pattern means, if it is there."""
        return next(iter(self.state.glob(pattern)), None)

    @contextmanager
    def blaming(self, kind: str) -> Iterator[None]:
        """While this lasts, an end of the process is attributed to this fault."""
        self.blamed = kind
        try:
            yield
        finally:
            self.blamed = None

    def sees_frames(self) -> Callable[[], bool]:
        """A condition: frames have gone through the pipeline since this call, perhaps in a new process."""
        pid, page = self.device.pid, self.device.metrics(of_now=True)
        for _ in range(_PAGE_TRIES):  # it may be flooded, or its process is just starting
            if page:
                break
            time.sleep(0.1)
            pid, page = self.device.pid, self.device.metrics(of_now=True)
        before = page.get("fer_edge_frames_total", 0.0)

        def condition() -> bool:
            frames = self.device.metrics().get("fer_edge_frames_total", 0.0)
            return frames >= 2 if self.device.pid != pid else frames >= before + 2

        return condition

    def is_acknowledged(self) -> Callable[[], bool]:
        """A condition: the broker has acknowledged something since this call."""
        before = self.proxy.answers
        return lambda: self.proxy.answers > before

    def recovers(self, condition: Callable[[], object], seconds: float, abort: threading.Event) -> bool:
        """Wait for a condition. In a long outage no command opens the camera again, so the time begins at its end."""
        while not fulfilled(condition, seconds, abort):
            if abort.is_set() or time.monotonic() - self.reachable_since >= seconds:
                return False
        return True

    def opened(self) -> None:
        """A command has opened the camera."""
        self.operator.openings += 1
        self.state_is_damaged = False

    def _is_closed(self) -> bool | None:
        page = self.device.metrics(of_now=True)
        return (
            page["fer_edge_paused"] == 1 if page.get("fer_edge_frames_total") or page.get("fer_edge_paused") else None
        )

    def _excuse(self) -> str:
        if self.state_is_damaged:
            return "the kept pause was damaged"
        return "the process had stored as many openings as it may" if self.openings_are_spent else ""

    @property
    def accelerator(self) -> str:
        """The accelerator in the device's metrics."""
        name = next((name for name in self.device.metrics() if name.startswith("fer_edge_accelerator_info")), '""')
        return name.split('"')[1]

    def _ended(self, end: End) -> None:
        """Record what a process has left in the outbox, once the proxy has forwarded its last bytes."""
        blamed = self.blamed
        if self.disk:
            self.disk.resume()
        wait_until(lambda: not self.proxy.busy, 10)
        acknowledged = len(self.proxy.record.acknowledged)
        self.openings_are_spent = self.operator.openings >= STORED_OPENINGS
        self.operator.openings = 0
        with tempfile.TemporaryDirectory() as folder:
            for file in self.state.glob("*.outbox.db*"):
                shutil.copy(file, folder)
            copies = list(Path(folder).glob("*.db"))
            content = content_of(copies[0], acknowledged) if copies else OutboxContent(frozenset())
        if content:
            self.outboxes.append(replace(content, acknowledged=acknowledged))
        self.ends.append((end, blamed))


@contextmanager
def opened(folder: Path) -> Iterator[World]:
    """A world in an empty folder; everything in it ends with the context."""
    with ExitStack() as stack:
        yield World(folder, stack)


def _broker(folder: Path) -> Broker:
    users = folder / "users"
    users.touch(mode=0o600)
    for name in ("kiosk", "operator"):
        subprocess.run(["mosquitto_passwd", "-b", users, name, PASSWORD], check=True)
    user = "root" if os.getuid() == 0 else "nobody"
    return Broker(folder, free_port(), f"allow_anonymous false\npassword_file {users}\nuser {user}")


def _installed_models(state: Path, other: Path) -> Path:
    """The folder with two installed models, the second one in use."""
    registry = ModelRegistry(state)
    for bundle in (find_bundle("student-small"), other):
        registry.install(bundle, lambda _: None)
    return registry.folder


def _bad_bundles(folder: Path) -> list[Path]:
    """Bundles that must be refused: damaged, mixed up, incomplete, malicious."""
    folder.mkdir()
    good = find_bundle("student-small")
    flipped, swapped, lacking = (
        Path(shutil.copytree(good, folder / name)) for name in ("flipped", "swapped", "lacking")
    )
    model = bytearray((flipped / "model.tflite").read_bytes())
    model[len(model) // 2] ^= 1
    (flipped / "model.tflite").write_bytes(model)
    card = json.loads((swapped / "card.json").read_text())
    card["labels"] = card["labels"][::-1]
    (swapped / "card.json").write_text(json.dumps(card))
    (lacking / "golden.npz").unlink()
    cut, escaping = folder / "cut.zip", folder / "escaping.zip"
    with zipfile.ZipFile(escaping, "w") as archive:
        for file in good.iterdir():
            archive.write(file, file.name)
        archive.writestr("../../escaped", b"x")
    with zipfile.ZipFile(cut, "w") as archive:
        archive.write(good / "model.tflite", "model.tflite")
    cut.write_bytes(cut.read_bytes()[:-1000])
    return [flipped, swapped, lacking, cut, escaping]


def fulfilled(condition: Callable[[], object], seconds: float, abort: threading.Event) -> bool:
    """Wait for a condition, for ``seconds`` at most or until the soak is given up; returns whether it holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline or abort.wait(0.1):
            return False
    return True
