"""The description for Home Assistant, against the names that its documentation and source have (2026)."""

import json
import re
from dataclasses import replace
from typing import Any

import jinja2
import pytest

from edge.labels import FER2013_LABELS
from edge.mqtt.homeassistant import birth_topic, discovery, discovery_topic
from edge.mqtt.homeassistant_entities import DeviceDescription
from edge.settings import HomeAssistantSettings
from tests.conftest import ROOT

TIME = "2026-11-22T16:03:05.004+00:00"
GOLDEN = ROOT / "tests" / "golden" / "homeassistant.json"
GOLDEN_AGGREGATE = GOLDEN.with_name("homeassistant-aggregate.json")

# Of home-assistant/core, homeassistant/components/mqtt: schemas.py and abbreviations.py
ROOT_KEYS = {"dev", "o", "cmps", "qos"}
DEVICE_KEYS = {"ids", "name", "mf", "mdl", "sw", "hw", "sn", "cu"}
ORIGIN_KEYS = {"name", "sw", "url"}
ENTITY_KEYS = {
    "p",
    "unique_id",
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
        "enabled_by_default",
        "json_attributes_topic",
        "json_attributes_template",
    },
    "binary_sensor": {"device_class", "value_template", "expire_after", "payload_on", "payload_off"},
    "event": {"event_types", "value_template", "device_class"},
    "button": {"command_topic", "payload_press", "device_class"},
    "switch": {"command_topic", "payload_on", "payload_off", "state_on", "state_off"},
}


DESCRIBED = DeviceDescription(
    base="fer-edge/kiosk",
    device="kiosk",
    board="Raspberry Pi 5 Model B Rev 1.0",
    labels=FER2013_LABELS,
    pausable=True,
    statistics_seconds=60.0,
    interval_seconds=300.0,
    presets=("smile",),
    serial="10000000abcdef01",
)


def payload(former: dict[str, str] | None = None, **more: Any) -> dict:
    return json.loads(discovery(HomeAssistantSettings(), replace(DESCRIBED, **more), former))


def entities(made: dict) -> list[dict]:
    """What Home Assistant has then; a component that is only named is taken back, and a trigger is no entity."""
    return [
        component
        for component in made["cmps"].values()
        if component.keys() != {"p"} and component["p"] != "device_automation"
    ]


def removed(made: dict) -> set[str]:
    return {name for name, component in made["cmps"].items() if component.keys() == {"p"}}


def template(text: str) -> jinja2.Template:
    environment = jinja2.Environment(autoescape=False, undefined=jinja2.StrictUndefined)
    environment.filters["to_json"] = json.dumps  # as Home Assistant adds it
    return environment.from_string(text)


def rendered(component: str, key: str, value_json: dict) -> str:
    return template(payload()["cmps"][component][key]).render(value_json=value_json)


@pytest.mark.parametrize("aggregate_only", [False, True])
def test_the_golden_description_is_reproduced(aggregate_only: bool) -> None:
    made = payload(aggregate_only=aggregate_only)
    made["dev"]["sw"] = made["o"]["sw"] = "0.1.0"
    assert made == json.loads((GOLDEN_AGGREGATE if aggregate_only else GOLDEN).read_text())


def test_with_aggregates_only_no_entity_tells_of_one_person() -> None:
    people, counts = payload()["cmps"], payload(aggregate_only=True)["cmps"]
    assert people.keys() == counts.keys(), "each removes the entities that only the other has"
    triggers = {f"trigger-{kind}" for kind in ("appeared", "changed", "uncertain", "left", "smile")}
    assert removed({"cmps": counts}) == {
        *("expression", "occupancy", "faces", "event", "visitors", "count-smile"),
        *triggers,
    }
    topics = {component.get("state_topic", "").rpartition("/")[2] for component in entities({"cmps": counts})}
    assert topics == {"aggregate", "statistics", "paused", "fault", "verification", ""}
    assert people["people"] == {"p": "sensor"}


def test_every_name_is_one_that_home_assistant_knows() -> None:
    made = payload()
    assert made.keys() == ROOT_KEYS
    assert made["dev"].keys() <= DEVICE_KEYS
    assert made["o"].keys() <= ORIGIN_KEYS
    for component in entities(made):
        assert component.keys() <= ENTITY_KEYS | PLATFORM_KEYS[component["p"]], component
        assert {"p", "unique_id", "name"} <= component.keys()
        assert ("state_topic" in component) == (component["p"] != "button")


@pytest.mark.parametrize("base", ["fer-edge/kiosk", "house/Hall 1/Kiosk_2", "fer-edge/10000000abcdef01"])
def test_the_topic_has_the_form_that_home_assistant_wants(base: str) -> None:
    assert re.fullmatch(r"homeassistant/device/[a-zA-Z0-9_-]+/config", discovery_topic(HomeAssistantSettings(), base))


def test_entities_of_a_device_have_different_names_and_no_other_source_of_ids() -> None:
    """Of the names it makes the ids, in all versions; ``default_entity_id`` would count from 2025.10 on."""
    made = entities(payload())
    ids = [(component["p"], re.sub(r"[^a-z0-9]+", "_", component["name"].lower())) for component in made]
    assert len(set(ids)) == len(ids)
    assert not [component for component in made if {"object_id", "default_entity_id"} & component.keys()]


def test_unique_ids_differ_between_entities_and_devices() -> None:
    both = [entities(payload(base=base)) for base in ("fer-edge/one", "fer-edge/two")]
    unique = [component["unique_id"] for components in both for component in components]
    assert len(set(unique)) == len(unique)


def test_an_enum_has_options_and_no_unit_or_state_class() -> None:
    expression = payload()["cmps"]["expression"]
    assert expression["options"] == [*FER2013_LABELS, "uncertain", "nobody"]
    assert not expression.keys() & {"unit_of_measurement", "state_class"}


@pytest.mark.parametrize(
    ("without", "gone"),
    [
        ("pausable", {"pause"}),
        ("commands", {"pause", "verify", "restart"}),
        ("restartable", {"restart"}),
        ("has_temperature", {"temperature"}),
        ("has_throttling", {"throttled"}),
    ],
)
def test_what_is_not_offered_is_taken_back(without: str, gone: set[str]) -> None:
    """A switch used to stay that paused nothing."""
    everything = payload()
    made = payload(**{without: False})
    assert removed(made) == removed(everything) | gone
    for name in gone:
        assert made["cmps"][name] == {"p": everything["cmps"][name]["p"]}, "by its platform"


def test_a_preset_of_before_is_taken_back() -> None:
    before = payload(presets=("smile", "frown"))["cmps"]
    former = {name: fields["p"] for name, fields in before.items()}
    gone = {"count-frown", "trigger-frown"}
    assert gone <= removed(payload(former))
    assert not gone & payload()["cmps"].keys()
    assert payload(former, presets=("smile", "frown"))["cmps"] == before


@pytest.mark.parametrize(
    ("state", "shown"),
    [
        ({"faces": 0, "expression": None}, "nobody"),
        ({"faces": 2, "expression": None}, "uncertain"),
        ({"faces": 1, "expression": "happy"}, "happy"),
    ],
)
def test_nobody_and_uncertain_are_states_of_their_own(state: dict, shown: str) -> None:
    assert rendered("expression", "value_template", state) == shown


def test_attributes_say_since_when_how_sure_and_why_not() -> None:
    state = {"faces": 1, "expression": None, "confidence": None, "reason": "blurred", "since": TIME}
    shown = json.loads(rendered("expression", "json_attributes_template", state))
    assert shown == {"confidence": None, "reason": "blurred", "since": TIME}


def test_a_fault_is_a_code_and_a_sentence_of_at_most_255_characters() -> None:
    wrong = {"problem": True, "code": 5, "sentence": "no camera " * 99, "time": TIME}
    assert rendered("problem", "value_template", wrong) == "ON"
    assert rendered("fault", "value_template", wrong).startswith("5: no camera")
    assert len(rendered("fault", "value_template", wrong)) == 255
    right = {"problem": False, "code": None, "sentence": None, "time": None}
    assert (rendered("problem", "value_template", right), rendered("fault", "value_template", right)) == ("OFF", "none")


@pytest.mark.parametrize(("value", "shown"), [(14.83, "15.0"), (None, "None")])
def test_health_is_rounded_so_that_a_history_has_fewer_rows(value: float | None, shown: str) -> None:
    assert rendered("fps", "value_template", {"fps": value}) == shown
    assert rendered("temperature", "value_template", {"temperature": value}) == shown


@pytest.mark.parametrize("aggregate_only", [False, True])
def test_a_count_has_no_unit_because_its_name_says_what_is_counted(aggregate_only: bool) -> None:
    """A page with "Faces 1 faces" reads badly, and statistics that began without a unit would be broken off."""
    made = entities(payload(aggregate_only=aggregate_only))
    assert {one.get("unit_of_measurement") for one in made} == {None, "fps", "°C"}


def test_a_trigger_comes_with_each_type_of_event() -> None:
    trigger = payload()["cmps"]["trigger-smile"]
    assert (trigger["p"], trigger["automation_type"], trigger["payload"]) == ("device_automation", "trigger", "smile")
    assert trigger["topic"] == "fer-edge/kiosk/homeassistant/event", "never an old event"
    assert rendered("trigger-smile", "value_template", {"kind": "preset", "name": "smile"}) == "smile"
    assert rendered("trigger-left", "value_template", {"kind": "left", "name": None}) == "left"


def test_the_device_page_shows_board_revision_and_serial_number() -> None:
    made = payload()["dev"]
    assert (made["mdl"], made["hw"], made["sn"]) == ("Raspberry Pi 5 Model B", "Rev 1.0", "10000000abcdef01")
    assert made["cu"].startswith("https://")
    plain = payload(board="", serial="")["dev"]
    assert plain["mdl"] == "computer"
    assert not plain.keys() & {"hw", "sn"}


def test_different_devices_have_different_identities() -> None:
    bases = ["fer-edge/入口", "fer-edge/出口", "fer-edge/Küche", "fer-edge/K-che", "site/a/b", "site/a-b", "site-a/b"]
    bases += ["fer/edge-kiosk", "fer-edge/kiosk"]
    assert len({discovery_topic(HomeAssistantSettings(), base) for base in bases}) == len(bases)
    unique = [entities(payload(base=base))[0]["unique_id"] for base in bases]
    assert len(set(unique)) == len(bases)


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
    whole = {"id": "a-1", "track": 1, "time": TIME, "late": 0.2, "reason": None, "episode": None, **event}
    shown = json.loads(rendered("event", "value_template", whole))
    assert (shown["event_type"], shown["expression"]) == (kind, label)
    assert (shown["time"], shown["late"]) == (TIME, 0.2)


def test_problem_and_fault_are_always_available_and_people_only_while_the_camera_sees() -> None:
    """Without a camera, Problem was unavailable when it mattered, and Occupancy said that nobody is there."""
    made = payload()
    topics = {
        name: [one["topic"].removeprefix("fer-edge/kiosk/") for one in component.get("availability", [])]
        for name, component in made["cmps"].items()
        if component.keys() != {"p"} and component["p"] != "device_automation"
    }
    assert {name for name, needed in topics.items() if not needed} == {"problem", "fault"}
    assert {name for name, needed in topics.items() if "camera" in needed} == {"expression", "occupancy", "faces"}
    for component in entities(made):
        assert component.get("availability_mode", "all") == "all"


@pytest.mark.parametrize("aggregate_only", [False, True])
def test_templates_survive_an_empty_payload(aggregate_only: bool) -> None:
    for name, component in payload(aggregate_only=aggregate_only)["cmps"].items():
        if name == "event" or name.startswith("trigger") or component.keys() == {"p"}:
            continue
        for key in component.keys() & {"value_template", "json_attributes_template"}:
            shown = template(component[key]).render()
            assert shown == ("None" if key == "value_template" else "{}"), name


def test_values_that_go_stale_expire() -> None:
    for component in entities(payload()):
        assert ("expire_after" in component) == component.get("state_topic", "").endswith("/statistics")
    assert payload(aggregate_only=True)["cmps"]["people"]["expire_after"] == 600, "two intervals"


def test_topics_follow_the_prefix() -> None:
    assert birth_topic(HomeAssistantSettings(prefix="ha")) == "ha/status"
    assert discovery_topic(HomeAssistantSettings(prefix="ha"), "fer-edge/kiosk") == "ha/device/fer-edge-kiosk/config"


def test_the_device_may_have_a_name_of_its_own() -> None:
    made = json.loads(discovery(HomeAssistantSettings(name="Entrance"), DESCRIBED))
    assert made["dev"]["name"] == "Entrance"
