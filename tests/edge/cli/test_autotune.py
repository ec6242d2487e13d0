"""``fer-edge bench --autotune`` as it is typed, and its report."""

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from edge.cli.autotune import describe_use, format_tuning
from edge.model.bundle import DEFAULT, find_bundle, open_bundle
from edge.model.registry import ModelRegistry
from edge.model.tuning import load_tuning
from edge.settings import ModelSettings
from tests.conftest import StandIn
from tests.edge.cli.test_main import fer_edge
from tests.edge.installed import installed
from tests.edge.model.bundles import accept
from tests.edge.model.test_tuning import cpu, tuned


def test_the_table_marks_the_choice_and_the_outcome_of_the_edge_tpu(standin: StandIn) -> None:
    without = msgspec.structs.replace(tuned(standin, cpu(1, 0.5), cpu(2, 0.49)), edgetpu="absent: no device")
    lines = format_tuning(without).splitlines()[1:]
    assert [line.split("  ")[1] for line in lines] == ["CPU, 1 thread", "CPU, 2 threads", "Edge TPU"]
    assert ["chosen" in line for line in lines] == [True, False, False]
    assert lines[-1].endswith("absent: no device")


def test_settings_that_override_the_choice_are_named() -> None:
    assert describe_use(ModelSettings()) == "used from the next start on"
    assert describe_use(ModelSettings(threads=2, accelerator="cpu")) == (
        'but the settings say model.threads = 2 and model.accelerator = "cpu"'
    )


@pytest.mark.slow
def test_the_command_measures_saves_and_prints(standin: StandIn, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(
        f'[model]\nbundle = "{standin.bundle}"\nedgetpu_library = "{standin.library}"\n[store]\nfolder = "{tmp_path}"\n'
    )
    fer_edge = [sys.executable, "-c", "import sys; from edge.cli.main import main; sys.exit(main())"]
    done = subprocess.run(
        [*fer_edge, "bench", "--autotune", "--json", "--config", config], capture_output=True, text=True, check=True
    )
    told = json.loads(done.stdout)
    cores = len(os.sched_getaffinity(0))
    assert [(way["accelerator"], way["threads"]) for way in told["measured"]] == [
        *(("cpu", threads) for threads in range(1, min(cores, 8) + 1)),
        ("edgetpu", 1),
    ]
    assert all(way["ms"] > 0 for way in told["measured"])
    assert told["file"] == str(tmp_path / "tuned.json")
    choice = load_tuning(tmp_path, open_bundle(standin.bundle))
    assert choice
    del told["file"]
    assert json.loads(msgspec.json.encode(choice)) == told


@pytest.mark.slow
def test_the_model_in_use_is_measured_and_then_run_with_the_choice(tmp_path: Path) -> None:
    """Else every start would say that the choice is of another model."""
    config = tmp_path / "config.toml"
    config.write_text(f'[store]\nfolder = "{tmp_path / "state"}"\n')
    ModelRegistry(tmp_path / "state").use("student-small", accept)
    done = fer_edge("bench", "--autotune", "--json", "--config", config)
    assert done.returncode == 0, done.stderr
    in_use = open_bundle(find_bundle("student-small"))
    assert json.loads(done.stdout)["holds_for"]["model"] == in_use.card.sha256
    assert load_tuning(tmp_path / "state", in_use)


@pytest.mark.slow
def test_on_a_device_the_choice_is_made_and_kept_for_its_service() -> None:
    """Users type it as the pages say, without --config."""
    with installed() as device:
        device.write_settings('[model]\naccelerator = "cpu"\nthreads = 1\n')
        done = device.fer_edge("bench", "--autotune")
        assert done.returncode == 0
        assert "kept in /var/lib/fer-edge/tuned.json; but the settings say model.threads = 1" in done.stdout
        assert load_tuning(device.state, open_bundle(find_bundle(DEFAULT)))
        done = device.fer_edge("bench", "--autotune", "--json", "--config", "/etc/fer-edge/door/config.toml")
        assert json.loads(done.stdout)["file"] == "/var/lib/fer-edge/door/tuned.json"


@pytest.mark.parametrize("words", [("--bundle", "student-small"), ("--truth", "x"), ("--picture", "x.png")])
def test_what_only_a_comparison_takes_is_refused(words: tuple[str, str]) -> None:
    done = fer_edge("bench", "--autotune", *words)
    assert (done.returncode, f"leave out {words[0]}" in done.stderr) == (2, True), done.stderr
