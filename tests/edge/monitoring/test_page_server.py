"""The metrics page under clients that connect and send nothing, half a request, or a byte now and then."""

import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import pytest

from edge.monitoring.counters import RunCounters
from edge.monitoring.page_server import MAX_CONNECTIONS, PageServer
from edge.monitoring.prometheus import PrometheusExporter
from edge.settings import MetricsSettings
from tests.conftest import free_port, no_more_files

HALF_REQUEST = b"GET /metrics HTTP/1.1\r\nHost: kiosk\r\n"


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("sent", [b"", HALF_REQUEST])
def test_idle_connections_take_few_files_and_the_page_stays(sent: bytes) -> None:
    settings = MetricsSettings(enabled=True, port=free_port())
    before = open_files()
    with closing(PrometheusExporter(settings, RunCounters())), ExitStack() as idle:
        for _ in range(60):
            idle.enter_context(socket.create_connection(("127.0.0.1", settings.port))).sendall(sent)
        with urllib.request.urlopen(f"http://127.0.0.1:{settings.port}/metrics", timeout=5) as page:
            assert b"fer_edge_frames_total" in page.read()
        assert open_files() - before - 60 <= MAX_CONNECTIONS + 3
        assert threading.active_count() < 60


@contextmanager
def serving(seconds: float, app: Callable[..., list[bytes]]) -> Iterator[tuple[str, int]]:
    server = PageServer("127.0.0.1", 0, seconds)
    server.set_app(app)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield "127.0.0.1", server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_start_waits_for_no_name_server() -> None:
    server = PageServer("127.0.0.1", 0)
    server.server_close()
    assert server.server_name == "127.0.0.1"  # a lookup would give a name


def test_a_request_that_never_ends_is_closed_in_time() -> None:
    with serving(0.3, lambda *_: [b""]) as where, socket.create_connection(where, timeout=5) as slow:
        began = time.monotonic()
        slow.sendall(HALF_REQUEST)
        with suppress(OSError):  # reset or broken pipe
            while time.monotonic() - began < 5:
                slow.sendall(b"x")
                time.sleep(0.02)
        assert 0.2 < time.monotonic() - began < 3


def test_an_answer_that_nobody_takes_is_closed_in_time() -> None:
    ended = threading.Event()

    def endless(_environ: object, start_response: Callable[..., object]) -> Iterator[bytes]:
        start_response("200 OK", [])
        try:
            while True:
                yield b"x" * 65536
        finally:
            ended.set()

    with serving(0.3, endless) as where, socket.create_connection(where) as deaf:  # type: ignore[arg-type]
        deaf.sendall(HALF_REQUEST + b"\r\n")
        assert ended.wait(5)


def test_hostile_requests_write_nothing_to_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    settings = MetricsSettings(enabled=True, port=free_port())
    requests = (
        b"\xff" * 100 + b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /?" + b"&" * 9000 + b" HTTP/1.1\r\n\r\n",
        HALF_REQUEST,
    )
    with closing(PrometheusExporter(settings, RunCounters())):
        for request in requests:
            with socket.create_connection(("127.0.0.1", settings.port)) as client:
                client.sendall(request)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                time.sleep(0.02)
    assert capfd.readouterr().err == ""


def test_a_connection_that_no_file_is_left_for_takes_no_cpu_time_and_is_served_later() -> None:
    with serving(5, lambda _environ, start: [start("200 OK", []) and b""]) as where, socket.socket() as client:
        with no_more_files():
            client.connect(where)
            before = time.process_time()
            time.sleep(1)
            assert time.process_time() - before < 0.05
        client.settimeout(5)
        client.sendall(HALF_REQUEST + b"\r\n")
        assert client.recv(12) == b"HTTP/1.0 200"


@pytest.mark.skipif(os.getuid() != 0, reason="becoming a user without processes needs root")
def test_a_system_without_more_threads_closes_connections_and_logs_nothing() -> None:
    script = (
        "import os, resource, socket, threading\n"
        "from edge.monitoring.page_server import PageServer\n"
        "server = PageServer('127.0.0.1', 0)\n"
        "threading.Thread(target=server.serve_forever, daemon=True).start()\n"
        "os.setresuid(*3 * [54321])\n"
        "resource.setrlimit(resource.RLIMIT_NPROC, 2 * [len(os.listdir('/proc/self/task')) + 1])\n"
        "for _ in range(6):\n"
        "    with socket.create_connection(('127.0.0.1', server.server_port), 5) as client:\n"
        "        print(client.recv(1))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, 6 * "b''\n", "")
