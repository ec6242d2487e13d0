"""The fixtures of the tests in a booted systemd. A file shares one container, which takes half a minute to set up."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest

from edge.camera.sources import DemoSource
from tests.conftest import ROOT
from tests.platform.container import BOX, CONFIG, Container, Subscriber
from tests.platform.roots import debian_root, require_root

INSIDE = Path(__file__).parent / "inside"
PACKAGES = ("systemd", "systemd-sysv", "dbus", "udev", "python3", "python3-venv", "mosquitto", "mosquitto-clients")


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make wheelhouse` builds for a device: the wheel of this tree and its dependencies."""
    folder = tmp_path_factory.mktemp("wheels")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--wheel-dir", folder]
    subprocess.run([*pip, f"{ROOT}[litert]"], check=True, capture_output=True, timeout=300)
    return folder


@pytest.fixture(scope="module")  # powered off after each file: see _ORDER in tests/conftest.py
def container(tmp_path_factory: pytest.TempPathFactory, wheels: Path) -> Iterator[Container]:
    """A booted container with a broker and a camera (an MJPEG server); fer-edge is not installed yet."""
    made = new_container(tmp_path_factory.mktemp("container"))
    shutil.copytree(wheels, made.root / BOX / "wheels")
    made.boot()
    made.run("systemctl", "enable", "--now", "camera", "mosquitto")
    yield made
    made.power_off()


def new_container(folder: Path, suite: str = "bookworm") -> Container:
    """A container with a broker and a camera, which has not booted yet."""
    require_root("systemd-nspawn", "mmdebstrap", "nsenter")
    made = Container(folder)
    subprocess.run(["cp", "-a", "--reflink=auto", debian_root(suite, PACKAGES), made.root], check=True)
    (made.root / BOX).mkdir()
    _write_frames(made.root / BOX / "frames")
    for script in ("camera.py", "sandbox_probe.py"):
        shutil.copy(INSIDE / script, made.root / BOX)
    shutil.copy(INSIDE / "camera.service", made.root / "etc/systemd/system")
    made.write("etc/hosts", "127.0.0.1 localhost\n")  # mmdebstrap does not make it
    # Tests start the service more often in half an hour than a device does, and read all its lines.
    made.write("usr/local/lib/systemd/system/fer-edge.service.d/log.conf", "[Service]\nLogRateLimitIntervalSec=0\n")
    return made


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
    """Everything that this device publishes."""
    subscriber = Subscriber(installed, "fer-edge/kiosk/#")
    yield subscriber
    subscriber.close()


def _write_frames(folder: Path) -> None:
    """Every other frame of the demo, beginning when the face is near, so that no test has to wait for it."""
    folder.mkdir()
    frames = list(DemoSource().frames())[::2]
    for number, frame in enumerate(frames[35:] + frames[:35]):
        cv2.imwrite(str(folder / f"{number:03}.jpg"), frame.gray)
