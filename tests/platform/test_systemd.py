"""The service in a booted systemd, installed from the wheel in a Debian 12 container: faults, and how it recovers."""

import json
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edge.model.bundle import DEFAULT, find_bundle
from tests.conftest import StandIn, wait_until
from tests.platform.container import BOX, CONFIG, Container, Subscriber
from tests.soak.ledger import Evidence, balance
from tests.soak.outbox_content import content_of

pytestmark = pytest.mark.slow

STORM = int(os.environ.get("FER_EDGE_STORM", "2"))
"""Number of faults in the storm."""


def test_a_hung_process_is_restarted_by_the_watchdog(installed: Container) -> None:
    hung = installed.restart("WatchdogSec=3\nRestartSec=1\n")
    began, began_at = time.monotonic(), time.time()
    installed.run("systemctl", "kill", "--signal=STOP", "fer-edge")
    wait_until(lambda: installed.show("ActiveState") != "active", 10)
    aborted = time.monotonic() - began
    installed.ready(after=hung)
    print(f"SIGSTOP, {aborted:.1f} s, abort; first frame of the next process {time.monotonic() - began:.1f} s after it")
    journal = installed.journal(began_at)
    assert "Failed with result 'watchdog'" in journal
    assert "edge/app/run.py" in journal  # where it hung


def test_a_camera_that_hangs_is_given_up_by_its_own_limits_and_not_by_those_of_systemd(installed: Container) -> None:
    installed.write("etc/fer-edge/config.toml", CONFIG.replace("[detect]", "stall_seconds = 8.0\n[detect]"))
    began_at = time.time()
    try:
        running = installed.restart("WatchdogSec=3\nTimeoutStartSec=8\nRestartSec=1\n")
        installed.run("systemctl", "kill", "--signal=STOP", "camera")
        wait_until(lambda: "no new picture in 8 s" in installed.journal(began_at), 30)
        wait_until(lambda: "no video stream within 10 s" in installed.journal(began_at), 60)
    finally:
        installed.run("systemctl", "kill", "--signal=CONT", "camera")
        installed.write("etc/fer-edge/config.toml", CONFIG)
    installed.ready(after=running)
    journal = installed.journal(began_at)
    assert "Failed with result 'watchdog'" not in journal
    assert "Failed with result 'timeout'" not in journal


@pytest.fixture
def edge_tpu(installed: Container, built_standin: Path) -> Iterator[StandIn]:
    """Set the service up with a library that imitates an Edge TPU, and a bundle for it."""
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
    subscriber = Subscriber(installed, "fer-edge/kiosk/#")
    began_at = time.time()
    try:
        subscriber.wait(
            lambda topic, payload: topic.endswith("/statistics") and '"accelerator":"edgetpu"' in payload, 30
        )
        edge_tpu.plays("hangs")
        installed.ready(after=hung)
        subscriber.wait(
            lambda topic, payload: topic.endswith("/statistics") and '"accelerator":"cpu (degraded)"' in payload, 30
        )
        fault = json.loads(
            subscriber.wait(lambda topic, payload: topic.endswith("/fault") and '"code":21' in payload, 5)
        )
    finally:
        subscriber.close()
    assert "the last process ended, by a crash or the watchdog, while the Edge TPU computed" in fault["sentence"]
    journal = installed.journal(began_at)
    assert "Failed with result 'watchdog'" in journal
    assert "edge/model/edgetpu.py" in journal  # where it hung


def test_a_killed_process_is_restarted(installed: Container) -> None:
    killed = installed.restart("RestartSec=1\n")
    installed.run("systemctl", "kill", "--signal=KILL", "fer-edge")
    installed.ready(after=killed)
    assert int(installed.show("NRestarts")) == 1


def test_a_lost_camera_is_published_as_a_fault_and_waited_for(installed: Container) -> None:
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


def test_events_outlive_kill_9_while_the_broker_is_away(installed: Container, events: Subscriber) -> None:
    installed.restart("RestartSec=1\n")
    before = len(events.event_ids())  # the visitor in view has left, under the old run's id
    wait_until(lambda: len(events.event_ids()) > before, 30)
    run, number = events.event_ids()[-1].split("-")
    installed.run("systemctl", "stop", "mosquitto")
    time.sleep(15)  # the camera shows the visitor once in ten seconds
    installed.run("systemctl", "kill", "--signal=KILL", "fer-edge")
    installed.run("systemctl", "start", "mosquitto")
    later = Subscriber(installed, "fer-edge/kiosk/#")
    try:
        wait_until(
            lambda: any(
                event.startswith(f"{run}-") and int(event.split("-")[1]) > int(number) for event in later.event_ids()
            ),
            60,
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


def _gets_an_invalid_command(installed: Container) -> None:
    installed.send_command("pause", '{"on":"yes","file":"/etc/passwd"}')


ENDING = (_hangs, _is_killed, _loses_its_camera)


def test_a_storm_of_faults_in_the_booted_systemd(installed: Container) -> None:
    """FER_EDGE_STORM is the number of faults. ``python -m tests.soak`` has more kinds, but imitates systemd."""
    chance, began_at = random.Random(4), time.time()
    faults = [chance.choice((*ENDING, _loses_its_broker, _gets_an_invalid_command)) for _ in range(STORM)]
    process = installed.restart("WatchdogSec=3\nRestartSec=1\n")
    # The session survives restarts of the broker, so that no acknowledged event is missed.
    subscriber = Subscriber(installed, "fer-edge/kiosk/event", "-i", "storm", "-c")
    took: dict[str, list[float]] = {}
    for fault in faults:
        time.sleep(chance.uniform(0, 3))
        installed.run("rm", "-f", "/run/fer-edge/failures.json")  # on a kiosk, hours pass between two faults
        began = time.monotonic()
        fault(installed)
        process = installed.ready(after=process if fault in ENDING else 0)
        took.setdefault(fault.__name__.strip("_"), []).append(round(time.monotonic() - began, 1))
    assert int(installed.show("NRestarts")) == sum(fault in ENDING for fault in faults), "only faults end it"
    run = subscriber.event_ids()[-1:]
    wait_until(lambda: subscriber.event_ids()[-1:] != run, 60)  # the last process publishes events too
    installed.run("systemctl", "stop", "fer-edge")
    left = content_of(next(installed.root.glob("var/lib/fer-edge/*kiosk.outbox.db")), 0)
    installed.run("systemctl", "start", "fer-edge")
    seen = subscriber.event_ids()
    subscriber.close()
    settled = balance(Evidence(seen, seen, [replace(left, acknowledged=len(seen))]))
    print(f"{len(faults)} faults, seconds until it was ready: {took}; {settled}")
    assert settled.violations == []
    assert "Traceback" not in installed.journal(began_at)


def test_a_model_that_root_installs_runs_and_one_that_crashes_gives_way(
    installed: Container, events: Subscriber
) -> None:
    bundle = Path(shutil.copytree(find_bundle("student-small"), installed.root / BOX / "mine"))
    card = json.loads((bundle / "card.json").read_text())
    (bundle / "card.json").write_text(json.dumps(card | {"name": "mine"}))

    def verified(name: str) -> Callable[[str, str], bool]:
        return lambda topic, payload: topic.endswith("/verification") and json.loads(payload)["model"] == name

    former = installed.restart("RestartSec=1\n")
    output = installed.fer_edge("model", "install", f"/{BOX}/mine")
    assert "in use: mine-" in output
    running = installed.ready(after=former)
    assert json.loads(events.wait(verified("mine"), 10))["ok"]
    assert "mine (" in installed.fer_edge("verify"), "the technician's command verifies what the service runs"
    installed.run("systemctl", "kill", "--signal=KILL", "fer-edge")
    events.messages.clear()
    installed.ready(after=running)
    events.wait(verified(DEFAULT), 10)
    fault = json.loads(events.wait(lambda topic, payload: topic.endswith("/fault") and bool(payload), 10))
    assert (fault["code"], "without an error message in its first minute" in fault["sentence"]) == (4, True)
    assert "refused   mine-" in installed.fer_edge("model", "list")
    assert f"in use: {DEFAULT}" in installed.fer_edge("model", "rollback")
    events.wait(lambda topic, payload: topic.endswith("/fault") and not payload, 30)
