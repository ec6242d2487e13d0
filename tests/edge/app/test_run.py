"""`fer-edge run` as a user runs it: however it ends, the sheet and the summary that were asked for are written."""

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import jsonschema
import pytest

from edge.model.bundle import DEFAULT
from tests.conftest import PORTRAIT, ROOT, Broker, free_port, wait_until
from tests.edge.listener import listening
from tests.edge.mjpeg import Mjpeg, noisy_pictures
from tests.edge.model.bundles import AFFECTNET, relabelled_bundle

pytestmark = pytest.mark.slow

FER_EDGE = Path(sys.executable).with_name("fer-edge")


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    command = [FER_EDGE, "run", "--sheet", "sheet.png", "--record", "visits.jsonl", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder)


def own_lines(stderr: str) -> str:
    """What the program itself wrote: TFLite adds a line of its own."""
    return "".join(line for line in stderr.splitlines(keepends=True) if not line.startswith("INFO: Created TensorFlow"))


def is_observing(folder: Path) -> bool:
    """Whether the first event is recorded: a face was followed."""
    file = folder / "visits.jsonl"
    return file.exists() and file.read_text().count("\n") > 20


def assert_shown(folder: Path, stderr: str, begin: Sequence[str] = (), end: Sequence[str] = ()) -> None:
    sheet = cv2.imread(str(folder / "sheet.png"), cv2.IMREAD_GRAYSCALE)
    assert sheet is not None
    assert sheet[:200, :300].any(), "the first tile shows a frame"
    lines = own_lines(stderr).splitlines()
    assert lines[: len(begin)] == list(begin)
    del lines[: len(begin)]
    assert [line.split()[0] for line in lines if line[:1] != " "][:6] == [
        *("frames", "faces", "expressions", "events", "ms", "model")
    ]
    assert "left 1" in stderr
    assert lines[6:] == list(end)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_ctrl_c_and_a_stop_write_the_sheet_and_the_summary(tmp_path: Path, number: int, code: int) -> None:
    process = start(tmp_path, "--source", "demo", "--realtime")
    wait_until(lambda: is_observing(tmp_path), 60)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == code
    assert_shown(tmp_path, stderr)


def test_a_stop_by_hand_while_the_broker_is_away_blames_no_camera(tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text(f"[mqtt]\nport = {free_port()}\n[store]\nfolder = '{tmp_path}/state'\n")
    process = start(tmp_path, "--source", "demo", "--realtime", "--events", "mqtt", "--config", "my.toml")
    wait_until(lambda: is_observing(tmp_path), 60)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "camera does not return" not in stderr
    assert "2 events were not acknowledged" in stderr


def test_the_end_of_a_stream_writes_the_sheet_and_the_summary_before_its_error(tmp_path: Path) -> None:
    with Mjpeg(lambda: itertools.islice(noisy_pictures(), 60), hang_up=True) as camera:
        process = start(tmp_path, "--source", camera.url)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 5
    small = (
        "fer-edge: detect.min_face is 0.05, but detector haar needs faces of 24 pixels: 0.1 of the shorter side of "
        "320x240; choose larger pictures (camera.size, or a network camera's own settings), or set "
        "detect.min_face = 0.1"
    )
    assert_shown(
        tmp_path, stderr, [small], [f"fer-edge: error: {camera.url}: the stream ended. Is the server running?"]
    )


def test_a_closed_pipe_takes_nothing_from_the_sheet(tmp_path: Path) -> None:
    process = start(tmp_path, "--source", "demo")
    assert process.stdout
    process.stdout.close()
    assert process.stderr
    with process.stderr:
        stderr = process.stderr.read()
    assert process.wait(30) == 0
    assert_shown(tmp_path, stderr)


@pytest.mark.parametrize(
    ("words", "unbuffered"),
    [
        (("run", "--source", "demo"), ""),
        (("replay", "visits.jsonl"), ""),
        (("classify", PORTRAIT), ""),
        (("model", "list"), ""),  # it is written at the end only
        (("model", "list"), "1"),
    ],
)
def test_a_full_disk_behind_stdout_is_named(tmp_path: Path, words: tuple[str | Path, ...], unbuffered: str) -> None:
    """Nothing is left for the flush at exit to fail with."""
    if words[0] == "replay":
        record = [FER_EDGE, "run", "--source", "demo", "--record", "visits.jsonl"]
        subprocess.run(record, check=True, capture_output=True, timeout=60, cwd=tmp_path)
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [FER_EDGE, *words],
            check=False,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            cwd=tmp_path,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )
    assert ended.returncode == 18, ended.stderr
    assert ended.stderr.endswith("fer-edge: error: stdout: cannot be written: No space left on device\n")
    assert "Traceback" not in ended.stderr


def test_a_source_that_does_not_open_leaves_an_earlier_sheet_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "sheet.png").write_bytes(b"earlier")
    process = start(tmp_path, "--source", "absent.mp4")
    _, stderr = process.communicate(timeout=30)
    assert (process.returncode, own_lines(stderr).count("\n")) == (5, 1)
    assert (tmp_path / "sheet.png").read_bytes() == b"earlier"


def test_a_sheet_that_cannot_be_written_costs_neither_the_summary_nor_the_error_of_the_run(tmp_path: Path) -> None:
    process = start(tmp_path, "--source", "demo", "--realtime")
    wait_until(lambda: is_observing(tmp_path), 60)
    (tmp_path / "sheet.png").mkdir()
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert own_lines(stderr).startswith("frames ")
    assert stderr.endswith("fer-edge: sheet.png: cannot be written: Is a directory\n")


def test_a_model_with_other_labels_says_its_own_everywhere(tmp_path: Path, still_clip: Path, broker: Broker) -> None:
    """Events, state, counts of a preset, and what Home Assistant and the verification say that it can recognise."""
    bundle = relabelled_bundle(tmp_path, "other", AFFECTNET)
    (tmp_path / "config.toml").write_text(
        f'[model]\nbundle = "{bundle}"\n[store]\nfolder = "{tmp_path}"\n[homeassistant]\nenabled = true\n'
        f'[mqtt]\nhost = "127.0.0.1"\nport = {broker.port}\ndevice = "kiosk"\n'
        "[events]\ndwell = 0.0\nthreshold = 0.0\n"
    )
    with listening(broker.port) as listener:
        program = start(tmp_path, "--source", str(still_clip), "--config", "config.toml", "--events", "mqtt")
        _, stderr = program.communicate(timeout=60)
        assert program.returncode == 0, stderr
        wait_until(lambda: listener.last("availability") == "offline", 5)
    appeared = listener.json("event")[0]
    assert tuple(appeared["expression"]["scores"]) == tuple(AFFECTNET)
    assert appeared["expression"]["label"] in {state["expression"] for state in listener.json("state")}
    assert tuple(listener.json("verification")[0]["labels"]) == tuple(AFFECTNET)
    [described] = [json.loads(text) for topic, text, _ in listener.messages if topic.endswith("/config")]
    assert described["cmps"]["expression"]["options"] == [*AFFECTNET, "uncertain", "nobody"]
    for name in ("event", "state", "verification"):
        schema = json.loads((ROOT / "docs" / f"{name}.schema.json").read_text())
        for message in listener.json(name):
            jsonschema.validate(message, schema)


def test_a_pause_that_a_read_only_disk_refused_is_stored_once_it_can_be(
    tmp_path: Path, broker: Broker, small_disk: Path
) -> None:
    settings = f"[mqtt]\nport = {broker.port}\ndevice = 'kiosk'\n[store]\nfolder = '{small_disk}'\n"
    (tmp_path / "my.toml").write_text(settings)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with Mjpeg(noisy_pictures) as camera, listening(broker.port) as listener:
        process = start(tmp_path, "--source", camera.url, "--events", "mqtt", "--config", "my.toml")
        wait_until(lambda: listener.last("availability") == "online", 60)
        listener.send("command/pause", '{"on":true}')
        wait_until(lambda: "cannot be stored yet" in (listener.last("reply") or ""), 10)
        subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
        file = small_disk / "fer-edge-kiosk.state.json"
        wait_until(lambda: file.exists() and json.loads(file.read_text())["paused"], 60)
        process.kill()
        process.communicate()


def test_verify_answers_while_a_video_bounds_the_memory(tmp_path: Path, still_clip: Path, broker: Broker) -> None:
    """It ended the thread of MQTT, and with that the delivery of events."""
    frames = cv2.VideoCapture(str(still_clip))
    _, picture = frames.read()
    video = cv2.VideoWriter(str(tmp_path / "long.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, picture.shape[1::-1])
    for _ in range(250):
        video.write(picture)
    video.release()
    (tmp_path / "config.toml").write_text(
        f'[store]\nfolder = "{tmp_path}"\n[mqtt]\nhost = "127.0.0.1"\nport = {broker.port}\ndevice = "kiosk"\n'
    )
    with listening(broker.port) as listener:
        words = ("--source", "long.avi", "--config", "config.toml", "--events", "mqtt", "--realtime")
        program = start(tmp_path, *words)
        wait_until(lambda: listener.last("availability") == "online", 30)
        listener.send("command/verify", '{"id":"7"}')
        _, stderr = program.communicate(timeout=60)
        wait_until(lambda: listener.last("availability") == "offline", 5)
    assert program.returncode == 0, stderr
    [reply] = listener.json("reply")
    assert (reply["id"], reply["ok"]) == ("7", True)
    assert [event["kind"] for event in listener.json("event")][-1] == "left"


def test_a_preset_that_the_model_lacks_ends_the_start(tmp_path: Path, still_clip: Path) -> None:
    (tmp_path / "config.toml").write_text('[[preset]]\nname = "sneer"\nexpression = "contempt"\n')
    program = start(tmp_path, "--source", str(still_clip), "--config", "config.toml")
    _, stderr = program.communicate(timeout=60)
    assert program.returncode == 3
    assert f"preset 'sneer': the model {DEFAULT} has no expression 'contempt'; known here: angry" in stderr
