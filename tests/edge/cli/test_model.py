"""``fer-edge model`` as it is typed, and what the service publishes about its model."""

import json
import os
import re
import subprocess
import tempfile
from importlib import import_module
from pathlib import Path

import msgspec
import pytest

from edge.cli.main import _parser
from edge.cli.model import describe_card
from edge.errors import UsageError
from edge.labels import FER2013_LABELS
from edge.model.bundle import DEFAULT, find_bundle, read_card
from edge.model.registry import ModelRegistry
from tests.conftest import Broker, wait_until
from tests.edge.cli.test_main import PROGRAM, fer_edge
from tests.edge.listener import listening
from tests.edge.model.bundles import (
    AFFECTNET,
    accept,
    bundle_named,
    failing_bundle,
    relabelled_bundle,
    spoil_golden,
    zip_bundle,
)


def test_the_list_warns_when_the_settings_name_a_bundle(tmp_path: Path) -> None:
    ModelRegistry(tmp_path / "state").install(bundle_named(tmp_path, "mine"), accept)
    config = tmp_path / "config.toml"
    config.write_text(f'[store]\nfolder = "{tmp_path / "state"}"\n[model]\nbundle = "student-small"\n')
    done = fer_edge("model", "list", "--config", config)
    assert "that is what runs" in done.stderr
    assert done.stdout.splitlines()[-1].startswith("in use    mine-")


def test_a_model_without_the_expression_of_a_preset_is_not_put_in_use(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    preset = '[[preset]]\nname = "sneer"\nexpression = "contempt"\n'
    config.write_text(f'[store]\nfolder = "{tmp_path / "state"}"\n{preset}')
    done = fer_edge("model", "install", bundle_named(tmp_path, "mine"), "--config", config)
    assert (done.returncode, "has no expression 'contempt'" in done.stderr) == (3, True), done.stderr
    assert ModelRegistry(tmp_path / "state").installed() == []
    done = fer_edge("model", "install", relabelled_bundle(tmp_path, "other", AFFECTNET), "--config", config)
    assert (done.returncode, done.stdout.startswith("in use: other-")) == (0, True), done.stderr


def test_install_list_roll_back_and_use(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'[store]\nfolder = "{tmp_path / "state"}"\n')
    archive = zip_bundle(bundle_named(tmp_path, "mine"), tmp_path / "mine.zip", "mine/")
    done = fer_edge("model", "install", archive, "--config", config)
    assert (done.returncode, done.stdout.startswith("in use: mine-")) == (0, True), done.stderr
    done = fer_edge("model", "install", failing_bundle(tmp_path, "bad"), "--config", config)
    assert (done.returncode, "was not put in use" in done.stderr) == (23, True), done.stderr
    [own, *_, mine] = json.loads(fer_edge("model", "list", "--config", config, "--json").stdout)
    assert (own["role"], mine["role"]) == ("previous", "in use")
    assert fer_edge("model", "rollback", "--config", config).stdout == f"in use: {DEFAULT}\n"
    assert fer_edge("model", "use", mine["name"], "--config", config).returncode == 0
    assert mine["sha256"][:12] in fer_edge("verify", "--config", config).stdout
    assert fer_edge("model", "use", "nothing", "--config", config).returncode == 2
    assert fer_edge("model", "install", tmp_path / "absent", "--config", config).returncode == 4


def test_show_prints_everything_that_a_model_was_made_of(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'[store]\nfolder = "{tmp_path / "state"}"\n')
    shown = fer_edge("model", "show", "--config", config).stdout
    card = read_card(find_bundle(DEFAULT))
    assert all(f"  sha256  {source.sha256 or 'unknown'}" in shown for source in card.origin.sources)
    assert "start     faceres.json\n  source  npm @vladmandic/human" in shown
    assert re.search(r"data      Training of fer2013\.csv\S*\n  source  without [0-9]+ pictures", shown)
    told = json.loads(fer_edge("model", "show", "student-small", "--config", config, "--json").stdout)
    assert (told["name"], told["origin"]["sources"][0]["role"]) == ("student-small", "start")
    done = fer_edge("model", "show", tmp_path, "--config", config)
    assert (done.returncode, "neither a bundled model" in done.stderr) == (4, True), done.stderr


def test_show_of_a_card_of_version_4_says_that_it_has_no_list() -> None:
    card = read_card(find_bundle(DEFAULT))
    origin = msgspec.structs.replace(card.origin, sources=(), init="random")
    shown = describe_card(msgspec.structs.replace(card, schema_version=4, origin=origin))
    assert "a card of version 4 has no list of them; --json prints its lines" in shown


@pytest.mark.parametrize(
    "command",
    [
        ["model", "list"],
        ["model", "use", "student"],
        ["verify"],
        ["bench", "--autotune"],
        ["bench", "--source", "x"],
        ["classify", "x"],
    ],
)
def test_a_user_who_may_not_read_the_state_is_told_to_use_sudo(
    command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state folder is 0750: without this the bundled model would be taken for the one that runs."""
    with tempfile.TemporaryDirectory(dir="/tmp") as state:  # a folder that every user can reach
        monkeypatch.setenv("STATE_DIRECTORY", state)
        Path(state).chmod(0o300)
        arguments = _parser().parse_args(command)
        module, function = arguments.command
        command_function = getattr(import_module(module), function)  # here, since another user may not read the modules
        if os.geteuid() == 0:
            os.seteuid(65534)
        try:
            with pytest.raises(UsageError, match=f"^{state} cannot be read: Permission denied. This needs root: sudo"):
                command_function(arguments)
        finally:
            if os.getuid() == 0:
                os.seteuid(0)
            Path(state).chmod(0o700)


@pytest.mark.slow
def test_the_service_publishes_which_model_runs_and_why_another_does_not(tmp_path: Path, broker: Broker) -> None:
    state = tmp_path / "state"
    bad = relabelled_bundle(tmp_path, "bad", AFFECTNET)
    spoil_golden(bad)
    ModelRegistry(state).install(bad, accept)
    config = tmp_path / "config.toml"
    config.write_text(
        f'[store]\nfolder = "{state}"\n[mqtt]\nhost = "127.0.0.1"\nport = {broker.port}\ndevice = "kiosk"\n'
        '[homeassistant]\nenabled = true\n[[preset]]\nname = "sneer"\nexpression = "contempt"\n'
    )
    environ = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "nobody"), "RUNTIME_DIRECTORY": str(tmp_path)}
    words = [PROGRAM, "run", "--config", config, "--events", "mqtt", "--source", "demo", "--realtime"]
    with listening(broker.port) as listener, subprocess.Popen(words, env=environ, stderr=subprocess.DEVNULL) as kiosk:
        wait_until(lambda: listener.of("verification") and listener.json("fault") and listener.of("event"), 60)
        kiosk.terminate()
    assert (listener.json("verification")[0]["model"], listener.json("verification")[0]["ok"]) == (
        DEFAULT,
        True,
    )
    fault = listener.json("fault")[0]
    assert (fault["code"], "golden outputs differ" in fault["sentence"]) == (4, True)
    descriptions = [json.loads(text) for topic, text, _ in listener.messages if topic.endswith("/config")]
    options = [described["cmps"]["expression"]["options"][:-2] for described in descriptions]
    assert options == [list(AFFECTNET), list(FER2013_LABELS)], (
        "first those of the chosen model, then of the one that runs"
    )
