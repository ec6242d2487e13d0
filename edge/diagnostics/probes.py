"""Probes: what the doctor runs in a child process, because a camera or network may hang and a library may crash.

``python -m edge.diagnostics.probes NAME`` runs the function of that name with the JSON on standard input, or with a
second argument, which must be no secret. It prints one JSON object a line. A FerEdgeError ends it with the error's exit
code, and with its sentence on stderr.
"""

import ctypes
import importlib
import importlib.util
import itertools
import json
import os
import signal
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import paho.mqtt.client as paho
from paho.mqtt.reasoncodes import ReasonCode

from edge.errors import AcceleratorError
from edge.model.edgetpu_trial import TRIAL_SECONDS
from edge.settings import CameraSettings, DetectSettings, ModelSettings, MqttSettings
from edge.system.memory_dump import forbid_memory_dumps
from edge.system.owner_rights import become_owner
from edge.system.shutdown import guarded

_Kind = TypeVar("_Kind")

_ANSWER_SECONDS: Final = 5
_SETTLING_FRAMES: Final = 10
_MEASURED_SECONDS: Final = 0.5
_DISTRIBUTIONS: Final = {
    "numpy": "numpy",
    "cv2": "opencv-python-headless",
    "ai_edge_litert.interpreter": "ai-edge-litert",
    "tflite_runtime.interpreter": "tflite-runtime",
    "picamera2": "picamera2",
    "prometheus_client": "prometheus-client",
}


def imports(_argument: str) -> None:
    """Import all installed packages into this process.

    Each is printed before the import, so that a crash has a name, and with its version after it.
    """
    for module, distribution in _DISTRIBUTIONS.items():
        package = module.partition(".")[0]
        if importlib.util.find_spec(package) and not (package == "tflite_runtime" and _has_litert()):
            _print_json({"importing": distribution})
            importlib.import_module(module)
            _print_json({"imported": distribution, "version": _version(distribution)})


def frame(argument: str) -> None:
    """Open the source of these camera settings and take the tenth frame, because many cameras begin too dark.

    The frame rate of a camera is measured after that.
    """
    from edge.camera.sources import open_source  # noqa: PLC0415  `imports` must run when OpenCV is broken

    source = open_source(_given(argument, CameraSettings))
    frames = source.frames()
    *_, settled = itertools.islice(frames, _SETTLING_FRAMES)
    gray = settled.gray
    _print_json(
        {
            "width": gray.shape[1],
            "height": gray.shape[0],
            "darkest": int(gray.min()),
            "brightest": int(gray.max()),
            "description": source.description,
            "fps": _frame_rate(settled.time, (frame.time for frame in frames)) if source.live else None,
        }
    )
    os._exit(0)  # closing a camera that hangs may never return


def _frame_rate(start: float, times: Iterator[float]) -> float:
    """Frames per second after ``start``, over half a second or, of a slower camera, one frame."""
    for count, time_now in enumerate(times, start=1):
        if time_now - start >= _MEASURED_SECONDS:
            return count / (time_now - start)
    return 0.0


def detector(argument: str) -> None:
    """Open the face detector of these settings, and let it search a grey picture."""
    import numpy as np  # noqa: PLC0415

    from edge.vision.detectors import open_detector  # noqa: PLC0415

    settings = _given(argument, DetectSettings)
    if settings.model:
        become_owner(Path(settings.model))
    opened = open_detector(settings)
    _print_json({"faces": len(opened.detect(np.full((120, 160), 128, np.uint8)))})


def golden(argument: str) -> None:
    """Open the bundle of these model settings, and judge its golden outputs and preparation as a start does."""
    from edge.model.bundle import find_bundle, open_bundle  # noqa: PLC0415
    from edge.model.classifier import Classifier  # noqa: PLC0415
    from edge.model.loader import become_network_owner  # noqa: PLC0415
    from edge.model.verification import verify_golden  # noqa: PLC0415

    settings = _given(argument, ModelSettings)
    folder = find_bundle(settings.bundle)
    become_network_owner(folder)
    bundle = open_bundle(folder)
    _print_json(msgspec.to_builtins(verify_golden(Classifier(bundle, settings.threads or 1), bundle.golden)))


def edgetpu(argument: str) -> None:
    """Try the Edge TPU with the bundle of these model settings."""
    from edge.model.bundle import find_bundle, open_bundle  # noqa: PLC0415
    from edge.model.edgetpu import run_trial  # noqa: PLC0415
    from edge.model.loader import become_network_owner  # noqa: PLC0415

    signal.alarm(2 * TRIAL_SECONDS)  # the parent may be gone, and a driver that hangs would keep this process for ever
    settings = _given(argument, ModelSettings)
    folder = find_bundle(settings.bundle)
    become_network_owner(folder)
    run_trial(open_bundle(folder), settings.edgetpu_library, _print_json)
    os._exit(0)  # closing a device may hang as well


def coral(argument: str) -> None:
    """Load the Edge TPU library of this name. Print its version, and the devices that pycoral lists, if installed."""
    try:
        library = ctypes.CDLL(_given(argument, str))
    except OSError as error:
        raise AcceleratorError(str(error)) from error
    _print_json({})
    if hasattr(library, "edgetpu_version"):
        library.edgetpu_version.restype = ctypes.c_char_p
        _print_json({"version": library.edgetpu_version().decode(errors="replace")})
    if importlib.util.find_spec("pycoral"):
        try:
            listing = importlib.import_module("pycoral.utils.edgetpu")
        except ImportError:  # PyPI's pycoral is another program
            return
        _print_json({"devices": [str(device["path"]) for device in listing.list_edge_tpus()]})


def broker(argument: str) -> None:
    """Connect to the broker of these MQTT settings and print the outcome."""
    from edge.mqtt.connection import new_client  # noqa: PLC0415
    from edge.mqtt.topics import client_id  # noqa: PLC0415

    settings = _given(argument, MqttSettings)
    # It needs its own client id: with the service's, the broker would disconnect the running service.
    client = new_client(settings, f"{client_id(settings)}-doctor")
    outcome, detail, code = _connect(client, settings)
    _print_json({"outcome": outcome, "detail": detail, "code": code})


def _connect(client: paho.Client, settings: MqttSettings) -> tuple[str, str, int]:
    """Connect and disconnect.

    Returns the outcome (accepted, refused, silent, tls or unreachable), its detail, and the broker's reason code.
    """
    reasons: list[ReasonCode] = []
    client.on_connect = lambda _client, _data, _flags, reason, _properties: reasons.append(reason)
    client.connect_timeout = _ANSWER_SECONDS
    try:
        client.connect(settings.host, settings.port, keepalive=_ANSWER_SECONDS)  # limits the TLS handshake too
    except (ssl.SSLError, ConnectionResetError) as error:
        return "tls", str(error), 0
    except OSError as error:
        return "unreachable", error.strerror or str(error), 0
    deadline = time.monotonic() + _ANSWER_SECONDS
    while not reasons and time.monotonic() < deadline and client.loop(0.1) == paho.MQTT_ERR_SUCCESS:
        pass
    client.disconnect()
    if not reasons:
        return "silent", "", 0
    return ("refused" if reasons[0].is_failure else "accepted"), str(reasons[0]), int(reasons[0].value)


def _given(argument: str, kind: type[_Kind]) -> _Kind:
    """What a probe is given as JSON."""
    return msgspec.convert(json.loads(argument), kind)


def _has_litert() -> bool:
    """Whether the runtime that edge.model.classifier prefers is installed."""
    return importlib.util.find_spec("ai_edge_litert") is not None


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:  # a package of Debian's, such as its OpenCV, is no Python distribution
        return "?"


def _print_json(values: dict[str, object]) -> None:
    print(json.dumps(values), flush=True)


def _main(name: str, argument: str) -> int:
    probes: tuple[Callable[[str], None], ...] = (imports, frame, detector, golden, edgetpu, coral, broker)
    {probe.__name__: probe for probe in probes}[name](argument)
    return 0


if __name__ == "__main__":
    forbid_memory_dumps()  # a child does not inherit it
    given = sys.argv[2] if len(sys.argv) > 2 else sys.stdin.read()
    sys.exit(guarded("probe", lambda: _main(sys.argv[1], given)))
