"""Every command of the pages is run, or checked as far as it can be here. tests/docs/rules.py says which and why."""

import argparse
import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import cv2
import pytest

from tests.conftest import PORTRAIT, ROOT, Broker, wait_until
from tests.docs.pages import PAGES, blocks, commands, name_of, tokens
from tests.docs.rules import PROGRAMS, RULES, Rule, rule_for
from train.recipes import customize, find_recipe

COMMANDS = commands()
BIN = Path(sys.executable).parent
PARSERS = {"fer-edge": "edge.cli.main", "fer-train": "train.cli", "fer-export": "export.cli"}


def commands_with_rule(how: str) -> list[str]:
    return [command for command in COMMANDS if (rule := rule_for(command)) and rule.how == how]


def rule_of(command: str) -> Rule:
    rule = rule_for(command)
    assert rule
    return rule


def test_every_command_has_a_rule_and_a_reason() -> None:
    unknown = {command: places for command, places in COMMANDS.items() if not rule_for(command)}
    assert unknown == {}, "say in tests/docs/rules.py what is done with it"
    assert [rule.pattern for rule in RULES if rule.how != "run" and not rule.why] == []
    for how in ("run", "elsewhere"):
        unused = [rule.pattern for rule in RULES if rule.how == how and not any(rule_for(c) == rule for c in COMMANDS)]
        assert unused == [], "no page has it any more"


@pytest.mark.parametrize("command", commands_with_rule("elsewhere"))
def test_the_other_test_contains_the_command(command: str) -> None:
    file, _, words = rule_of(command).why.partition(": ")
    assert words in (ROOT / file).read_text()


@pytest.mark.parametrize("command", commands_with_rule("parsed"))
def test_the_other_test_runs_the_same_action(command: str) -> None:
    files = re.findall(r"\btests/\S+\.py\b", rule_of(command).why)
    for file in files:
        action = ours(command)[1]
        words = (f'"{action}"', "--tune" in command and "tune_events(")
        assert any(word and word in (ROOT / file).read_text() for word in words), f"{file}: {action}"


def ours(command: str) -> list[str]:
    """The words of a command of one of our programs, its name first; otherwise nothing."""
    words = [word for word in shlex.split(command) if word != "sudo"]
    return [Path(words[0]).name, *words[1:]] if Path(words[0]).name in PROGRAMS else []


@pytest.mark.parametrize("command", [command for command in COMMANDS if ours(command)])
def test_the_parsers_accept_our_own_commands(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    program, *words = ours(command)
    if words == ["--help"]:
        return
    parser: argparse.ArgumentParser = importlib.import_module(PARSERS[program])._parser()
    try:
        arguments = parser.parse_args(words)
    except SystemExit:
        pytest.fail(capsys.readouterr().err)
    if program == "fer-train" and words[0] == "run":
        customize(find_recipe(arguments.recipe), arguments.set)


def commands_in_sentences() -> dict[str, str]:
    """Commands of ours in the middle of sentences and tables, and the page that has them."""
    inline = {
        child.content: name_of(page)
        for page in PAGES
        for token in tokens(page)
        for child in token.children or ()
        if child.type == "code_inline"
    }
    words = (*PROGRAMS, "make", "pytest")
    return {
        text: page for text, page in inline.items() if text.removeprefix("sudo ").split(" ")[0] in words and " " in text
    }


@pytest.mark.parametrize("text", commands_in_sentences())
def test_commands_in_sentences_exist(text: str) -> None:
    """A sentence may name a part of a command: its actions and options must be there."""
    program, *words = shlex.split(text.removeprefix("sudo ").replace("…", "").replace("|", " "))
    if program == "make":
        targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        assert words[0] in targets
    elif program == "pytest":
        assert (ROOT / words[0].partition("::")[0]).exists()
    else:
        parser: argparse.ArgumentParser | None = importlib.import_module(PARSERS[program])._parser()
        for word in words:
            assert parser
            actions = next((a.choices for a in parser._actions if isinstance(a, argparse._SubParsersAction)), None)
            if actions is not None and not word.startswith("-"):
                names: dict[str, Any] = dict(actions)
                several = "|" in text and word in names
                parser = parser if several and word != words[-1] else names[word]
            elif word.startswith("--"):
                assert any(word in action.option_strings for action in parser._actions), word


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("make ")])
def test_make_has_the_targets(command: str) -> None:
    done = subprocess.run([*shlex.split(command), "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    if command == "make demo":
        assert "fer-edge run --source demo --sheet demo.png" in done.stdout


@pytest.mark.parametrize("command", [command for command in COMMANDS if "pip install" in command])
def test_extras_that_are_installed_exist(command: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [(name, extra)] = re.findall(r"'(fer-edge|\.)\[(\w+)\]'", command)
    assert extra in project["optional-dependencies"]
    assert "--no-index" in command or name == "." or extra == "metrics", "fer-edge is on no index, unless it is there"


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("python -m ")])
def test_modules_that_are_run_exist_and_know_their_options(command: str) -> None:
    module = command.split()[2]
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [option for option in re.findall(r"--[a-z-]+", command) if option not in done.stdout] == []


@pytest.fixture(scope="module")
def desk(blobs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that has the files the pages name."""
    folder = tmp_path_factory.mktemp("desk")
    shutil.copy(PORTRAIT, folder / "portrait.jpg")
    shutil.copy(blobs, folder / "fer2013.csv")
    shutil.copytree(ROOT / "edge" / "bundles" / "student-small", folder / "my-bundle")
    portrait = cv2.imread(str(PORTRAIT))
    assert portrait is not None
    writer = cv2.VideoWriter(str(folder / "visit.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 15, portrait.shape[1::-1])
    for _ in range(15):
        writer.write(portrait)
    writer.release()
    (folder / "my.toml").write_text('[camera]\nsource = "visit.mp4"\n')
    (folder / "other.toml").write_text("[events]\ndwell = 0.1\n")
    assert run_in_shell("fer-edge run --config my.toml --record visits.jsonl", folder).returncode == 0
    return folder


def environment(folder: Path) -> dict[str, str]:
    """Somebody who has only this folder, and our programs on the PATH."""
    return {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),
        "XDG_STATE_HOME": str(folder / "state"),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "XDG_CONFIG_HOME": str(folder / "config"),
    }


def run_in_shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command as it is written, by a shell."""
    return subprocess.run(
        command,
        shell=True,
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    "command",
    [pytest.param(c, marks=[pytest.mark.slow] if rule_of(c).needs else []) for c in commands_with_rule("run")],
)
def test_the_command_runs_as_written(command: str, desk: Path) -> None:
    rule = rule_of(command)
    if rule.needs:
        pytest.importorskip(rule.needs, reason="the train extra is not installed")
    done = run_in_shell(f"{command} {rule.less}", desk)
    assert done.returncode == rule.code, done.stderr
    assert done.stdout or done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_quick_start_publishes_the_events_that_it_names(broker: Broker, tmp_path: Path) -> None:
    """Its settings, its two commands; only the broker's port is another."""
    if not shutil.which("mosquitto_sub"):
        pytest.skip("mosquitto_sub is not installed (apt install mosquitto-clients)")
    [settings] = [block.text for block in blocks() if block.page == "docs/quick-start.md" and block.language == "toml"]
    (tmp_path / "my.toml").write_text(settings.replace("[mqtt]", f"[mqtt]\nport = {broker.port}"))
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "mosquitto_sub").write_text(f"-p {broker.port}\n")
    [listen] = [command for command in COMMANDS if command.startswith("mosquitto_sub -v -t 'fer-edge/desk/")]
    [publish] = [command for command in COMMANDS if "--source demo --events mqtt" in command]
    received = tmp_path / "received"
    with (
        received.open("w") as output,
        subprocess.Popen(
            shlex.split(listen), env=environment(tmp_path), stdout=output, stderr=subprocess.STDOUT
        ) as listening,
    ):
        done = run_in_shell(publish, tmp_path)
        assert done.returncode == 0, done.stderr
        wait_until(lambda: "availability offline" in received.read_text(), 10)
        listening.terminate()
    kinds = re.findall(r'^fer-edge/desk/event .*?"kind":"(\w+)"', received.read_text(), re.MULTILINE)
    assert kinds == ["appeared", "preset", "left"]
    assert '"name":"smile"' in received.read_text()
    assert "fer-edge/desk/availability online" in received.read_text()
