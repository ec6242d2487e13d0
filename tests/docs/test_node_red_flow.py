"""The flow for Node-RED, in the form that its import takes, against the schema of events."""

import json
import re
import shutil
import subprocess

import pytest

from tests.conftest import ROOT

FLOW = json.loads((ROOT / "docs" / "node-red-flow.json").read_text())
NODES = {node["id"]: node for node in FLOW}
CODE = next(node["func"] for node in FLOW if node["type"] == "function")


def test_every_node_leads_somewhere_and_stands_in_the_tab() -> None:
    assert len(NODES) == len(FLOW)
    [tab] = [node["id"] for node in FLOW if node["type"] == "tab"]
    for node in FLOW:
        if node["type"] in ("tab", "mqtt-broker"):
            continue
        assert node["z"] == tab
        assert {target for wires in node["wires"] for target in wires} <= NODES.keys()
        assert len(node["wires"]) == node.get("outputs", len(node["wires"]))
        if node["type"] == "mqtt in":
            assert NODES[node["broker"]]["type"] == "mqtt-broker"


def test_it_reads_only_fields_that_events_have() -> None:
    definitions = json.loads((ROOT / "docs" / "event.schema.json").read_text())["$defs"]
    read = set(re.findall(r"\bevent\.(\w+)", CODE))
    assert {"kind", "name", "late"} <= read <= definitions["DeliveredEvent"]["properties"].keys()
    of_expression = set(re.findall(r"\bevent\.expression\.(\w+)", CODE))
    assert of_expression <= definitions["Expression"]["properties"].keys()


@pytest.mark.parametrize(
    ("fields", "passes"),
    [
        ({}, True),
        ({"late": None}, False),
        ({"late": 71.2}, False),
        ({"kind": "left", "name": None}, False),
    ],
)
def test_its_function_lets_through_presets_that_are_not_old(fields: dict, passes: bool) -> None:
    node = shutil.which("node")
    if not node:
        pytest.skip("node is not installed")
    event = {
        "id": "a-1",
        "time": "2026-11-29T08:00:00.000+00:00",
        "kind": "preset",
        "name": "smile",
        "late": 0.1,
        "track": 3,
        "expression": {"label": "happy", "confidence": 0.9},
        **fields,
    }
    call = f"f({{payload: {json.dumps(event)}}})"
    program = f"const f = new Function('msg', {json.dumps(CODE)}); console.log(JSON.stringify({call}))"
    out = json.loads(subprocess.run([node, "-e", program], check=True, capture_output=True, text=True).stdout)
    assert (out is not None) == passes
    if out:
        assert (out["topic"], out["payload"]["expression"]) == ("smile", "happy")
