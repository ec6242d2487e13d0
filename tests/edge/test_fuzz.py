"""Fuzzing: any input from a person, a broker or a damaged disk is accepted, or rejected with a documented error.

By default each target gets a few fixed cases; ``make fuzz`` (or FER_EDGE_FUZZ=20000, the cases of each target) tries
many random ones. Hypothesis shows the smallest input that breaks something. The end of the run reports the counts.
"""

import contextlib
import gzip
import io
import json
import lzma
import shutil
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.app.recording import events_of
from edge.camera.sources import is_live, open_source, read_gray
from edge.cli.reference import sample
from edge.errors import BundleError, DataError, SettingsError, SourceError
from edge.evaluation.fer2013 import read_data, read_faces
from edge.events.factory import to_json
from edge.model.archive import MAX_BYTES, read_bundle_archive
from edge.model.bundle import find_bundle, open_bundle
from edge.model.verification import check_preparation
from edge.mqtt.commands import Capabilities, CommandProcessor
from edge.mqtt.messages import COMMANDS, Reply
from edge.mqtt.topics import base_topic
from edge.settings import CameraSettings, DetectSettings, Section, Settings, load_settings
from edge.system.state import StateStore
from edge.vision.detectors import open_detector
from tests.conftest import PORTRAIT
from tests.edge.fuzzing import RECORDING, SCALARS, VALUES, attempt, damaged, fuzzed, recordings, rejected, tried, zip_of

# An input that breaks something is shown in full, however long it is.
pytestmark = pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the inputs."""
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(autouse=True)
def _report_counts(record_property: Callable[[str, object], None]) -> Iterator[None]:
    """Have the end of the run report how many cases were tried."""
    before = tried.copy()
    yield
    for target in tried - before:
        cases, errors = tried[target] - before[target], rejected[target]
        record_property("fuzz", f"fuzz: {target}: {cases} cases, {errors} of them rejected with a documented error")


SECTIONS = {
    name: section.__struct_fields__
    for name in Settings.__struct_fields__
    if isinstance(section := getattr(Settings(), name), Section)
}


@st.composite
def toml(draw: st.DrawFn) -> bytes:
    """A file of known and unknown keys with values of every kind."""
    lines = []
    for section in draw(st.lists(st.sampled_from([*SECTIONS, "moqtt", "mqtt.tls"]), max_size=4, unique=True)):
        lines.append(f"[{section}]")
        for key in draw(st.lists(st.sampled_from([*SECTIONS.get(section, ()), "hots", "a"]), max_size=4, unique=True)):
            value = draw(SCALARS | st.lists(SCALARS, max_size=3))
            lines.append(f"{key} = {json.dumps(value, allow_nan=False, default=str) if _finite(value) else 'nan'}")
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def _finite(value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    return all(not isinstance(one, float) or np.isfinite(one) for one in values)


@given(content=st.one_of(toml(), st.binary(max_size=200), damaged(sample().replace("#", "").encode())))
@fuzzed
def test_settings(folder: Path, content: bytes) -> None:
    file = folder / "config.toml"
    file.write_bytes(content)

    def read() -> None:
        loaded = load_settings(file)
        assert base_topic(loaded.mqtt)
        with contextlib.suppress(SourceError):
            is_live(loaded.camera)

    attempt("settings", SettingsError, read)


@pytest.fixture(scope="module")
def copy(folder: Path) -> Path:
    return Path(shutil.copytree(find_bundle("student-small"), folder / "copy"))


CARD = (find_bundle("student-small") / "card.json").read_bytes()
GOLDEN = (find_bundle("student-small") / "golden.npz").read_bytes()


@st.composite
def cards(draw: st.DrawFn) -> bytes:
    """A card with some of its values, at any depth, replaced or taken away."""
    card = json.loads(CARD)
    for _ in range(draw(st.integers(1, 3))):
        part = card
        while True:
            key = draw(st.sampled_from(sorted(part)))
            if isinstance(part[key], dict) and part[key] and draw(st.booleans()):
                part = part[key]
                continue
            break
        if draw(st.booleans()):
            part[key] = draw(VALUES)
        else:
            del part[key]
    return json.dumps(card).encode()


@given(content=st.one_of(cards(), st.binary(max_size=200), damaged(CARD)))
@fuzzed
def test_cards(copy: Path, content: bytes) -> None:
    (copy / "golden.npz").write_bytes(GOLDEN)
    (copy / "card.json").write_bytes(content)
    attempt("card", BundleError, lambda: open_bundle(copy))


ARRAYS = st.one_of(
    st.sampled_from([np.uint8, np.int8, np.int64, np.float64, np.bool_, "<U8", "complex64"]).flatmap(
        lambda dtype: st.lists(st.integers(0, 50), max_size=4).map(lambda shape: np.zeros(shape, dtype))
    ),
)


@st.composite
def goldens(draw: st.DrawFn) -> bytes:
    """Golden arrays, some of them of another type or shape, with other values, or absent."""
    with np.load(io.BytesIO(GOLDEN)) as stored:
        parts = dict(stored)
    for name in draw(st.lists(st.sampled_from(sorted(parts)), min_size=1, max_size=3, unique=True)):
        match draw(st.sampled_from(("other", "shifted", "absent"))):
            case "other":
                parts[name] = draw(ARRAYS)
            case "shifted":
                parts[name] = np.roll(parts[name].ravel(), draw(st.integers(-9, 9))).reshape(parts[name].shape)
            case _:
                del parts[name]
    out = io.BytesIO()
    np.savez(out, **parts)
    return out.getvalue()


@given(content=st.one_of(goldens(), st.binary(max_size=200), damaged(GOLDEN)))
@fuzzed
def test_goldens(copy: Path, content: bytes) -> None:
    (copy / "card.json").write_bytes(CARD)
    (copy / "golden.npz").write_bytes(content)

    def prepare() -> None:
        scene = open_bundle(copy).golden.scene
        assert all(levels >= 0 for levels in check_preparation(scene, scene.margin))

    attempt("golden", BundleError, prepare)


SMALL_ZIP = zip_of([(f"b/{name}", name.encode() * 40) for name in MAX_BYTES])
NAMES = st.one_of(
    st.sampled_from([*MAX_BYTES, *(f"b/{name}" for name in MAX_BYTES), "../x", "/x", "a/../../x", "C:\\x", "b/", "."]),
    st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=20),
)


@given(
    content=st.one_of(
        st.lists(st.tuples(NAMES, st.binary(max_size=50)), max_size=6).map(zip_of),
        damaged(SMALL_ZIP),
        st.binary(max_size=300),
    )
)
@fuzzed
def test_bundle_zips(folder: Path, content: bytes) -> None:
    file = folder / "bundle.zip"
    file.write_bytes(content)

    def read() -> None:
        assert set(read_bundle_archive(file)) <= set(MAX_BYTES)

    before = sorted(folder.iterdir())
    attempt("zip", BundleError, read)
    assert sorted(folder.iterdir()) == before


@given(
    commands=st.lists(
        st.tuples(
            st.sampled_from([*COMMANDS, "fly", "", "pause/x"]) | st.text(max_size=90),
            st.one_of(
                st.binary(max_size=60),
                st.dictionaries(st.sampled_from(["on", "id", "file"]) | st.text(max_size=5), VALUES, max_size=3).map(
                    lambda payload: json.dumps(payload).encode()
                ),
                damaged(b'{"on":true,"id":"42"}'),
                st.just(b"[" * 1024),
                st.just(b'{"x":' + b"[" * 1015),
                st.binary(min_size=1025, max_size=1100),
            ),
            st.booleans(),
        ),
        min_size=1,
        max_size=5,
    )
)
@fuzzed
def test_commands(folder: Path, commands: list[tuple[str, bytes, bool]]) -> None:
    replies: list[Reply] = []
    now = iter(range(0, 10**9, 100))
    capabilities = Capabilities(True, lambda: None, lambda: open_bundle(find_bundle("")))
    command_processor = CommandProcessor(
        StateStore(folder / "kept", "kiosk"), capabilities, replies.append, lambda: float(next(now))
    )
    for name, payload, retained in commands:
        tried["command"] += 1
        before = len(replies)
        command_processor.receive(name, payload, retained)
        command_processor.camera_is_open()
        command_processor.camera_is_closed()
        rejected["command"] += sum(not reply.ok for reply in replies[before:])
    for reply in replies:
        assert reply.ok or (reply.error and reply.sentence)
        msgspec.json.decode(msgspec.json.encode(reply), type=Reply)


@given(content=st.one_of(damaged(RECORDING), recordings()))
@fuzzed
def test_recordings(folder: Path, content: bytes) -> None:
    file = folder / "visit.jsonl"
    file.write_bytes(content)
    attempt("recording", SourceError, lambda: [to_json(event) for event in events_of(file)])


def test_the_undamaged_recording_gives_its_events(folder: Path) -> None:
    file = folder / "whole.jsonl"
    file.write_bytes(RECORDING)
    assert [event.kind for event in events_of(file)] == ["appeared", "preset", "uncertain", "left"]


def _encoded(form: str) -> bytes:
    portrait = cv2.imread(str(PORTRAIT), cv2.IMREAD_GRAYSCALE if form == ".pgm" else cv2.IMREAD_COLOR)
    assert portrait is not None
    small = cv2.resize(portrait, (96, 72))
    return bytes(cv2.imencode(form, small)[1].tobytes())


PICTURES = [_encoded(form) for form in (".jpg", ".png", ".bmp", ".pgm", ".webp")]


@given(content=st.one_of(*map(damaged, PICTURES), st.binary(max_size=200)))
@fuzzed
def test_pictures(folder: Path, content: bytes) -> None:
    file = folder / "picture.jpg"
    file.write_bytes(content)
    detector = open_detector(DetectSettings(width=96))

    def detect() -> None:
        gray = read_gray(file)
        assert (gray.ndim, gray.dtype) == (2, np.uint8)
        if gray.size < 10**6:  # a damaged header may state any size
            detector.detect(gray)

    attempt("picture", SourceError, detect)


@pytest.fixture(scope="module")
def video(folder: Path) -> bytes:
    file = folder / "whole.avi"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"MJPG"), 10, (96, 72))
    for shade in range(0, 250, 50):
        writer.write(np.full((72, 96, 3), shade, np.uint8))
    writer.release()
    return file.read_bytes()


@given(data=st.data())
@fuzzed
def test_videos(folder: Path, video: bytes, data: st.DataObject) -> None:
    file = folder / "video.avi"
    file.write_bytes(data.draw(damaged(video) | st.binary(max_size=200)))

    def read_frames() -> None:
        source = open_source(CameraSettings(source=str(file)))
        try:
            times = [frame.time for frame in islice(source.frames(), 20)]
        finally:
            source.close()
        assert times == sorted(times)

    attempt("video", SourceError, read_frames)


def _csv() -> bytes:
    rng = np.random.default_rng(3)
    rows = [
        f"{n % 7},{' '.join(map(str, rng.integers(0, 256, 2304)))},{usage}"
        for n, usage in enumerate(("Training", "PublicTest", "PrivateTest"))
    ]
    return "\n".join(["emotion,pixels,Usage", *rows, ""]).encode()


CSV = _csv()
PACKED = [gzip.compress(CSV), lzma.compress(CSV), zip_of([("fer2013.csv", CSV)])]


@given(
    content=st.one_of(
        damaged(CSV),
        *map(damaged, PACKED),
        st.lists(st.text('0123456789, .-\n"\0emotionpixelsUsage', max_size=40), max_size=8).map(
            lambda lines: "\n".join(["emotion,pixels,Usage", *lines]).encode()
        ),
        st.binary(max_size=200),
    ),
    everything=st.booleans(),
)
@fuzzed
def test_labelled_data(folder: Path, content: bytes, everything: bool) -> None:
    file = folder / "fer2013.csv"
    file.write_bytes(content)
    attempt("faces", DataError, lambda: read_data(file) if everything else read_faces(file, "PublicTest"))
