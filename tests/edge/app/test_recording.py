"""Recordings: made by the real program, replayed byte for byte, and errors for broken ones."""

import json
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edge.app.recording import Recorder, events_of
from edge.errors import SettingsError, SourceError
from edge.labels import FER2013_LABELS
from edge.model.bundle import DEFAULT, find_bundle, open_bundle
from edge.pipeline import FrameResult
from edge.records import Box, Frame, Reading, Track
from edge.settings import EventSettings, Preset, Settings
from edge.system.clock import Moment
from tests.edge.cli.test_main import PROGRAM, fer_edge

CARD = open_bundle(find_bundle(DEFAULT)).card
STARTED = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
HAPPY = (0.0, 0.0, 0.0, 5.0, 0.0, 0.0, 0.0)
SAD = (0.0, 0.0, 0.0, 0.0, 5.0, 0.0, 0.0)


def result(at: float, track: Track, reading: Reading) -> FrameResult:
    return FrameResult(Frame(np.zeros((4, 4), np.uint8), at), [track], [], {track.id: reading}, [])


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """A visitor who smiles, is sad, and blurred; while the clock is set right by an hour."""
    file = tmp_path / "visit.jsonl"
    settings = Settings(preset=(Preset(name="smile", expression="happy", for_seconds=1.0),))
    track = Track(1, Box(10, 20, 90, 90), 0.0)
    with Recorder(file) as recorder:
        recorder.begin("0123456789ab", CARD, settings)
        for number in range(60):
            at = number / 10
            reading = HAPPY if at < 2 else SAD if at < 4 else "blurred"
            right = at >= 3
            moment = Moment(STARTED + timedelta(hours=right), synced=right)
            recorder.frame(result(at, track, reading), moment)
        recorder.end(5.9, moment)
    return file


def kinds(file: Path, settings: Settings | None = None) -> list[str]:
    return [event.name or event.kind for event in events_of(file, settings)]


@pytest.mark.slow
def test_the_demos_events_are_replayed_byte_for_byte(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(
        '[events]\nsmoothing = 0.3\n[[preset]]\nname = "shown"\nexpression = "happy"\nfor_seconds = 0.5\n'
    )
    done = fer_edge("run", "--source", "demo", "--config", config, "--record", "visit.jsonl", cwd=tmp_path)
    again = fer_edge("replay", "visit.jsonl", cwd=tmp_path)
    assert (done.returncode, again.returncode) == (0, 0)
    assert done.stdout.count("\n") >= 3
    assert again.stdout == done.stdout
    lines = [json.loads(line) for line in (tmp_path / "visit.jsonl").read_text().splitlines()]
    assert [line["line"] for line in lines] == ["begin", *["frame"] * 250, "end"]
    assert {key for line in lines[1:] for key in line} == {"line", "t", "clock", "boxes", "readings", "hidden"}, (
        "no pictures"
    )


def test_a_run_that_ctrl_c_ends_is_replayed_byte_for_byte(tmp_path: Path) -> None:
    """It nearly always comes in the middle of a frame, whose time the last event had, and the recording had not."""
    command = [PROGRAM, "run", "--source", "demo", "--record", "visit.jsonl"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=tmp_path) as run:
        assert run.stdout
        told = run.stdout.readline()
        run.send_signal(signal.SIGINT)
        told += run.stdout.read()
    assert (run.returncode, b'"kind":"left"' in told) == (130, True)
    assert fer_edge("replay", "visit.jsonl", cwd=tmp_path).stdout.encode() == told


def test_a_recording_is_replayed_as_it_was_with_the_clock_of_then(recording: Path) -> None:
    events = list(events_of(recording))
    assert [event.name or event.kind for event in events] == ["appeared", "smile", "changed", "uncertain", "left"]
    assert [event.id for event in events] == [f"0123456789ab-{number}" for number in range(1, 6)]
    assert [event.clock_synced for event in events] == [False, False, False, True, True]
    assert events[0].time == "2026-11-22T10:00:00.200+00:00"
    assert events[-1].time == "2026-11-22T11:00:05.900+00:00"
    assert list(events_of(recording)) == events


def test_other_settings_give_other_events_with_the_thresholds_of_its_model(recording: Path) -> None:
    assert kinds(recording, Settings(events=EventSettings(dwell=3.0, uncertain_after=10.0))) == []
    sad = Settings(preset=(Preset(name="sorrow", expression="sad", for_seconds=0.5),))
    assert kinds(recording, sad) == ["appeared", "changed", "sorrow", "uncertain", "left"]


def test_a_recording_has_the_labels_of_its_model(tmp_path: Path) -> None:
    card, file = msgspec.structs.replace(CARD, labels=("glad", "calm", "cross")), tmp_path / "calm.jsonl"
    track, moment = Track(1, Box(10, 20, 90, 90), 0.0), Moment(STARTED, synced=True)
    with Recorder(file) as recorder:
        recorder.begin("0123456789ab", card, Settings(preset=(Preset(name="rest", expression="calm"),)))
        for number in range(30):
            recorder.frame(result(number / 10, track, (0.0, 5.0, 0.0)), moment)
        recorder.end(3.0, moment)
    appeared, preset, left = events_of(file)
    assert appeared.expression
    assert left.episode
    assert (appeared.expression.label, preset.name, left.episode.expression) == ("calm", "rest", "calm")
    assert tuple(appeared.expression.scores) == card.labels
    with pytest.raises(SettingsError, match=f"'smile': the model {DEFAULT} has no expression 'happy'"):
        kinds(file, Settings(preset=(Preset(name="smile", expression="happy"),)))


def test_a_recording_of_an_earlier_version_has_the_labels_of_fer2013(recording: Path) -> None:
    before = list(events_of(recording))
    begin = json.loads(lines_of(recording)[0])
    assert tuple(begin.pop("labels")) == FER2013_LABELS
    recording.write_bytes(b"".join([json.dumps(begin).encode() + b"\n", *lines_of(recording)[1:]]))
    assert list(events_of(recording)) == before


def test_one_recording_holds_several_openings_of_the_camera(recording: Path) -> None:
    recording.write_bytes(recording.read_bytes() * 2)
    ids = [event.id for event in events_of(recording)]
    assert len(ids) == 10
    assert ids[:5] == ids[5:], "each begins with its own run id and its own tracks"


def lines_of(file: Path) -> list[bytes]:
    return file.read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda lines: lines[:30], "line 30: .*no end|no end after line 30"),
        (lambda lines: [*lines[:30], lines[30][:20]], "line 31: cut in the middle"),
        (lambda lines: [], "it is empty: the run that made it"),
        (lambda lines: lines[1:], "line 1: a frame before any beginning"),
        (lambda lines: [*lines[:9], *lines], "line 10: a second beginning"),
        (lambda lines: [*lines[:9], lines[40], *lines[9:]], "line 11: time goes back"),
        (lambda lines: [lines[0], *lines[2:]], "line 2: no time of day"),
        (lambda lines: [b'{"t":1}\n'], "line 1: no recording of version 1"),
        (lambda lines: [lines[0].replace(b'"version":1', b'"version":2')], "line 1: no recording of version 1"),
        (lambda lines: [lines[0], lines[1].replace(b"5.0,", b"")], "line 2: a reading of 6 logits, and 7 labels"),
        (
            lambda lines: [lines[0].replace(b'"labels":["angry"', b'"labels":["fear"')],
            "line 1: the label 'fear' is there twice",
        ),
        (lambda lines: [lines[0], lines[1].replace(b'"1":[10', b'"2":[10')], "a reading of track 1, which has no box"),
        (lambda lines: [b"\xff\xfe\x00\n"], "line 1: no recording"),
    ],
)
def test_what_is_broken_is_named_by_its_line(recording: Path, damage, words: str) -> None:  # noqa: ANN001
    recording.write_bytes(b"".join(damage(lines_of(recording))))
    with pytest.raises(SourceError, match=words):
        list(events_of(recording))


def test_the_events_before_a_cut_are_printed_and_the_exit_code_is_5(recording: Path) -> None:
    whole = fer_edge("replay", recording)
    recording.write_bytes(b"".join(lines_of(recording)[:40]))
    cut = fer_edge("replay", recording)
    assert (whole.returncode, cut.returncode) == (0, 5)
    assert cut.stdout
    assert whole.stdout.startswith(cut.stdout)
    assert "no end after line 40" in cut.stderr
    absent = fer_edge("replay", "absent.jsonl")
    assert (absent.returncode, "cannot be read" in absent.stderr) == (5, True)


def test_a_recording_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    done = fer_edge("run", "--source", "demo", "--record", tmp_path / "absent" / "visit.jsonl")
    assert (done.returncode, "cannot be written" in done.stderr) == (5, True)


def test_an_earlier_recording_stays_until_the_first_frame(recording: Path) -> None:
    earlier = recording.read_bytes()
    moment = Moment(STARTED, synced=True)
    with Recorder(recording) as recorder:
        recorder.begin("ba9876543210", CARD, Settings())
        recorder.end(0.0, moment)  # the camera was opened, and gave nothing
        assert recording.read_bytes() == earlier
        recorder.begin("aaaaaaaaaaaa", CARD, Settings())
        recorder.frame(result(0.0, Track(1, Box(1, 2, 3, 4), 0), HAPPY), moment)
        recorder.end(0.0, moment)
    lines = [json.loads(line) for line in lines_of(recording)]
    assert [line["line"] for line in lines] == ["begin", "frame", "end"]
    assert lines[0]["run"] == "aaaaaaaaaaaa"


@pytest.mark.parametrize("source", ["absent.mp4", "empty.mp4"])
def test_a_start_that_fails_leaves_an_earlier_recording_as_it_is(recording: Path, source: str) -> None:
    earlier = recording.read_bytes()
    (recording.parent / "empty.mp4").touch()
    done = fer_edge("run", "--source", source, "--record", recording, cwd=recording.parent)
    assert done.returncode == 5
    assert recording.read_bytes() == earlier


@pytest.mark.parametrize("option", ["--record", "--sheet"])
def test_no_output_is_written_over_the_video_that_is_read(tmp_path: Path, option: str) -> None:
    (tmp_path / "visit.mp4").write_bytes(b"a video")
    (tmp_path / "link").symlink_to("visit.mp4")
    done = fer_edge("run", "--source", "visit.mp4", option, "link", cwd=tmp_path)
    assert (done.returncode, f"{option} link: this is the source" in done.stderr) == (2, True)
    assert (tmp_path / "visit.mp4").read_bytes() == b"a video"


def test_no_output_is_written_over_the_other_one(tmp_path: Path) -> None:
    done = fer_edge("run", "--source", "demo", "--record", "visit", "--sheet", "./visit", cwd=tmp_path)
    assert (done.returncode, "both would be written to visit. Give two files" in done.stderr) == (2, True)
    assert list(tmp_path.iterdir()) == []


def test_a_recording_can_go_into_a_pipe() -> None:
    done = fer_edge("run", "--source", "demo", "--record", "/dev/stderr")
    assert (done.returncode, done.stderr.count('"line":"frame"')) == (0, 250)


def test_a_run_that_is_killed_leaves_what_can_be_replayed_up_to_there(tmp_path: Path) -> None:
    file = tmp_path / "visit.jsonl"
    script = (
        "import os, sys; from pathlib import Path; from tests.edge.app.test_recording import *\n"
        "recorder = Recorder(Path(sys.argv[1])); recorder.begin('0123456789ab', CARD, Settings())\n"
        "for number in range(5000): recorder.frame(result(number / 10, Track(1, Box(1, 2, 3, 4), 0), HAPPY),"
        " Moment(STARTED, False))\n"
        "os._exit(9)\n"
    )
    subprocess.run([sys.executable, "-c", script, file], check=False, timeout=60)
    with pytest.raises(SourceError, match=r"cut in the middle|no end"):
        list(events_of(file))
