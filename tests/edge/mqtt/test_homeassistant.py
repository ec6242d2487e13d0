"""The description for Home Assistant, against the names that its documentation and source have (2026)."""

import json
import re

import jinja2
import pytest

from edge.model.preprocessing import LABELS
from edge.mqtt.homeassistant import DeviceDescription, birth_topic, discovery, discovery_topic
from edge.settings import HomeAssistantSettings
from tests.conftest import ROOT

TIME = "2026-11-22T16:03:05.004+00:00"
GOLDEN = ROOT / "tests" / "golden" / "homeassistant.json"
GOLDEN_AGGREGATE = GOLDEN.with_name("homeassistant-aggregate.json")

# Of home-assistant/core, homeassistant/components/mqtt: schemas.py and abbreviations.py
ROOT_KEYS = {"dev", "o", "cmps", "qos"}
DEVICE_KEYS = {"ids", "name", "mf", "mdl", "sw", "hw", "sn"}
ORIGIN_KEYS = {"name", "sw", "url"}
ENTITY_KEYS = {
    "p",
    "unique_id",
    "default_entity_id",
    "name",
    "entity_category",
    "icon",
    "state_topic",
    "availability",
    "availability_mode",
}
PLATFORM_KEYS = {
    "sensor": {
        "device_class",
        "options",
        "value_template",
        "state_class",
        "unit_of_measurement",
        "expire_after",
        "json_attributes_topic",
    },
    "binary_sensor": {"device_class", "value_template", "expire_after", "payload_on", "payload_off"},
    "event": {"event_types", "value_template", "device_class"},
    "switch": {"command_topic", "payload_on", "payload_off", "state_on", "state_off"},
}


def described(
    *, pausable: bool = True, base: str = "fer-edge/kiosk", aggregate_only: bool = False
) -> DeviceDescription:
    device = base.rpartition("/")[2]
    return DeviceDescription(base, device, "Raspberry Pi 5 Model B Rev 1.0", pausable, 60.0, ("smile",), aggregate_only)


def payload(**more: str | bool) -> dict:
    return json.loads(discovery(HomeAssistantSettings(), described(**more)))


def entities(made: dict) -> list[dict]:
    """What Home Assistant has then; a component that is only named is taken back."""
    return [component for component in made["cmps"].values() if component.keys() != {"p"}]


@pytest.mark.parametrize("aggregate_only", [False, True])
def test_the_golden_description_is_reproduced(aggregate_only: bool) -> None:
    made = payload(aggregate_only=aggregate_only)
    made["dev"]["sw"] = made["o"]["sw"] = "0.1.0"
    assert made == json.loads((GOLDEN_AGGREGATE if aggregate_only else GOLDEN).read_text())


def test_with_aggregates_only_no_entity_tells_of_one_person() -> None:
    people, counts = payload()["cmps"], payload(aggregate_only=True)["cmps"]
    assert people.keys() == counts.keys(), "each removes the entities that only the other has"
    taken = {name for name, component in counts.items() if component.keys() == {"p"}}
    assert taken == {"expression", "occupancy", "faces", "event"}
    topics = {component["state_topic"].rpartition("/")[2] for component in entities({"cmps": counts})}
    assert topics == {"aggregate", "statistics", "paused", "fault"}
    assert people["people"] == {"p": "sensor"}


def test_every_name_is_one_that_home_assistant_knows() -> None:
    made = payload()
    assert made.keys() == ROOT_KEYS
    assert made["dev"].keys() <= DEVICE_KEYS
    assert made["o"].keys() <= ORIGIN_KEYS
    for component in entities(made):
        assert component.keys() <= ENTITY_KEYS | PLATFORM_KEYS[component["p"]], component
        assert {"p", "unique_id", "default_entity_id", "state_topic"} <= component.keys()


@pytest.mark.parametrize("base", ["fer-edge/kiosk", "house/Hall 1/Kiosk_2", "fer-edge/10000000abcdef01"])
def test_ids_have_the_form_that_home_assistant_wants(base: str) -> None:
    made = payload(base=base)
    assert re.fullmatch(r"homeassistant/device/[a-zA-Z0-9_-]+/config", discovery_topic(HomeAssistantSettings(), base))
    ids = [component["default_entity_id"] for component in entities(made)]
    for component, entity in zip(entities(made), ids, strict=True):
        # homeassistant.core.valid_entity_id
        assert re.fullmatch(r"(?!.+__)(?!_)[\da-z_]+(?<!_)\.(?!_)[\da-z_]+(?<!_)", entity)
        assert entity.startswith(f"{component['p']}.")
    assert len(set(ids)) == len(ids)


def test_unique_ids_differ_between_entities_and_devices() -> None:
    both = [entities(payload(base=base)) for base in ("fer-edge/one", "fer-edge/two")]
    unique = [component["unique_id"] for components in both for component in components]
    assert len(set(unique)) == len(unique)


def test_an_enum_has_options_and_no_unit_or_state_class() -> None:
    expression = payload()["cmps"]["expression"]
    assert expression["options"] == list(LABELS)
    assert not expression.keys() & {"unit_of_measurement", "state_class"}


def test_there_is_a_switch_only_where_there_is_something_to_pause() -> None:
    assert "pause" in payload()["cmps"]
    assert "pause" not in payload(pausable=False)["cmps"]


def test_presets_are_event_types_by_their_names() -> None:
    assert payload()["cmps"]["event"]["event_types"] == ["appeared", "changed", "uncertain", "left", "smile"]


@pytest.mark.parametrize(
    ("event", "kind", "label"),
    [
        ({"kind": "changed", "name": None, "expression": {"label": "happy", "confidence": 0.9}}, "changed", "happy"),
        ({"kind": "preset", "name": "smile", "expression": {"label": "happy", "confidence": 0.9}}, "smile", "happy"),
        ({"kind": "uncertain", "name": None, "expression": None}, "uncertain", None),
    ],
)
def test_the_event_template_gives_what_home_assistant_wants(event: dict, kind: str, label: str | None) -> None:
    environment = jinja2.Environment(autoescape=False)
    environment.filters["to_json"] = json.dumps  # as Home Assistant adds it
    template = environment.from_string(payload()["cmps"]["event"]["value_template"])
    rendered = json.loads(
        template.render(
            value_json={"id": "a-1", "track": 1, "time": TIME, "late": 0.2, "reason": None, "episode": None, **event}
        )
    )
    assert (rendered["event_type"], rendered["expression"]) == (kind, label)
    assert (rendered["time"], rendered["late"]) == (TIME, 0.2)


def test_problem_and_fault_are_always_available_and_people_only_while_the_camera_sees() -> None:
    """Without a camera, Problem was unavailable when it mattered, and Occupancy said that nobody is there."""
    made = payload()
    topics = {
        name: [one["topic"].removeprefix("fer-edge/kiosk/") for one in component.get("availability", [])]
        for name, component in made["cmps"].items()
        if component.keys() != {"p"}
    }
    assert {name for name, needed in topics.items() if not needed} == {"problem", "fault"}
    assert {name for name, needed in topics.items() if "camera" in needed} == {"expression", "occupancy", "faces"}
    for component in entities(made):
        assert component.get("availability_mode", "all") == "all"


@pytest.mark.parametrize("aggregate_only", [False, True])
def test_templates_survive_an_empty_payload(aggregate_only: bool) -> None:
    environment = jinja2.Environment(autoescape=False, undefined=jinja2.StrictUndefined)
    for name, component in payload(aggregate_only=aggregate_only)["cmps"].items():
        if name != "event" and "value_template" in component:
            assert environment.from_string(component["value_template"]).render() == "None", name


def test_values_that_go_stale_expire() -> None:
    for component in entities(payload()):
        assert ("expire_after" in component) == component["state_topic"].endswith("/statistics")


def test_topics_follow_the_prefix() -> None:
    assert birth_topic(HomeAssistantSettings(prefix="ha")) == "ha/status"
    assert discovery_topic(HomeAssistantSettings(prefix="ha"), "fer-edge/kiosk") == "ha/device/fer-edge-kiosk/config"


def test_the_device_may_have_a_name_of_its_own() -> None:
    made = json.loads(discovery(HomeAssistantSettings(name="Entrance"), described()))
    assert made["dev"]["name"] == "Entrance"
