"""Every place where a file or a message of someone else enters, as a function that takes its bytes.

A target may refuse what it gets, with its documented error. Any other exception is a find.
"""

import contextlib
import gzip
import hashlib
import io
import itertools
import json
import lzma
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import msgspec
import numpy as np

from edge.app.recording import events_of
from edge.bench.ground_truth import FaceTruth, FrameTruth, Header, read_truth, write_truth
from edge.camera.address import safe_source, stream_address
from edge.camera.picture_file import read_gray
from edge.camera.sources import is_live, open_source
from edge.cli.reference import sample
from edge.errors import BundleError, DataError, FerEdgeError, SettingsError, SourceError
from edge.evaluation.fer2013 import read_data, read_faces
from edge.events.factory import to_json
from edge.model.archive import read_bundle_archive
from edge.model.bundle import MAX_BYTES, find_bundle, open_bundle
from edge.model.registry import ModelRegistry
from edge.model.tuning import load_tuning
from edge.model.verification import check_preparation
from edge.mqtt.commands import Capabilities, CommandProcessor
from edge.mqtt.messages import Reply
from edge.mqtt.topics import base_topic
from edge.settings import CameraSettings, DetectSettings, load_settings
from edge.system.state import StateStore
from edge.vision.detectors import open_detector
from tests.conftest import PORTRAIT
from tests.edge.fuzzing import RECORDING, zip_of
from tests.edge.hostile_files import jpeg, mjpeg_avi

Command = tuple[str, bytes, bool]

BUNDLE: Final = find_bundle("student-small")
_MODEL: Final = b"what a card states the hash of"  # no target reads a network: this is faster
CARD: Final = msgspec.json.encode(
    msgspec.json.decode((BUNDLE / "card.json").read_bytes()) | {"sha256": hashlib.sha256(_MODEL).hexdigest()}
)
GOLDEN: Final = (BUNDLE / "golden.npz").read_bytes()
SMALL_ZIP: Final = zip_of([(f"b/{name}", name.encode() * 40) for name in MAX_BYTES])
_SMALL_ENOUGH: Final = 10**6  # pixels; the detector takes long for more


@dataclass(frozen=True)
class Target:
    """``run`` takes the bytes and a folder to work in; ``seeds`` are valid inputs, ``words`` what belongs into them.

    ``share`` says how many of 1,000 cases it gets.
    """

    what: str
    error: type[FerEdgeError]
    run: Callable[[bytes, Path], object]
    seeds: Sequence[bytes]
    words: Sequence[bytes]
    share: int


def _write(folder: Path, name: str, content: bytes) -> Path:
    file = folder / name
    file.write_bytes(content)
    return file


def read_settings(content: bytes, folder: Path) -> None:
    """Load a settings file, and use what every command derives from it."""
    loaded = load_settings(_write(folder, "config.toml", content))
    assert base_topic(loaded.mqtt)
    with contextlib.suppress(SourceError):
        is_live(loaded.camera)


def _bundle(folder: Path) -> Path:
    copied = folder / "bundle"
    if not copied.exists():
        copied.mkdir()
        for name, content in {"card.json": CARD, "golden.npz": GOLDEN, "model.tflite": _MODEL}.items():
            _write(copied, name, content)
    return copied


def read_card(content: bytes, folder: Path) -> None:
    """Open a bundle with this card."""
    bundle = _bundle(folder)
    _write(bundle, "golden.npz", GOLDEN)
    _write(bundle, "card.json", content)
    open_bundle(bundle)


_PART: Final = b"--part "


def _unpacked(npz: bytes) -> bytes:
    """The parts of a zip, each after a line with its name; damaged, they can be packed again with right checksums."""
    with zipfile.ZipFile(io.BytesIO(npz)) as archive:
        return b"".join(_PART + name.encode() + b"\n" + archive.read(name) for name in archive.namelist())


def _packed(parts: bytes) -> bytes:
    """A zip of what _unpacked gives; anything else as it is."""
    if not parts.startswith(_PART):
        return parts
    named = [part.partition(b"\n") for part in parts.split(_PART)[1:]]
    return zip_of([(name.decode(errors="replace").replace("\0", "") or "_", content) for name, _, content in named])


def read_golden(content: bytes, folder: Path) -> None:
    """Open a bundle with these golden outputs, and prepare its scene."""
    bundle = _bundle(folder)
    _write(bundle, "card.json", CARD)
    _write(bundle, "golden.npz", _packed(content))
    scene = open_bundle(bundle).golden.scene
    assert all(levels >= 0 for levels in check_preparation(scene, scene.margin))


def read_zip(content: bytes, folder: Path) -> None:
    """Read a bundle's zip; nothing appears beside it."""
    file = _write(folder, "bundle.zip", _packed(content))
    before = sorted(folder.iterdir())
    try:
        assert set(read_bundle_archive(file)) <= set(MAX_BYTES)
    finally:
        assert sorted(folder.iterdir()) == before


def obey(commands: Sequence[Command], folder: Path) -> list[Reply]:
    """Receive commands, each with its payload and whether it was retained; returns the replies."""
    replies: list[Reply] = []
    seconds = itertools.count(step=100)
    capabilities = Capabilities(True, lambda: None, lambda: open_bundle(_bundle(folder)))
    store = StateStore(folder / "kept", "kiosk")
    processor = CommandProcessor(store, capabilities, replies.append, lambda: float(next(seconds)))
    for name, payload, retained in commands:
        processor.receive(name, payload, retained)
        processor.camera_is_open()
        processor.camera_is_closed()
    for reply in replies:
        assert reply.ok or (reply.error and reply.sentence)
        msgspec.json.decode(msgspec.json.encode(reply), type=Reply)
    return replies


def receive_commands(content: bytes, folder: Path) -> None:
    """Receive a command from each of a few lines: its name, a space, its payload. Every second one was retained."""
    lines = [line.partition(b" ") for line in content.split(b"\n")[:4]]
    names = [name.decode(errors="replace") for name, _, _ in lines]
    replies = obey(
        [(name, payload, len(payload) % 2 == 1) for name, (_, _, payload) in zip(names, lines, strict=True)], folder
    )
    if not any(reply.ok for reply in replies):
        raise FerEdgeError("no command was obeyed")


def replay(content: bytes, folder: Path) -> None:
    """Replay a recording."""
    for event in events_of(_write(folder, "visit.jsonl", content)):
        to_json(event)


def read_ground_truth(content: bytes, folder: Path) -> None:
    """Read a clip's ground truth."""
    read_truth(_write(folder, "clip.truth.jsonl", content))


def detect_in_picture(content: bytes, folder: Path) -> None:
    """Read a picture, and detect faces in it."""
    gray = read_gray(_write(folder, "picture.jpg", content))
    assert (gray.ndim, gray.dtype) == (2, np.uint8)
    if gray.size < _SMALL_ENOUGH:
        _DETECTOR.detect(gray)


_DETECTOR: Final = open_detector(DetectSettings(min_face=0.2))


def play_video(content: bytes, folder: Path) -> None:
    """Play twenty frames of a video."""
    source = open_source(CameraSettings(source=str(_write(folder, "video.avi", content))))
    try:
        times = [frame.time for frame in itertools.islice(source.frames(), 20)]
    finally:
        source.close()
    assert times == sorted(times)
    assert all(later - earlier < 3601 for earlier, later in itertools.pairwise(times))


def read_labelled_faces(content: bytes, folder: Path) -> None:
    """Read one split, or all, of a table of labelled faces."""
    file = _write(folder, "fer2013.csv", content)
    if len(content) % 2:
        read_data(file)
    else:
        read_faces(file, "PublicTest")


def name_source(content: bytes, folder: Path) -> None:
    """Use a text as the name of a source."""
    camera = CameraSettings(source=content.decode(errors="surrogateescape").replace("\0", ""))
    safe_source(camera.source)
    is_live(camera)
    stream_address(camera)


def read_state(content: bytes, folder: Path) -> None:
    """Start with this state file, this choice of a model and this tuning; damage keeps the camera shut."""
    _write(folder, "kiosk.state.json", content)
    store = StateStore(folder, "kiosk")
    assert store.state.paused or not store.damage
    (folder / "models").mkdir(exist_ok=True)
    _write(folder / "models", "choice.json", content)
    _write(folder, "verdict.json", content)
    assert ModelRegistry(folder).candidates()[-1].name == ""
    _write(folder, "tuned.json", content)
    load_tuning(folder, _STUDENT)


_STUDENT: Final = open_bundle(BUNDLE)


def _csv() -> bytes:
    rng = np.random.default_rng(3)
    rows = [
        f"{n % 7},{' '.join(map(str, rng.integers(0, 256, 2304)))},{usage}"
        for n, usage in enumerate(("Training", "PublicTest", "PrivateTest"))
    ]
    return "\n".join(["emotion,pixels,Usage", *rows, ""]).encode()


CSV: Final = _csv()
PACKED: Final = [gzip.compress(CSV), lzma.compress(CSV), zip_of([("fer2013.csv", CSV)])]


def _encoded(form: str) -> bytes:
    portrait = cv2.imread(str(PORTRAIT), cv2.IMREAD_GRAYSCALE if form == ".pgm" else cv2.IMREAD_COLOR)
    assert portrait is not None
    return bytes(cv2.imencode(form, cv2.resize(portrait, (96, 72)))[1].tobytes())


PICTURES: Final = [_encoded(form) for form in (".jpg", ".png", ".bmp", ".pgm", ".webp", ".tiff", ".jp2", ".ras")]


def _truth() -> bytes:
    header = Header("fer-edge truth 1", "clip.avi", 2, 640, 480, 25.0, 1)
    frames = [FrameTruth(n, (FaceTruth(1, (9, 9, 80, 80), 1.0, "happy"),)) for n in range(2)]
    file = Path("/dev/shm/fuzz-truth.jsonl") if Path("/dev/shm").is_dir() else Path("fuzz-truth.jsonl")
    write_truth(file, header, frames)
    try:
        return file.read_bytes()
    finally:
        file.unlink()


def _text(*words: str) -> list[bytes]:
    return [word.encode() for word in words]


_NUMBERS: Final = ("-1", "0", "1e308", "1e-320", "nan", "inf", "9" * 400, "-0.0", "4294967296", "1e9", "null", "true")
_JSON: Final = (*_NUMBERS, "[" * 1200, '{"a":' * 1100, '"\\ud800"', '"\\u0000"', "{}", "[]", '""', ",", ":", "\\")
_KEYS: Final = [line.partition(" ")[0].lstrip("#") for line in sample().splitlines() if " = " in line]
_ALL_SETTINGS: Final = "\n".join(
    line.removeprefix("#")
    for line in sample().splitlines()
    if line.startswith("[") or (line[:1] == "#" and " = " in line and line[1:2] != " ")
).encode()
_SOME_SETTINGS: Final = (
    b'[camera]\nsource = "demo"\nsize = [640, 480]\n[events]\nsmoothing = "card"\ndwell = 0.5\n'
    b'[mqtt]\nhost = "broker"\nport = 1883\n[[preset]]\nname = "smile"\nexpression = "happy"\nfor_seconds = 1.5\n'
)
_STATE: Final = json.dumps({"paused": True, "discovery": "homeassistant/device/kiosk/config"}).encode()
_CHOICE: Final = b'{"current":"mine-0123456789ab","previous":"","number":3,"lasted":true,"sentence":""}'
_SOURCES: Final = _text(
    "rtsp://admin:SECRET@10.0.0.7:554/s?a=b", "https://u:SECRET@cam.local/v", "picamera2:1", "a.mp4"
)
_ADDRESS: Final = _text(
    "://", "@", ":", "[", "]", "%", "#", "?", "/", "\\", "//", "..", "::1", "%00", "a" * 300, " ", ";"
)

TARGETS: Final = {
    "settings": Target("settings files", SettingsError, read_settings, [_ALL_SETTINGS, _SOME_SETTINGS],
                       _text(*_KEYS, *_NUMBERS, "[" * 1200, "a." * 150, "[mqtt]", "[[preset]]", '"', " = ", "\n"), 140),
    "card": Target("`card.json` of a bundle", BundleError, read_card, [CARD], _text(*_JSON), 90),
    "golden": Target("`golden.npz` of a bundle", BundleError, read_golden, [GOLDEN, *[_unpacked(GOLDEN)] * 3],
                     _text("PK\1\2", "PK\3\4", "\xff\xff", "<f8", "|u1", "|O", "(9, 48, 48)", "{", "}", "9" * 400), 40),
    "zip": Target("zips of bundles", BundleError, read_zip, [SMALL_ZIP, _unpacked(SMALL_ZIP)],
                  _text("../", "PK\1\2", "PK\3\4", "PK\5\6", "card.json", "\\", "C:", "\xff\xff\xff\xff"), 110),
    "command": Target("MQTT commands", FerEdgeError, receive_commands,
                      [b'pause {"on":true,"id":"42"}\npause {"on":false}\nverify {"id":"a"}\nreload {}'],
                      _text(*_JSON, "\n"), 110),
    "recording": Target("recordings", SourceError, replay, [RECORDING], _text(*_JSON, "\n"), 130),
    "truth": Target("ground truth of clips", DataError, read_ground_truth, [_truth()], _text(*_JSON, "\n"), 90),
    "picture": Target("pictures in eight formats", SourceError, detect_in_picture, PICTURES,
                      [b"\xff\xff\xff\xff", b"\x7f\xff"], 60),
    "video": Target("videos (AVI with MJPEG)", SourceError, play_video, [mjpeg_avi([jpeg(96, 72)] * 5, 96, 72)],
                    [b"\xff\xff\xff\xff", b"\x7f\xff", b"LIST", b"00dc"], 10),
    "faces": Target("labelled faces, plain and packed", DataError, read_labelled_faces, [CSV, *PACKED],
                    _text(*_NUMBERS, '"', "\n", ",", "\0", "PublicTest", "emotion", "happy"), 80),
    "source": Target("names and addresses of cameras", SourceError, name_source, _SOURCES, _ADDRESS, 100),
    "state": Target("state, choice and tuning files", FerEdgeError, read_state, [_STATE, _CHOICE], _text(*_JSON), 40),
}  # fmt: skip
"""By name. The shares add up to 1,000."""
