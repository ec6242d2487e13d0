"""What several tests need: a real broker, the real data when it is at hand, and a strict eye on skips."""

import hashlib
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from edge.evaluation.fer2013 import read_faces
from export.synthetic.clips import make_clips

ROOT = Path(__file__).parent.parent
PORTRAIT = ROOT / "edge" / "demo" / "portrait.jpg"


@dataclass
class Broker:
    """A real mosquitto on loopback that a test can stop and start again."""

    folder: Path
    port: int
    options: str = "allow_anonymous true"
    process: subprocess.Popen[bytes] | None = field(default=None)

    def start(self) -> None:
        config = self.folder / "mosquitto.conf"
        config.write_text(f"listener {self.port} 127.0.0.1\n{self.options}\n")
        self.process = subprocess.Popen(["mosquitto", "-c", config], stderr=subprocess.DEVNULL)
        wait_until(self._answers, 10)

    def stop(self) -> None:
        if process := self.process:
            # Said again and again: mosquitto forgets a SIGTERM that comes between its first listening and its loop.
            wait_until(lambda: process.terminate() or process.poll() is not None, 10)
            self.process = None

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait(10)
        self.process = None

    def freeze(self) -> None:
        """Stop it where it is (SIGSTOP): its port takes connections, and nothing answers."""
        assert self.process
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self.process
        self.process.send_signal(signal.SIGCONT)

    def reread(self) -> None:
        """Take the files that the options name as they are now (SIGHUP)."""
        assert self.process
        self.process.send_signal(signal.SIGHUP)

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


def wait_until(condition, seconds: float) -> None:  # noqa: ANN001
    """Poll until a condition holds; fails after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {condition}"
        time.sleep(0.02)


@contextmanager
def no_more_files(spare: int = 0) -> Iterator[None]:
    """While it lasts, this process may open ``spare`` files more, and keep those that are open."""
    free = [os.open(os.devnull, os.O_RDONLY) for _ in range(spare + 1)]
    for descriptor in free:
        os.close(descriptor)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[-1], hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """A started mosquitto. It runs as root here only because tests in CI do."""
    if not shutil.which("mosquitto"):
        pytest.skip("mosquitto is not installed (apt install mosquitto)")
    made = Broker(tmp_path, free_port(), f"allow_anonymous true\nuser {'root' if os.getuid() == 0 else 'nobody'}")
    made.start()
    yield made
    made.stop()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 KB."""
    if os.getuid() != 0:
        pytest.skip("mounting a small file system needs root")
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.fixture(autouse=True, scope="session")
def _own_state(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What commands that tests start by hand keep goes here, and not into the home of whoever runs the tests."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="session")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A little data set in FER2013's form whose classes are seven shades of noise: learnable, and nobody's face."""
    rng = np.random.default_rng(11)
    file = tmp_path_factory.mktemp("blobs") / "fer2013.csv"
    with file.open("w") as text:
        text.write("emotion,pixels,Usage\n")
        for number in range(140):
            label = number % 7
            pixels = np.clip(rng.normal(20 + 35 * label, 10, 2304), 0, 255).astype(int)
            text.write(f"{label},{' '.join(map(str, pixels))},{'Training' if number < 112 else 'PublicTest'}\n")
    return file


@pytest.fixture
def few(blobs: Path, tmp_path: Path) -> Path:
    """16 faces to learn from and 7 to measure on: enough for the networks that take seconds a step."""
    lines = blobs.read_text().splitlines(keepends=True)
    file = tmp_path / "few.csv"
    file.write_text("".join(lines[:17] + lines[-7:]))
    return file


@pytest.fixture(scope="session")
def still_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second of somebody standing before the camera, with its truth beside it."""
    [clip] = make_clips(tmp_path_factory.mktemp("clips"), seed=1, names=["still"], seconds=1.0, data=None)
    return clip


@pytest.fixture(scope="session")
def fer2013() -> Path:
    """The real FER2013 CSV."""
    return _named_by("FER2013", "the data set's CSV")


@pytest.fixture(scope="session")
def public_test(fer2013: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its PublicTest alone, which a program reads in a tenth of the time."""
    faces, file = read_faces(fer2013, "PublicTest"), tmp_path_factory.mktemp("fer2013") / "public.csv"
    rows = zip(faces.labels, faces.pixels, strict=True)
    text = "".join(f"{label},{' '.join(map(str, pixels.ravel()))},PublicTest\n" for label, pixels in rows)
    file.write_text("emotion,pixels,Usage\n" + text)
    return file


@pytest.fixture(scope="session")
def real_clips() -> Path:
    """A folder of real videos with annotations: videos/NAME.mp4, gt/NAME.json and gt/NAME.meta.json."""
    return _named_by("REAL_CLIPS", "a folder of real videos and annotations")


@pytest.fixture(scope="session")
def faceres() -> Path:
    """The published face-pretrained network."""
    return _named_by("FACERES", "models/faceres.json of the npm package @vladmandic/human 3.3.6")


def _named_by(variable: str, what: str) -> Path:
    path = os.environ.get(variable)
    if not path:
        pytest.skip(f"{variable} is not set to the path of {what}")
    return Path(path)


class StandIn:
    """A stand-in for Coral's library in a folder of its own, and a bundle "compiled" for it. No Edge TPU is here."""

    def __init__(self, folder: Path, built: Path) -> None:
        self.library = folder / "libstandin.so"  # each copy is loaded for itself
        shutil.copy(built, self.library)
        self.bundle = folder / "bundle"
        shutil.copytree(ROOT / "edge" / "bundles" / "student-small", self.bundle)
        plain = (self.bundle / "model.tflite").read_bytes()
        (self.bundle / "model_edgetpu.tflite").write_bytes(plain)  # the stand-in takes over an op of the plain network
        card = json.loads((self.bundle / "card.json").read_text())
        sha256 = hashlib.sha256(plain).hexdigest()
        card["edgetpu"] = {"sha256": sha256, "compiler": None, "mapped_ops": 1, "cpu_ops": 18}
        (self.bundle / "card.json").write_text(json.dumps(card))
        self.plays("present")

    def plays(self, mode: str) -> None:
        """From the next call on: present, absent, vanished, wrong, crashes or hangs (see standin_edgetpu.c)."""
        new = self.library.with_name("mode.new")
        new.write_text(mode)
        new.replace(self.library.with_name("mode"))


def build_library(source: Path, folder: Path) -> Path:
    """A C file as a shared library; its path."""
    library = folder / f"lib{source.stem}.so"
    command = ["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library, source, "-lm", "-ldl"]
    subprocess.run(command, check=True)
    return library


@pytest.fixture(scope="session")
def built_standin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that plays libedgetpu, compiled."""
    if not shutil.which("gcc"):
        pytest.skip("gcc is not installed (apt install gcc libc6-dev)")
    return build_library(ROOT / "tests" / "edge" / "standin_edgetpu.c", tmp_path_factory.mktemp("standin"))


@pytest.fixture
def standin(built_standin: Path, tmp_path: Path) -> StandIn:
    """A stand-in for an Edge TPU, present and healthy until the test says otherwise."""
    return StandIn(tmp_path, built_standin)


def pytest_xdist_auto_num_workers() -> int:
    """One worker more than cores: tests wait for brokers, cameras and containers for a fifth of their time."""
    return len(os.sched_getaffinity(0)) + 1


# The order of files: those that take minutes first, so that no worker is left alone with one at the end. Booted
# containers share the cgroup of whoever boots them, and systemctl kill in one would meet the processes of another. So
# minutes of other files lie between the files that boot one.
_ORDER = (
    "platform/test_debian_package.py",
    "export/",
    "platform/test_service.py",
    "train/",
    "platform/",
    "edge/test_secrets.py",  # mostly waits
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the files of tests by _ORDER; the others come last."""

    def rank(item: pytest.Item) -> int:
        path = item.path.relative_to(ROOT / "tests").as_posix()
        return next((number for number, start in enumerate(_ORDER) if path.startswith(start)), len(_ORDER))

    items.sort(key=rank)


def pytest_terminal_summary(terminalreporter) -> None:  # noqa: ANN001
    """Say what was recorded as ``fuzz``, and refuse surprising skips.

    With FER_EDGE_ALLOWED_SKIPS naming a file of allowed reasons, any other skip fails the run (used in CI).
    """
    for report in terminalreporter.getreports(""):
        for name, value in report.user_properties:
            if name == "fuzz" and report.when == "teardown":
                terminalreporter.write_line(value)
    file = os.environ.get("FER_EDGE_ALLOWED_SKIPS")
    if not file:
        return
    allowed = [line for line in Path(file).read_text().splitlines() if line and not line.startswith("#")]
    skipped = [str(report.longrepr) for report in terminalreporter.getreports("skipped")]
    surprising = [reason for reason in skipped if not any(words in reason for words in allowed)]
    if surprising:
        terminalreporter.section("skips that are not allowed here", red=True)
        for reason in surprising:
            terminalreporter.line(reason)
        terminalreporter._session.exitstatus = pytest.ExitCode.TESTS_FAILED
