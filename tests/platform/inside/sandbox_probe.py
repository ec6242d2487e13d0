"""Runs in the unit's sandbox: tries what the sandbox should allow or deny, and writes the outcomes as JSON."""

import ctypes
import errno
import json
import os
import pathlib
import socket
import time
from collections.abc import Callable

FILES = (
    *("/var/lib/fer-edge/probe", "/run/fer-edge/probe", "/var/lib/probe", "/etc/fer-edge/config.toml"),
    *("/usr/probe", "/opt/fer-edge/probe", "/var/log/probe", "/var/cache/probe", "/srv/probe", "/home/probe"),
    *("/root/probe", "/tmp/probe", "/var/tmp/probe"),
)


def attempt(action: Callable[[], object]) -> str:
    """The name of the system's error, or ``done``."""
    try:
        action()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"


def mount() -> None:
    if ctypes.CDLL(None, use_errno=True).mount(b"none", b"/mnt", b"tmpfs", 0, None):
        raise OSError(ctypes.get_errno(), "mount")


def ask_clock() -> None:
    if ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(256)) == -1:
        raise OSError(ctypes.get_errno(), "adjtimex")


def call_back() -> None:
    ctypes.CFUNCTYPE(None)(lambda: None)()


process = pathlib.Path("/proc/self/status").read_text()
outcomes = {
    "devices": {
        name: attempt(lambda name=name: os.close(os.open(f"/dev/{name}", os.O_RDWR))) for name in ("null", "forbidden")
    },
    "writes": {file: attempt(lambda file=file: pathlib.Path(file).write_text("x")) for file in FILES},
    "user": os.getuid(),
    "groups": sorted(os.getgroups()),
    "packet_socket": attempt(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)),
    "mount": attempt(mount),
    "ask_clock": attempt(ask_clock),
    "set_clock": attempt(lambda: time.clock_settime(time.CLOCK_REALTIME, time.time())),
    "callback": attempt(call_back),
    "no_new_privileges": "NoNewPrivs:\t1" in process,
    "capabilities": [line.split()[1] for line in process.splitlines() if line.startswith("CapBnd")],
}
pathlib.Path("/run/fer-edge/probe.json").write_text(json.dumps(outcomes))
