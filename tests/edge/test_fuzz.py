"""Fuzzing: any input from a person, a broker or a damaged disk is accepted, or rejected with a documented error.

By default each target gets a few fixed cases; ``make fuzz`` (or FER_EDGE_FUZZ=20000, the cases of each target) tries
many random ones. Hypothesis shows the smallest input that breaks something. The end of the run reports the counts.
"""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.app.recording import events_of
from edge.cli.reference import sample
from edge.errors import SourceError
from edge.model.bundle import MAX_BYTES
from edge.mqtt.messages import COMMANDS
from edge.settings import Section, Settings
from tests.edge.fuzzing import RECORDING, SCALARS, VALUES, attempt, damaged, fuzzed, recordings, rejected, tried, zip_of
from tests.fuzz.__main__ import plan
from tests.fuzz.chunk import try_cases
from tests.fuzz.mutation import damaged as damaged_case
from tests.fuzz.report import PAGE, RESULT, text_of
from tests.fuzz.targets import CARD, CSV, GOLDEN, PACKED, PICTURES, SMALL_ZIP, TARGETS, Target, obey

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


def try_target(name: str, content: bytes, folder: Path) -> None:
    """Hand an input to a target, and count it."""
    attempt(name, TARGETS[name].error, lambda: TARGETS[name].run(content, folder))


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
    try_target("settings", content, folder)


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
def test_cards(folder: Path, content: bytes) -> None:
    try_target("card", content, folder)


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
def test_goldens(folder: Path, content: bytes) -> None:
    try_target("golden", content, folder)


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
    try_target("zip", content, folder)


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
    replies = obey(commands, folder)
    tried["command"] += len(commands)
    rejected["command"] += sum(not reply.ok for reply in replies)


@given(content=st.one_of(damaged(RECORDING), recordings()))
@fuzzed
def test_recordings(folder: Path, content: bytes) -> None:
    try_target("recording", content, folder)


def test_the_undamaged_recording_gives_its_events(folder: Path) -> None:
    file = folder / "whole.jsonl"
    file.write_bytes(RECORDING)
    assert [event.kind for event in events_of(file)] == ["appeared", "preset", "uncertain", "left"]


@given(content=st.one_of(*map(damaged, PICTURES), st.binary(max_size=200)))
@fuzzed
def test_pictures(folder: Path, content: bytes) -> None:
    try_target("picture", content, folder)


@given(content=damaged(TARGETS["video"].seeds[0]) | st.binary(max_size=200))
@fuzzed
def test_videos(folder: Path, content: bytes) -> None:
    try_target("video", content, folder)


@given(
    content=st.one_of(
        damaged(CSV),
        *map(damaged, PACKED),
        st.lists(st.text('0123456789, .-\n"\0emotionpixelsUsage', max_size=40), max_size=8).map(
            lambda lines: "\n".join(["emotion,pixels,Usage", *lines]).encode()
        ),
        st.binary(max_size=200),
    )
)
@fuzzed
def test_labelled_data(folder: Path, content: bytes) -> None:
    try_target("faces", content, folder)


@pytest.mark.parametrize("name", ["truth", "source", "state"])
def test_other_targets(folder: Path, name: str) -> None:
    for number in range(40):
        try_target(name, damaged_case(f"{name} 1 {number}", TARGETS[name].seeds, TARGETS[name].words), folder)


@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_of_a_target_are_valid(name: str, tmp_path: Path) -> None:
    for content in TARGETS[name].seeds[:2]:
        TARGETS[name].run(content, tmp_path)


FINDS = sorted(Path(__file__).parents[1].glob("fuzz/corpus/*/*"))


@pytest.mark.parametrize("file", FINDS, ids=[f"{file.parent.name}-{file.name}" for file in FINDS])
def test_what_was_found_before_is_refused_or_taken(file: Path, tmp_path: Path) -> None:
    try_target(file.parent.name, file.read_bytes(), tmp_path)
    assert file.stat().st_size < 100_000, "finds are kept as small files"


def test_a_run_has_every_target_from_its_beginning_and_as_many_cases_as_are_wanted() -> None:
    chunks = list(plan(1_000_000))
    assert [chunk.target for chunk in chunks[: len(TARGETS)]] == list(TARGETS)
    assert sum(chunk.cases for chunk in chunks) == 1_000_000


def test_a_case_follows_from_its_number_alone_and_a_find_is_noticed(tmp_path: Path) -> None:
    def fail(content: bytes, folder: Path) -> None:
        if len(content) % 2:
            raise ValueError("odd")

    target = Target("", SourceError, fail, [b"seed"], [b"word"], 1)
    with (tmp_path / "progress").open("wb") as progress:
        first, again = (try_cases({"odd": target}, "odd", 1, range(50), progress.fileno()) for _ in range(2))
    assert first["finds"] == again["finds"]
    assert 5 < len(first["finds"]) < 45
    assert (tmp_path / "progress").read_text().strip() == "49"


def test_the_page_is_generated_from_the_result() -> None:
    assert PAGE.read_text() == text_of(json.loads(RESULT.read_text())), "run: python -m tests.fuzz --report"
