"""The kinds of faults of a soak, as data."""

from dataclasses import dataclass
from typing import Final, Literal

Lane = Literal["network", "peer", "device", "clock", "operator"]

LANES: Final[tuple[Lane, ...]] = ("network", "peer", "device", "clock", "operator")


@dataclass(frozen=True)
class Kind:
    """A kind of fault. Faults of one lane come one after another, those of different lanes at the same time.

    ``hold`` are the fewest and the most seconds that it lasts. ``calm`` and ``wild`` are its relative frequencies in
    the storm's two parts. The first part has only faults that a process must survive, so that its memory can be
    observed; the second part has all kinds.
    """

    lane: Lane
    hold: tuple[float, float]
    calm: float
    wild: float
    about: str


_AT_ONCE: Final = (0.0, 0.0)
_SHORT: Final = (0.1, 0.6)

_NETWORK: Final = {
    "network-cut": Kind("network", (0.0, 2.0), 0.5, 2, "every connection breaks, and none is made for a while"),
    "network-refused": Kind("network", (0.5, 3.0), 0, 1, "the broker's port refuses connections"),
    "network-blackhole": Kind("network", (0.5, 3.0), 0, 1, "what is sent disappears, in one direction or both"),
    "network-slow": Kind("network", (0.5, 3.0), 0.3, 1, "every packet is half a second late"),
    "broker-restart": Kind("network", (0.0, 2.0), 0, 1, "the broker ends in order, and starts again"),
    "broker-kill": Kind("network", (0.0, 2.0), 0, 1, "the broker is killed by SIGKILL, and starts again"),
    "broker-frozen": Kind("network", (0.5, 4.0), 0.3, 1, "the broker is stopped by SIGSTOP, and goes on"),
    "broker-garbage": Kind("network", _AT_ONCE, 0, 1, "the broker sends malformed packets"),
    "broker-endless": Kind("network", (0.2, 1.0), 0, 1, "the broker sends a packet of 256 MB that never ends"),
    "broker-goodbye": Kind("network", _AT_ONCE, 0, 1, "the broker disconnects the device for many reasons"),
    "wrong-password": Kind("network", (0.5, 3.0), 0, 1, "the broker refuses the device until its password is right"),
    "retained-commands": Kind(
        "network", _AT_ONCE, 0, 1, "commands are retained at the broker when the device connects"
    ),
    "outbox-full": Kind("network", _AT_ONCE, 0, 0.25, "the broker is away until events are dropped, or for a minute"),
}

_PEER: Final = {
    "broker-topics": Kind("peer", _SHORT, 6, 8, "the broker sends topics that are not UTF-8, absurd or empty"),
    "broker-payload": Kind("peer", _SHORT, 3, 5, "the broker sends commands of 1 MB"),
    "broker-answers": Kind("peer", _SHORT, 6, 8, "the broker acknowledges what was never sent"),
    "broker-pings": Kind("peer", _SHORT, 4, 5, "the broker sends 2,000 answers to pings"),
    "page-half-requests": Kind("peer", _SHORT, 5, 7, "requests to the metrics page that never end"),
    "page-slow-readers": Kind("peer", _SHORT, 5, 7, "clients of the metrics page that do not read"),
    "page-garbage": Kind("peer", _SHORT, 6, 8, "requests to the metrics page that are no HTTP"),
    "page-resets": Kind("peer", _SHORT, 5, 7, "connections to the metrics page that are reset"),
}

_CAMERA: Final = {
    "camera-gone": Kind("device", (0.2, 1.0), 0, 0.35, "the camera hangs up, and cannot be opened"),
    "camera-stalled": Kind("device", (0.2, 1.0), 0, 0.21, "the camera sends nothing more"),
    "camera-frozen": Kind("device", (0.2, 1.0), 0, 0.21, "the camera sends one picture again and again"),
    "camera-trickles": Kind("device", (0.2, 1.0), 0, 0.21, "the camera sends some bytes a second"),
    "camera-cuts": Kind("device", (0.2, 1.0), 0, 0.28, "the camera hangs up within each picture"),
    "camera-endless": Kind("device", (0.0, 0.2), 0, 0.21, "the camera sends a picture without end"),
    "camera-no-video": Kind("device", (0.2, 1.0), 0, 0.28, "the camera's address gives a page of text"),
    "camera-refuses": Kind("device", (0.2, 1.0), 0, 0.28, "the camera's address gives errors of HTTP"),
    "camera-corrupt": Kind("device", (0.5, 2.0), 0, 0.7, "the camera's pictures are damaged"),
    "camera-resized": Kind("device", (0.5, 2.0), 0, 0.42, "the camera's pictures change their size"),
}

_DEVICE: Final = {
    "tpu-vanishes": Kind("device", (0.2, 1.0), 0, 0.42, "the Edge TPU (a stand-in) fails while it computes"),
    "tpu-hangs": Kind("device", (0.0, 0.5), 0, 0.14, "the Edge TPU never returns: the watchdog ends the process"),
    "tpu-crashes": Kind("device", (0.2, 1.0), 0, 0.21, "the Edge TPU's library aborts the process that opens it"),
    "tpu-wrong": Kind("device", (0.2, 1.0), 0, 0.21, "the Edge TPU computes something else"),
    "disk-full": Kind("device", (0.5, 3.0), 4, 1.4, "no byte is left on the state's disk"),
    "disk-hangs": Kind("device", (0.2, 3.0), 3, 1.4, "every write to the disk blocks"),
    "files-exhausted": Kind("device", (0.5, 3.0), 3, 1.4, "the process may open no file or connection more"),
    "run-vanishes": Kind("device", _AT_ONCE, 1, 0.35, "the folder in /run is removed"),
    "second-process": Kind("device", _AT_ONCE, 0.7, 0.28, "fer-edge run is started a second time"),
    "stopped": Kind("device", (0.5, 3.0), 3, 1.05, "SIGSTOP for less than the watchdog allows"),
    "hangs": Kind("device", _AT_ONCE, 0, 0.21, "SIGSTOP, until the watchdog ends the process"),
    "terminated": Kind("device", _AT_ONCE, 0, 0.49, "SIGTERM"),
    "kill": Kind("device", _AT_ONCE, 0, 1.4, "SIGKILL; every other time /run is emptied too"),
    "settings-broken": Kind("device", (0.1, 0.5), 0, 0.28, "settings that cannot be read, for a reload and a start"),
    "settings-changed": Kind("device", _AT_ONCE, 0, 0.28, "other settings at the next start"),
}

_STORAGE: Final = {
    "outbox-flips": Kind("device", _AT_ONCE, 0, 0.7, "bits flip in the outbox's file before the next start"),
    "outbox-lost": Kind("device", _AT_ONCE, 0, 0.42, "the outbox's file is cut, emptied or deleted"),
    "log-flips": Kind("device", _AT_ONCE, 0, 0.7, "bits flip in SQLite's log"),
    "log-lost": Kind("device", _AT_ONCE, 0, 0.42, "SQLite's log is cut, emptied or deleted"),
    "inventory-flips": Kind("device", _AT_ONCE, 0, 0.35, "bits flip in the outbox's inventory"),
    "inventory-lost": Kind("device", _AT_ONCE, 0, 0.28, "the outbox's inventory is cut, emptied or deleted"),
    "state-flips": Kind("device", _AT_ONCE, 0, 0.49, "bits flip in the kept pause, or its copy"),
    "state-lost": Kind("device", _AT_ONCE, 0, 0.35, "the kept pause, or its copy, is cut, emptied or deleted"),
    "record-flips": Kind("device", _AT_ONCE, 0, 0.28, "bits flip in the device's record"),
    "record-lost": Kind("device", _AT_ONCE, 0, 0.21, "the device's record is cut, emptied or deleted"),
    "tuning-flips": Kind("device", _AT_ONCE, 0, 0.28, "bits flip in the file of the tuning"),
    "files-linked": Kind("device", (0.2, 1.0), 0, 0.35, "a file of the state folder is swapped for a link"),
}

_MODELS: Final = {
    "model-rots": Kind("device", (0.2, 1.0), 0, 0.28, "a bit of the configured network flips before the next start"),
    "installed-rots": Kind("device", _AT_ONCE, 0, 0.28, "bits flip in a file of the installed model"),
    "installed-lost": Kind("device", _AT_ONCE, 0, 0.21, "the installed model is removed"),
    "choice-flips": Kind("device", _AT_ONCE, 0, 0.28, "bits flip in the file that says which model is in use"),
    "choice-lost": Kind("device", _AT_ONCE, 0, 0.21, "the file that says which model is in use is damaged or deleted"),
    "models-linked": Kind(
        "device", _AT_ONCE, 0.3, 0.4, "the service's user swaps the models for links, and root installs"
    ),
}

_CLOCK: Final = {
    "clock-back": Kind("clock", _SHORT, 11, 17, "the wall clock is set back, up to a year"),
    "clock-forward": Kind("clock", _SHORT, 11, 17, "the wall clock is set forward, up to a year"),
}

_OPERATOR: Final = {
    "bad-command": Kind("operator", _AT_ONCE, 15, 20, "MQTT commands that are unknown, malformed or huge"),
    "command-flood": Kind("operator", _AT_ONCE, 3, 5, "twenty commands at once"),
    "verify": Kind("operator", _AT_ONCE, 3, 4, "a command to compute the golden outputs"),
    "pause": Kind("operator", (0.2, 2.0), 4, 8, "the camera is closed by a command, and opened again"),
    "bad-bundle": Kind("operator", _AT_ONCE, 0.6, 0.8, "fer-edge model install of a bundle that must be refused"),
}

KINDS: Final[dict[str, Kind]] = {
    **_NETWORK, **_PEER, **_CAMERA, **_DEVICE, **_STORAGE, **_MODELS, **_CLOCK, **_OPERATOR
}  # fmt: skip

DAMAGING: Final = frozenset({"outbox-flips", "outbox-lost", "log-flips", "log-lost"})
"""Those that may lose committed events, which the device then has to count."""
