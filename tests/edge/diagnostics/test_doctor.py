"""All checks together, and the command ``fer-edge doctor``."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge.diagnostics import system_checks
from edge.diagnostics.doctor import examine
from edge.settings import MqttSettings, Settings
from edge.system.instance import instance_of
from tests.conftest import Broker, free_port


def run_doctor(
    tmp_path: Path, port: int, *options: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    config = tmp_path / "config.toml"
    config.write_text(f'[camera]\nsource = "demo"\n[mqtt]\nhost = "127.0.0.1"\nport = {port}\n')
    program = Path(sys.executable).with_name("fer-edge")
    command = [program, "doctor", "--config", config, *options]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env=os.environ | (environment or {})
    )


def test_the_doctor_works_when_numpy_does_not_import(tmp_path: Path) -> None:
    (tmp_path / "numpy").mkdir()
    (tmp_path / "numpy" / "__init__.py").write_text("raise ImportError('built for another Python')\n")
    done = run_doctor(tmp_path, free_port(), "--json", environment={"PYTHONPATH": str(tmp_path)})
    findings = {finding["name"]: finding for finding in json.loads(done.stdout)}
    assert done.returncode == 1
    assert findings["packages"]["level"] == "fail"
    assert "built for another Python" in findings["packages"]["sentence"]
    assert findings["config"]["level"] == "ok"


def test_a_folder_whose_name_is_not_utf8_is_checked_to_the_end(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    (folder / "mqtt-password").write_text("secret\n")
    done = run_doctor(folder, free_port())
    assert (done.returncode, "fail  broker      127.0.0.1" in done.stdout) == (1, True), done.stderr


def test_links_in_a_circle_are_a_finding(tmp_path: Path) -> None:
    circle = tmp_path / "circle"
    circle.symlink_to("circle")
    config, settings = system_checks.check_config(circle, circle)
    assert (instance_of(circle), config.level, settings) == (None, "fail", None)
    named = Settings(mqtt=MqttSettings(password_file=str(circle)))
    assert system_checks.check_secrets(named).level == "ok", "the check that needs the file says so"


def test_the_command_fails_with_the_worst_finding(tmp_path: Path) -> None:
    done = run_doctor(tmp_path, free_port(), "--json")
    findings = {finding["name"]: finding for finding in json.loads(done.stdout)}
    assert list(findings) == [
        *("system", "python", "clock", "throttling", "disk", "config"),
        *("privacy", "secrets", "packages", "groups", "camera", "detector", "model", "edgetpu", "broker"),
    ]
    assert all(set(finding) == {"name", "level", "sentence", "mend"} for finding in findings.values())
    assert findings["camera"]["level"] == findings["model"]["level"] == "ok"
    assert findings["broker"]["level"] == "fail"
    assert done.returncode == 1


def test_the_disk_is_that_of_the_folder_that_the_settings_name(tmp_path: Path) -> None:
    for text, folder in (
        (f'[store]\nfolder = "{tmp_path}/kept"\n', f"{tmp_path}/kept"),
        ("[store\n", "/var/lib/fer-edge"),
    ):
        (tmp_path / "config.toml").write_text(text)
        [disk] = [found for found in itertools.islice(examine(tmp_path / "config.toml"), 5) if found.name == "disk"]
        assert disk.sentence.endswith(f"MB free for {folder}")


def test_without_valid_settings_the_rest_is_not_checked(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("[camera\n")
    found = {finding.name: finding.level for finding in examine(tmp_path / "bad.toml")}
    assert found["config"] == "fail"
    assert found["camera"] == found["model"] == found["broker"] == "warn"


@pytest.mark.slow
def test_the_command_on_a_healthy_device(broker: Broker, tmp_path: Path) -> None:
    done = run_doctor(tmp_path, broker.port)
    assert done.returncode == 0, done.stdout
    assert "ok    camera      source demo: a frame of 640x480\n" in done.stdout
    assert "\nfail" not in done.stdout
