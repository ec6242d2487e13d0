"""Notifications to systemd, and how a process under it ends; against real sockets, signals and a real broker."""

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edge.errors import SourceError
from edge.mqtt.outbox import Outbox
from edge.mqtt.publisher import MqttPublisher
from edge.records import Fault
from edge.settings import MqttSettings
from edge.system.secret_files import credential
from edge.system.systemd import (
    STOP_SECONDS,
    FailureLog,
    Failures,
    Notifier,
    Progress,
    Service,
    fault_of,
    wait_after,
)
from tests.conftest import Broker, free_port, no_more_files, wait_until
from tests.edge.mjpeg import Mjpeg, noisy_pictures

FER_EDGE = [sys.executable, "-c", "import sys; from edge.cli.main import main; sys.exit(main())"]


class Systemd:
    """The receiving end of sd_notify."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address.replace("@", "\0") if address.startswith("@") else address)

    def next(self, seconds: float = 30) -> dict[str, str]:
        self._socket.settimeout(seconds)
        return dict(line.split("=", 1) for line in self._socket.recv(4096).decode().split("\n"))

    def until(self, name: str) -> dict[str, str]:
        """The next message that assigns ``name``."""
        while name not in (message := self.next()):
            pass
        return message

    def silent(self) -> bool:
        self._socket.setblocking(False)
        try:
            self._socket.recv(4096)
        except BlockingIOError:
            return True
        return False

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    made = Systemd(str(tmp_path / "notify"))
    yield made
    made.close()


def start(systemd: Systemd, *words: str, **environ: str) -> subprocess.Popen[str]:
    """Start ``fer-edge`` as systemd does."""
    environ = {**os.environ, "NOTIFY_SOCKET": systemd.address, **environ}
    return subprocess.Popen([*FER_EDGE, *words], env=environ, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("failures", "seconds"), [(0, 0), (1, 0), (2, 5), (3, 10), (4, 20), (5, 40), (6, 60), (7, 60), (100_000, 60)]
)
def test_waits_grow_to_a_bound(failures: int, seconds: float) -> None:
    assert wait_after(failures) == seconds


def test_the_first_frame_makes_it_ready_and_only_once() -> None:
    progress = Progress(None)
    assert progress.frame(100.0, "cpu")["READY"] == "1"
    assert progress.frame(100.1, "cpu") == {}


def test_the_watchdog_is_fed_by_frames_about_twice_in_its_time() -> None:
    progress = Progress(20.0)
    fed = [tenth / 10 for tenth in range(605) if "WATCHDOG" in progress.frame(tenth / 10, "cpu")]
    assert fed == [0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0]


def test_slow_frames_feed_the_watchdog_each_time() -> None:
    progress = Progress(20.0)
    assert all("WATCHDOG" in progress.frame(at, "cpu") for at in (0.0, 15.0, 30.0))


def test_without_a_watchdog_none_is_fed() -> None:
    progress = Progress(None)
    assert not any("WATCHDOG" in progress.frame(float(at), "cpu") for at in range(1, 100))


def test_the_status_says_how_fast_on_what() -> None:
    progress = Progress(None)
    statuses = [
        message["STATUS"] for frame in range(1000) if "STATUS" in (message := progress.frame(frame / 25, "cpu"))
    ]
    assert statuses[1:] == ["25.0 frames/s on cpu"] * (len(statuses) - 1)
    assert len(statuses) == 4


def test_a_start_lasts_after_a_minute_of_frames() -> None:
    progress = Progress(None)
    assert not progress.lasts(1000.0)
    progress.frame(1000.0, "cpu")
    assert not progress.lasts(1059.9)
    assert progress.lasts(1060.0)


def test_resting_makes_it_ready_and_feeds_the_watchdog() -> None:
    progress = Progress(20.0)
    assert progress.rest(0.0) == {"READY": "1", "STATUS": "paused: the camera is closed", "WATCHDOG": "1"}
    notified = [at / 5 for at in range(1, 301) if progress.rest(at / 5)]
    assert notified == [10.0, 20.0, 30.0, 40.0, 50.0, 60.0]
    assert progress.lasts(60.0), "a device that is paused has not failed"
    assert progress.frame(61.0, "cpu") == {"STATUS": "the camera is open again, on cpu"}


def test_waiting_for_the_camera_feeds_the_watchdog() -> None:
    progress = Progress(20.0)
    progress.frame(0.0, "cpu")
    notified = {second: message for second in range(1, 41) if (message := progress.wait(float(second)))}
    assert notified == {at: {"STATUS": "0.0 frames/s on cpu", "WATCHDOG": "1"} for at in (10, 20, 30, 40)}
    progress.rest(41.0)
    assert progress.wait(51.0) == {"WATCHDOG": "1"}, "the camera is opened again"


def test_waiting_for_the_first_frame_extends_the_start() -> None:
    progress = Progress(None)
    notified = {second: message for second in range(31) if (message := progress.wait(float(second)))}
    assert notified == {at: {"EXTEND_TIMEOUT_USEC": "90000000"} for at in (0, 10, 20, 30)}
    assert progress.frame(31.0, "cpu")["READY"] == "1"


def test_waiting_for_the_camera_does_not_make_a_start_last(tmp_path: Path) -> None:
    now = [0.0]
    service = Service({"RUNTIME_DIRECTORY": str(tmp_path)}, lambda: now[0])
    assert service.wait_for_turn()
    service.frame("cpu")
    now[0] = 100.0
    service.waiting()
    assert FailureLog(str(tmp_path)).read().count == 1
    service.frame("cpu")
    assert FailureLog(str(tmp_path)).read() == Failures(0)


def test_the_status_after_a_rest_counts_only_what_was_seen() -> None:
    progress = Progress(None)
    progress.frame(0.0, "cpu")
    progress.rest(1.0)
    statuses = [message["STATUS"] for n in range(301) if "STATUS" in (message := progress.frame(1000 + n / 25, "cpu"))]
    assert statuses == ["the camera is open again, on cpu", "25.0 frames/s on cpu"]


@pytest.mark.parametrize("abstract", [False, True])
def test_messages_reach_the_socket(tmp_path: Path, abstract: bool) -> None:
    systemd = Systemd(f"@fer-edge-{os.getpid()}" if abstract else str(tmp_path / "notify"))
    with closing(Notifier(systemd.address)) as notifier:
        notifier.send(READY="1", STATUS="all\nREADY=well")
    assert systemd.next() == {"READY": "1", "STATUS": "all READY=well"}
    systemd.close()


def test_a_service_that_may_open_no_more_files_still_feeds_the_watchdog(systemd: Systemd) -> None:
    clock = [0.0]
    with Service({"NOTIFY_SOCKET": systemd.address, "WATCHDOG_USEC": "10000000"}, lambda: clock[0]) as service:
        service.frame("cpu")
        assert systemd.next()["READY"] == "1"
        clock[0] = 5.0
        with no_more_files():
            service.frame("cpu")
        assert systemd.next(1) == {"WATCHDOG": "1"}


def test_what_could_not_be_sent_is_sent_a_second_later(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A lost READY=1 would let systemd end a service that works, and so would two lost WATCHDOG=1."""
    clock = [0.0]
    with Service({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "10000000"}, lambda: clock[0]) as service:
        for clock[0] in (0.0, 0.1, 0.9, 1.0):
            service.frame("cpu")
        systemd = Systemd(str(tmp_path / "notify"))
        clock[0] = 1.5
        service.frame("cpu")
        assert systemd.silent()
        clock[0] = 2.0
        service.frame("cpu")
        message = systemd.next(1)
        assert (message["READY"], message["WATCHDOG"]) == ("1", "1")
        assert message["STATUS"].startswith("the first frame has been seen")
        assert caplog.text.count("could not be notified") == 1, "said once"
        systemd.close()


def test_without_a_socket_nothing_is_sent_and_nothing_is_wrong(caplog: pytest.LogCaptureFixture) -> None:
    Notifier(None).send(READY="1")
    assert caplog.text == ""


def test_a_socket_without_a_reader_is_only_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with closing(Notifier(str(tmp_path / "gone"))) as notifier:
        assert not notifier.send(READY="1")
    assert "READY=1" in caplog.text


def test_a_socket_that_nobody_reads_holds_up_nothing_for_long(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    systemd = Systemd(str(tmp_path / "notify"))
    fill(systemd.address)
    notifier = Notifier(systemd.address)
    began = time.monotonic()
    assert not notifier.send(WATCHDOG="1")
    assert time.monotonic() - began < 10
    assert "WATCHDOG=1: timed out" in caplog.text
    while not systemd.silent():
        pass
    assert notifier.send(WATCHDOG="1")
    notifier.close()
    assert systemd.next() == {"WATCHDOG": "1"}, "it works again once the socket is read"
    systemd.close()


def fill(address: str) -> None:
    """Send until the receiver's queue takes no more."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        sender.connect(address)
        for _ in range(100_000):
            try:
                sender.send(b"STATUS=busy")
            except BlockingIOError:
                return
    raise AssertionError("it has no end")


def test_failures_are_remembered_in_the_runtime_directory(tmp_path: Path) -> None:
    log = FailureLog(str(tmp_path))
    assert log.read() == Failures(0)
    log.write(Failures(3, "no camera"))
    assert FailureLog(str(tmp_path)).read() == Failures(3, "no camera")


@pytest.mark.parametrize("stored", [b"", b"{", b'{"count": "many"}', b"\xff"])
def test_a_damaged_memory_of_failures_is_none(tmp_path: Path, stored: bytes) -> None:
    (tmp_path / "failures.json").write_bytes(stored)
    assert FailureLog(str(tmp_path)).read() == Failures(0)


def test_a_runtime_directory_that_is_gone_is_only_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    FailureLog(str(tmp_path / "gone")).write(Failures(1))
    assert "failures.json" in caplog.text


def test_each_start_counts_until_one_lasts(tmp_path: Path) -> None:
    now = [0.0]
    environ = {"RUNTIME_DIRECTORY": str(tmp_path)}
    log = FailureLog(str(tmp_path))
    first = Service(environ)
    assert first.wait_for_turn()
    first.failed(SourceError("no camera"))
    assert log.read() == Failures(1, "no camera")
    second = Service(environ, clock=lambda: now[0])
    assert second.wait_for_turn()
    assert log.read().count == 2
    second.frame("cpu")
    now[0] = 59.0
    second.frame("cpu")
    assert log.read().count == 2
    now[0] = 60.0
    second.frame("cpu")
    assert log.read() == Failures(0)


def test_only_the_first_frame_of_a_service_makes_it_ready(systemd: Systemd) -> None:
    service = Service({"NOTIFY_SOCKET": systemd.address, "WATCHDOG_USEC": "20000000"})
    for _ in range(2):
        service.frame("cpu")
    assert systemd.next().keys() == {"READY", "STATUS", "WATCHDOG"}
    assert systemd.silent()


def test_waiting_is_announced_and_ends_at_once_when_asked_to_stop(tmp_path: Path, systemd: Systemd) -> None:
    log = FailureLog(str(tmp_path))
    log.write(Failures(5, "no camera"))
    service = Service({"RUNTIME_DIRECTORY": str(tmp_path), "NOTIFY_SOCKET": systemd.address})
    threading.Timer(0.2, service.stopping.set).start()
    began = time.monotonic()
    assert not service.wait_for_turn()
    assert time.monotonic() - began < 5
    message = systemd.next()
    assert message["STATUS"] == "waiting 40 s after 5 failures in a row; the last: no camera"
    assert int(message["EXTEND_TIMEOUT_USEC"]) >= 40_000_000
    assert log.read() == Failures(0)


def test_a_fault_has_the_code_that_the_process_ends_with() -> None:
    fault = fault_of(SourceError("no camera"), datetime(2026, 11, 22, 11, 0, tzinfo=UTC))
    assert (fault.code, fault.sentence, fault.time) == (5, "no camera", "2026-11-22T11:00:00+00:00")


def test_a_blank_credential_is_none(tmp_path: Path) -> None:
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert credential({}, "mqtt-password") is None
    assert credential(environ, "mqtt-password") is None
    (tmp_path / "mqtt-password").write_text("\n")
    assert credential(environ, "mqtt-password") is None
    (tmp_path / "mqtt-password").write_text("sesame\n")
    assert credential(environ, "mqtt-password") == tmp_path / "mqtt-password"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_service_cleanly(tmp_path: Path, systemd: Systemd, number: signal.Signals) -> None:
    with start(systemd, "run", "--source", "demo", "--realtime", RUNTIME_DIRECTORY=str(tmp_path)) as process:
        systemd.until("READY")
        began = time.monotonic()
        process.send_signal(number)
        assert systemd.until("STOPPING")["STOPPING"] == "1"
        assert process.wait(10) == 0
        assert time.monotonic() - began < 5
    assert FailureLog(str(tmp_path)).read() == Failures(0)


def test_it_can_ask_itself_to_stop_from_any_thread(systemd: Systemd) -> None:
    with Service({"NOTIFY_SOCKET": systemd.address}) as service:
        threading.Thread(target=service.stop).start()
        assert service.stopping.wait(5)
        assert systemd.until("STOPPING")["STOPPING"] == "1"


@pytest.mark.slow
def test_a_silent_camera_ends_a_service_by_its_own_limit_not_by_the_watchdog(tmp_path: Path, systemd: Systemd) -> None:
    (tmp_path / "config.toml").write_text("[camera]\nstall_seconds = 4.0\n")
    with Mjpeg(lambda: itertools.islice(noisy_pictures(), 60)) as camera:
        words = ("run", "--config", str(tmp_path / "config.toml"), "--source", camera.url)
        with start(systemd, *words, WATCHDOG_USEC="2000000") as process:
            wait_until(lambda: camera.sent >= 60, 30)
            silent_since, fed = time.monotonic(), 0.0
            while "has stalled" not in (message := systemd.next()).get("STATUS", ""):
                if "WATCHDOG" in message:
                    fed = time.monotonic()
            assert process.wait(10) == 10
    assert fed - silent_since > 2.0, "longer than the watchdog waits"


@pytest.mark.slow
def test_by_hand_ctrl_c_still_interrupts() -> None:
    with subprocess.Popen([*FER_EDGE, "run", "--source", "demo", "--realtime"], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130


@pytest.mark.slow
def test_a_main_thread_that_hangs_is_left_behind(systemd: Systemd) -> None:
    hanging = """
import os, threading
from edge.system.systemd import Service
with Service(os.environ) as service:
    service.before_forced_exit(lambda: print("offline", flush=True))
    service.frame("cpu")
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()
"""
    environ = {**os.environ, "NOTIFY_SOCKET": systemd.address}
    with subprocess.Popen([sys.executable, "-c", hanging], env=environ, stdout=subprocess.PIPE, text=True) as process:
        systemd.until("READY")
        began = time.monotonic()
        process.terminate()
        output, _ = process.communicate(timeout=10)
        assert time.monotonic() - began < 5
    assert (process.returncode, output) == (0, "offline\n")


def test_an_error_is_the_status_and_is_remembered(tmp_path: Path, systemd: Systemd) -> None:
    with start(systemd, "run", "--source", "nowhere.mp4", RUNTIME_DIRECTORY=str(tmp_path)) as process:
        assert "nowhere.mp4" in systemd.until("STATUS")["STATUS"]
        assert process.wait(10) == 5
    remembered = FailureLog(str(tmp_path)).read()
    assert remembered.count == 1
    assert "nowhere.mp4" in remembered.sentence
    assert systemd.silent()


class Listener:
    """A subscriber to everything; ``retained`` is what it would find if it came now."""

    def __init__(self, port: int) -> None:
        self.messages: dict[str, list[bytes]] = {}
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = lambda _c, _d, message: self.messages.setdefault(message.topic, []).append(
            message.payload
        )
        self._client.connect("127.0.0.1", port)
        self._client.subscribe("#", qos=1)
        self._client.loop_start()

    def last(self, topic: str) -> bytes | None:
        return self.messages.get(topic, [None])[-1]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def mqtt_config(tmp_path: Path, port: int) -> str:
    file = tmp_path / "config.toml"
    file.write_text(f'[mqtt]\nhost = "127.0.0.1"\nport = {port}\ndevice = "kiosk"\n')
    return str(file)


@pytest.mark.slow
def test_a_fault_is_retained_until_the_service_is_ready(tmp_path: Path, broker: Broker, systemd: Systemd) -> None:
    words = ("run", "--config", mqtt_config(tmp_path, broker.port), "--events", "mqtt", "--source")
    with start(systemd, *words, "nowhere.mp4") as process:
        assert process.wait(20) == 5
    late = Listener(broker.port)
    wait_until(lambda: late.last("fer-edge/kiosk/fault"), 5)
    fault = json.loads(late.last("fer-edge/kiosk/fault") or b"")
    assert fault.keys() == {"code", "sentence", "time"}
    assert fault["code"] == 5
    assert "nowhere.mp4" in fault["sentence"]
    wait_until(lambda: late.last("fer-edge/kiosk/availability") == b"offline", 5)
    with start(systemd, *words, "demo", "--realtime") as process:
        systemd.until("READY")
        wait_until(lambda: late.last("fer-edge/kiosk/fault") == b"", 5)
        process.terminate()
        assert process.wait(10) == 0
    wait_until(lambda: late.last("fer-edge/kiosk/availability") == b"offline", 5)
    late.close()


@pytest.mark.slow
def test_by_hand_no_fault_is_published(tmp_path: Path, broker: Broker) -> None:
    words = ["run", "--config", mqtt_config(tmp_path, broker.port), "--events", "mqtt", "--source", "nowhere.mp4"]
    assert subprocess.run([*FER_EDGE, *words], check=False, stderr=subprocess.PIPE).returncode == 5
    late = Listener(broker.port)
    wait_until(lambda: late.last("fer-edge/kiosk/availability") == b"offline", 5)
    assert late.last("fer-edge/kiosk/fault") is None
    late.close()


@pytest.mark.parametrize("listening", [False, True])
def test_a_fault_waits_no_longer_than_two_seconds_for_a_broker(tmp_path: Path, listening: bool) -> None:
    # A socket that accepts and then sends nothing is worse than a closed port: paho waits for its CONNACK.
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1] if listening else free_port()
        publisher = MqttPublisher(
            MqttSettings(host="127.0.0.1", port=port, device="kiosk"), Outbox(tmp_path / "outbox.db", 10)
        )
        publisher.start()
        began = time.monotonic()
        publisher.faults.set("service", Fault(5, "no camera", "2026-11-22T11:00:00+00:00"))
        assert publisher.close(STOP_SECONDS) == 0, "a fault is no event, and not stored"
        assert time.monotonic() - began < 2.2
