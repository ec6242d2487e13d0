"""A network that goes away without a packet."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, wait_until
from tests.edge.mqtt.delivery import device

pytestmark = pytest.mark.slow


@pytest.fixture
def namespace() -> Iterator[str]:
    """A network namespace that a cable (veth) connects with this one: 10.213.7.1 here, 10.213.7.2 there."""
    if os.getuid() != 0 or not shutil.which("ip"):
        pytest.skip("a network namespace needs root and ip (apt install iproute2)")
    name = f"fer{os.getpid()}"

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    ip("netns", "add", name)
    try:
        ip("link", "add", f"{name}a", "type", "veth", "peer", "name", f"{name}b", "netns", name)
        ip("addr", "add", "10.213.7.1/30", "dev", f"{name}a")
        ip("link", "set", f"{name}a", "up")
        ip("-n", name, "addr", "add", "10.213.7.2/30", "dev", f"{name}b")
        ip("-n", name, "link", "set", f"{name}b", "up")
        ip("-n", name, "link", "set", "lo", "up")
        yield name
    finally:
        ip("netns", "delete", name)


WATCHER = """
import sys
from tests.conftest import wait_until
from tests.edge.listener import Listener
listener = Listener(1883, "session")
print("ready", flush=True)
count = int(sys.stdin.readline())
wait_until(lambda: len(set(listener.ids())) >= count, 20)
print(*dict.fromkeys(listener.ids()))
"""


def test_a_cable_that_is_pulled_out(namespace: str, tmp_path: Path) -> None:
    """No packet says that the connection is gone; only answers are missing."""
    config = tmp_path / "mosquitto.conf"
    config.write_text("listener 1883 0.0.0.0\nallow_anonymous true\nuser root\n")
    inside = ("ip", "netns", "exec", namespace)
    broker = subprocess.Popen([*inside, "mosquitto", "-c", config], stderr=subprocess.DEVNULL)

    def answers() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("10.213.7.2", 1883)) == 0

    wait_until(answers, 10)
    watcher = subprocess.Popen(
        [*inside, sys.executable, "-c", WATCHER], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert watcher.stdout
    assert watcher.stdout.readline() == "ready\n"

    def cable(state: str) -> None:
        subprocess.run(["ip", "link", "set", f"{namespace}a", state], check=True)

    try:
        with device(tmp_path, 1883, host="10.213.7.2", keepalive=2) as kiosk:
            kiosk.publish(200)
            kiosk.wait_until_delivered()
            cable("down")
            kiosk.publish(200)
            wait_until(lambda: not kiosk.publisher._connection.up, 10)
            assert kiosk.publisher.undelivered == 200
            cable("up")
            kiosk.wait_until_delivered(20)
            assert (kiosk.outbox.committed, kiosk.outbox.figures.dropped) == (400, 0)
            heard, _ = watcher.communicate("400\n", timeout=30)
            assert heard.split() == kiosk.published
    finally:
        watcher.kill()
        watcher.communicate()
        broker.terminate()
        broker.wait(5)
