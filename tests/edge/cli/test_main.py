"""The device's commands as a user types them: real processes, real exit codes."""

import json
import os
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import cv2
import jsonschema
import numpy as np
import pytest

from edge.cli.main import _parser
from edge.labels import FER2013_LABELS
from edge.model.bundle import find_bundle
from edge.settings import ModelSettings
from tests.conftest import PORTRAIT, ROOT, Broker, free_port, wait_until
from tests.edge.listener import listening

PROGRAM = Path(sys.executable).with_name("fer-edge")


def fer_edge(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=120, cwd=cwd, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def lines(done: subprocess.CompletedProcess[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def portraits(tmp_path: Path) -> Path:
    """Two seconds of a visitor standing still, as pictures."""
    folder = tmp_path / "portraits"
    folder.mkdir()
    portrait = cv2.imread(str(PORTRAIT))
    assert portrait is not None
    for number in range(8):
        cv2.imwrite(str(folder / f"{number}.jpg"), portrait[:300, :300])  # without the background's false faces
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture
def four_fps(tmp_path: Path) -> Path:
    file = tmp_path / "config.toml"
    file.write_text("[camera]\nfolder_fps = 4\n")
    return file


@pytest.mark.slow
def test_the_demo_has_one_visitor_and_draws_a_contact_sheet(tmp_path: Path) -> None:
    done = fer_edge("run", "--source", "demo", "--sheet", "demo.png", cwd=tmp_path)
    assert done.returncode == 0
    assert [(event["kind"], event["track"]) for event in lines(done)] == [("appeared", 1), ("left", 1)]
    assert "frames       250 (10.0 s of video)" in done.stderr
    assert "ms a frame   detect" in done.stderr
    sheet = cv2.imread(str(tmp_path / "demo.png"))
    assert sheet is not None
    assert sheet.shape == (720, 1280, 3)
    green = (sheet == (80, 220, 80)).all(axis=2)
    framed = [green[y : y + 240, x : x + 320].any() for y in (0, 240, 480) for x in (0, 320, 640, 960)]
    assert 4 <= sum(framed) <= 8  # the visitor is in the middle of the ten seconds
    assert not framed[0]
    assert not framed[-1]


def test_a_folder_runs_in_media_time(portraits: Path, four_fps: Path) -> None:
    done = fer_edge("run", "--source", portraits, "--config", four_fps)
    assert done.returncode == 0
    events = lines(done)
    assert [event["kind"] for event in events] == ["appeared", "left"]
    assert events[0]["expression"]["label"] in FER2013_LABELS
    assert "frames       8 (1.8 s of video)" in done.stderr


def test_realtime_takes_as_long_as_the_media(portraits: Path, four_fps: Path) -> None:
    done = fer_edge("run", "--source", portraits, "--config", four_fps, "--realtime")
    seconds = float(done.stderr.split(" in ")[1].split(" s:")[0])
    assert 1.7 <= seconds <= 2.7


def test_a_video_file_has_events(tmp_path: Path) -> None:
    file = tmp_path / "visit.avi"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"MJPG"), 10, (452, 400))
    portrait = cv2.imread(str(PORTRAIT))
    assert portrait is not None
    for _ in range(15):
        writer.write(portrait)
    writer.release()
    done = fer_edge("run", "--source", file)
    assert [event["kind"] for event in lines(done)] == ["appeared", "left"]
    assert "frames       15 (1.4 s of video)" in done.stderr


def test_an_unreadable_picture_in_a_folder_is_named_and_skipped(portraits: Path, four_fps: Path) -> None:
    (portraits / "3.jpg").write_bytes(b"")
    done = fer_edge("run", "--source", portraits, "--config", four_fps)
    assert done.returncode == 0
    assert "skipped" in done.stderr
    assert "3.jpg" in done.stderr
    assert "frames       7" in done.stderr


@pytest.mark.slow
def test_events_go_to_the_broker_instead_of_stdout(portraits: Path, broker: Broker, tmp_path: Path) -> None:
    config = tmp_path / "mqtt.toml"
    config.write_text(f'[camera]\nfolder_fps = 4\n[mqtt]\nhost = "127.0.0.1"\nport = {broker.port}\ndevice = "kiosk"\n')
    with listening(broker.port) as before:
        before.send("fault", '{"code":18}', retain=True)
    done = fer_edge("run", "--source", portraits, "--config", config, "--events", "mqtt")
    assert (done.returncode, done.stdout) == (0, "")
    with listening(broker.port) as late:
        wait_until(lambda: late.of("availability") and late.of("state"), 5)
        assert late.of("availability") == ["offline"]
        assert late.of("fault") == [], "what a process before has left"
        assert json.loads(late.of("state")[0])["faces"] == 0


@pytest.mark.slow
def test_the_discovery_message_is_published_and_removed_when_turned_off(
    portraits: Path, broker: Broker, tmp_path: Path
) -> None:
    config = tmp_path / "mqtt.toml"
    common = f'[camera]\nfolder_fps = 4\n[mqtt]\nhost = "127.0.0.1"\nport = {broker.port}\ndevice = "kiosk"\n'
    common += f'[store]\nfolder = "{tmp_path}/state"\n[homeassistant]\n'

    def retained_after(own: str) -> dict[str, str]:
        config.write_text(common + own)
        assert fer_edge("run", "--source", portraits, "--config", config, "--events", "mqtt").returncode == 0
        with listening(broker.port) as late:
            late.send("marker")  # the broker sends every retained message before it
            wait_until(lambda: late.of("marker"), 5)
            return {topic: payload for topic, payload, _ in late.messages if topic.endswith("/config")}

    [(topic, payload)] = retained_after("enabled = true\n").items()
    assert topic == "homeassistant/device/fer-edge-kiosk/config"
    assert json.loads(payload)["cmps"]["occupancy"]["state_topic"] == "fer-edge/kiosk/state"
    assert [*retained_after('enabled = true\nprefix = "ha"\n')] == ["ha/device/fer-edge-kiosk/config"]
    assert retained_after("") == {}


def test_an_absent_broker_does_not_stop_the_loop_but_is_reported(portraits: Path, tmp_path: Path) -> None:
    config = tmp_path / "mqtt.toml"
    own = f'[store]\nfolder = "{tmp_path}"\n'
    config.write_text(f'{own}[camera]\nfolder_fps = 4\n[mqtt]\nhost = "127.0.0.1"\nport = {free_port()}\n')
    done = fer_edge("run", "--source", portraits, "--config", config, "--events", "mqtt")
    assert done.returncode == 8
    assert "frames       8" in done.stderr
    assert "no MQTT broker answers at 127.0.0.1" in done.stderr
    assert "2 events were not acknowledged" in done.stderr


@pytest.mark.slow
def test_the_next_run_delivers_events_that_one_could_not(portraits: Path, broker: Broker, tmp_path: Path) -> None:
    settings = (
        f'[camera]\nfolder_fps = 4\n[store]\nfolder = "{tmp_path}"\n[mqtt]\nhost = "127.0.0.1"\ndevice = "kiosk"\n'
    )
    config = tmp_path / "mqtt.toml"
    config.write_text(f"{settings}port = {free_port()}\n")
    assert fer_edge("run", "--source", portraits, "--config", config, "--events", "mqtt").returncode == 8
    config.write_text(f"{settings}port = {broker.port}\n")
    with listening(broker.port) as listener:
        assert fer_edge("run", "--source", portraits, "--config", config, "--events", "mqtt").returncode == 0
        wait_until(lambda: len(listener.of("event")) == 4, 5)
        runs = [json.loads(payload)["id"].split("-")[0] for payload in listener.of("event")]
    assert runs == [runs[0], runs[0], runs[3], runs[3]]
    assert runs[0] != runs[3]


def test_classify_prints_one_object_per_picture_and_continues_after_a_bad_one(tmp_path: Path) -> None:
    empty, blank = tmp_path / "empty.png", tmp_path / "blank.png"
    empty.write_bytes(b"")
    cv2.imwrite(str(blank), np.full((200, 200), 90, np.uint8))
    done = fer_edge("classify", PORTRAIT, empty, blank, tmp_path / "absent.png", "--json")
    assert done.returncode == 1
    told = lines(done)
    assert [one["source"] for one in told] == [str(PORTRAIT), str(blank)]
    [face], nobody = told[0]["faces"], told[1]["faces"]
    assert nobody == []
    assert set(face) == {"box", "expression", "confidence", "scores"}
    assert tuple(face["scores"]) == FER2013_LABELS
    assert face["scores"][face["expression"]] == face["confidence"] == max(face["scores"].values())
    x, y, w, h = face["box"]
    assert x < 164 < x + w
    assert y < 114 < y + h
    assert "empty.png" in done.stderr
    assert "absent.png: cannot be read: No such file" in done.stderr


def test_verify_measures_a_folder_tree(tmp_path: Path) -> None:
    (tmp_path / "happy").mkdir()
    (tmp_path / "sad").mkdir()
    face = cv2.imread(str(PORTRAIT), cv2.IMREAD_GRAYSCALE)
    assert face is not None
    cv2.imwrite(str(tmp_path / "happy" / "a.png"), face[66:162, 116:212])
    cv2.imwrite(str(tmp_path / "sad" / "b.png"), face[66:162, 116:212])
    done = fer_edge("verify", "--data", tmp_path, "--json")
    assert done.returncode == 0
    [told] = lines(done)
    assert told["n"] == 2
    assert told["accuracy"] in (0.0, 0.5)
    assert np.sum(told["confusion"]) == 2
    assert set(told) >= {
        "macro_f1",
        "per_class",
        "ms_p50",
        "ms_p99",
        "ece",
        "nll",
        "golden",
        "runtime",
        "model",
        "sha256",
    }
    assert "accuracy" in fer_edge("verify", "--data", tmp_path).stdout


def test_verify_reads_the_challenges_archive_and_measures_publictest(blobs: Path, tmp_path: Path) -> None:
    archive = tmp_path / "fer2013.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(PORTRAIT, "fer2013/README")
        tar.add(blobs, "fer2013/fer2013.csv")
    done = fer_edge("verify", "--data", archive, "--json")
    assert done.returncode == 23, "nobody trained it on noise"
    [told] = lines(done)
    assert (told["n"], told["split"]) == (28, "PublicTest")
    bad = tmp_path / "bad.csv"
    bad.write_text(blobs.read_text().replace("Training", "Trainig", 1))
    done = fer_edge("verify", "--data", bad)
    assert (done.returncode, "bad.csv, data row 0 (line 2): Usage 'Trainig' is not" in done.stderr) == (7, True)


@pytest.mark.slow
def test_verify_finds_the_accuracy_that_the_card_states(public_test: Path) -> None:
    card = json.loads((find_bundle(ModelSettings().bundle) / "card.json").read_text())
    done = fer_edge("verify", "--data", public_test, "--split", "PublicTest", "--json")
    [told] = lines(done)
    assert (done.returncode, told["n"], told["same_faces"]) == (0, 3589, True)
    assert told["accuracy"] >= 0.62
    assert abs(told["accuracy"] - card["figures"]["accuracy"]) < 0.003


def test_a_video_whose_name_is_not_utf8_is_refused(tmp_path: Path) -> None:
    """OpenCV crashed with it."""
    video = tmp_path / os.fsdecode(b"b\xfcro.mp4")
    video.write_text("a video")
    done = fer_edge("run", "--source", video)
    assert (done.returncode, "b\\udcfcro.mp4': this name is not UTF-8" in done.stderr) == (5, True)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["run", "--source", "absent.mp4"], 5, "no such file, folder or device"),
        (["run", "--source", "/dev/video77"], 5, "Is it plugged in"),
        (["run", "--source", ""], 2, "--source: it is empty: give a name, or leave out the option"),
        (["run", "--source", "{empty}"], 5, "no pictures in it"),
        (["run", "--source", "{text}"], 5, "not a video"),
        (["run", "--source", "demo", "--config", "{wrong}"], 3, "mqtt.port"),
        (["run", "--source", "demo", "--config", "{nobundle}"], 4, "neither a bundled model"),
        (["run", "--source", "demo", "--sheet", "/absent/demo.png"], 5, "cannot be written"),
        (["verify", "--split", "PublicTest"], 2, "give that with --data"),
        (["verify", "--data", "absent.csv"], 7, "no such file or folder"),
        (["verify", "--data", "{text}"], 7, "not a FER2013 CSV"),
        (["classify"], 2, "IMAGE"),
        (["fly"], 2, "invalid choice"),
    ],
)
def test_bad_input_has_a_message_and_a_documented_exit_code(
    tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("hello\n")
    (tmp_path / "wrong").write_text('[mqtt]\nport = "x"\n')
    (tmp_path / "nobundle").write_text('[model]\nbundle = "nothing"\n')
    named = {name: tmp_path / name for name in ("empty", "text", "wrong", "nobundle")}
    done = fer_edge(*(argument.format(**named) for argument in arguments))
    assert (done.returncode, words in done.stderr) == (code, True), done.stderr


def test_a_closed_pipe_ends_the_run_quietly(portraits: Path, four_fps: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [PROGRAM, "run", "--source", portraits, "--config", four_fps],
        stdout=writing,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False)


@pytest.mark.parametrize("program", ["fer-edge", "fer-train", "fer-export"])
def test_each_program_says_its_version(program: str) -> None:
    done = subprocess.run([PROGRAM.with_name(program), "--version"], capture_output=True, text=True, check=True)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert done.stdout == f"{program} {version}\n"


def test_a_command_whose_stdout_was_closed_before_it_began_ends_well() -> None:
    closed = ["sh", "-c", '"$0" model list >&-', PROGRAM]
    done = subprocess.run(closed, stderr=subprocess.PIPE, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("command", "example"),
    [
        ([], "fer-edge run --source demo"),
        (["run"], "fer-edge run --source demo"),
        (["replay"], "fer-edge replay visits.jsonl"),
        (["classify"], "fer-edge classify portrait.jpg"),
        (["verify"], "fer-edge verify --data fer2013.csv"),
        (["doctor"], "fer-edge doctor --config"),
        (["bench"], "fer-edge bench --autotune"),
        (["model"], "fer-edge model install my-bundle.zip"),
        (["model", "use"], "fer-edge model use student-small"),
        (["service"], "fer-edge service status"),
    ],
)
def test_help_shows_examples_and_exit_codes(
    command: list[str], example: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        _parser().parse_args([*command, "--help"])
    shown = capsys.readouterr().out
    assert (ended.value.code, example in shown, "exit codes" in shown) == (0, True, True), shown


def test_the_device_side_loads_no_tensorflow_and_no_training_code() -> None:
    script = (
        "import pkgutil, importlib, sys, edge\n"
        "for module in pkgutil.walk_packages(edge.__path__, 'edge.'): importlib.import_module(module.name)\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert "edge" in loaded
    assert not {"tensorflow", "tf_keras", "keras", "train", "export"} & set(loaded)


@pytest.fixture
def couple(tmp_path: Path) -> Path:
    """Two visitors side by side for four seconds, as pictures."""
    folder = tmp_path / "couple"
    folder.mkdir()
    portrait = cv2.imread(str(PORTRAIT))
    assert portrait is not None
    for number in range(16):
        cv2.imwrite(str(folder / f"{number:02}.jpg"), np.hstack([portrait[:300, :300]] * 2))
    return folder


COUNTING = "[camera]\nfolder_fps = 4\n[privacy]\naggregate_only = true\nminimum_people = 2\n"


def test_aggregate_only_prints_counts_and_keeps_nothing_about_one_face(couple: Path, tmp_path: Path) -> None:
    config = tmp_path / "counting.toml"
    config.write_text(COUNTING)
    done = fer_edge("run", "--source", couple, "--config", config)
    assert done.returncode == 0
    [told] = lines(done)
    jsonschema.validate(told, json.loads((ROOT / "docs" / "aggregate.schema.json").read_text()))
    assert (told["people"], told["seconds"], sum(told["expressions"].values())) == (2, 3.75, 2)
    assert "\nfaces " not in done.stderr
    assert "expressions" not in done.stderr
    assert "ms a frame" not in done.stderr, "it would tell whether anybody was classified"
    config.write_text(COUNTING.replace("= 2", "= 3"))
    assert fer_edge("run", "--source", couple, "--config", config).stdout == ""
    for option in ("--record", "--sheet"):
        refused = fer_edge("run", "--source", couple, "--config", config, option, tmp_path / "kept")
        assert (refused.returncode, "aggregate_only forbids" in refused.stderr) == (2, True)
    assert not (tmp_path / "kept").exists()


@pytest.mark.slow
def test_aggregate_only_publishes_nothing_about_one_face(couple: Path, broker: Broker, tmp_path: Path) -> None:
    mqtt = f'[mqtt]\nhost = "127.0.0.1"\nport = {broker.port}\ndevice = "kiosk"\nstatistics_seconds = 1\n'
    own = f'[store]\nfolder = "{tmp_path}/state"\n[homeassistant]\nenabled = true\n'
    config = tmp_path / "counting.toml"
    with listening(broker.port) as listener:
        config.write_text(COUNTING.split("[privacy]", maxsplit=1)[0] + mqtt + own)
        assert fer_edge("run", "--source", couple, "--config", config, "--events", "mqtt").returncode == 0
        wait_until(lambda: listener.last("state"), 5)
        before = len(listener.messages)
        use = 'declared_use = "Counting smiles at the entrance"\n'
        config.write_text(COUNTING + use + mqtt + own)
        done = fer_edge("run", "--source", couple, "--config", config, "--events", "mqtt", "--realtime")
        assert (done.returncode, done.stdout) == (0, "")
        assert "declared_use" not in done.stderr
        wait_until(lambda: listener.of("aggregate") and listener.last("availability") == "offline", 5)
        messages = listener.messages[before:]
    topics = {topic.removeprefix("fer-edge/kiosk/") for topic, payload, _ in messages if payload}
    discovery = "homeassistant/device/fer-edge-kiosk/config"
    assert topics == {
        "availability",
        "camera",
        "aggregate",
        "statistics",
        "verification",
        "homeassistant/fault",
        discovery,
    }
    assert ("fer-edge/kiosk/state", "", False) in messages, "what was retained before is taken back"
    [counted] = listener.json("aggregate")
    jsonschema.validate(counted, json.loads((ROOT / "docs" / "aggregate.schema.json").read_text()))
    statistics = listener.json("statistics")[-1]
    assert (statistics["stage_ms"], statistics["declared_use"]) == ({}, "Counting smiles at the entrance")
    assert not [payload for _, payload, _ in messages if '"track"' in payload or '"confidence"' in payload]
    with listening(broker.port) as late:
        wait_until(lambda: late.last("availability"), 5)
        assert late.of("state") == []
