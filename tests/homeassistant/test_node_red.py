"""What a real Node-RED makes of events with the flow of the documentation."""

import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, Broker, free_port, wait_until
from tests.edge.listener import listening

pytestmark = pytest.mark.slow


@pytest.fixture
def node_red(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address of a Node-RED on loopback, and the file with its output."""
    program = os.environ.get("NODE_RED")
    if not program:
        pytest.skip("NODE_RED is not set to the program node-red (npm install node-red)")
    port, output = free_port(), tmp_path / "output"
    (tmp_path / "settings.js").write_text(
        f"module.exports = {{uiHost: '127.0.0.1', uiPort: {port}, flowFile: 'flows.json', credentialSecret: false}}"
    )
    command = [program, "--userDir", str(tmp_path), "--settings", str(tmp_path / "settings.js")]
    with output.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield f"http://127.0.0.1:{port}", output
    finally:
        process.terminate()
        process.wait(20)


def flow(port: int) -> list[dict]:
    """The flow with another port, as its user sets it, and with its results on Node-RED's output."""
    nodes = json.loads((ROOT / "docs" / "node-red-flow.json").read_text())
    more = {"mqtt-broker": {"broker": "127.0.0.1", "port": str(port)}, "debug": {"console": True}}
    return [node | more.get(node["type"], {}) for node in nodes]


def test_the_flow_separates_smiles_from_other_presets_and_lets_nothing_old_through(
    node_red: tuple[str, Path], broker: Broker
) -> None:
    address, output = node_red
    body = json.dumps(flow(broker.port)).encode()
    request = urllib.request.Request(f"{address}/flows", body, {"Content-Type": "application/json"})

    def imported() -> bool:
        assert not output.read_text().count("Error: "), output.read_text()
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status == 204
        except OSError:
            time.sleep(0.3)
            return False

    wait_until(imported, 120)
    wait_until(lambda: "Connected to broker" in output.read_text(), 60)
    time.sleep(1)  # it subscribes
    events = map(json.loads, (ROOT / "tests" / "golden" / "events.jsonl").read_text().splitlines())
    preset = next(event for event in events if event["kind"] == "preset") | {"name": "smile", "late": 0.1}
    sent = [{"late": 3600.0}, {"kind": "left", "name": None}, {"late": None}, {"name": "wave"}, {}]
    with listening(broker.port) as listener:
        for track, other in enumerate(sent, 70):
            listener.send("event", json.dumps({**preset, "track": track, **other}))
    wait_until(lambda: "track: 74" in output.read_text(), 30)
    text = output.read_text()
    assert not [track for track in (70, 71, 72) if f"track: {track}" in text]
    assert text.count("[debug:a smile]") == 1
    assert text.count("[debug:another preset]") == 1
