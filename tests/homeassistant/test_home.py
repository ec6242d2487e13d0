"""What a real Home Assistant shows of a device, from discovery to removal."""

import json
import re
import time

import pytest

from tests.conftest import ROOT, Broker, wait_until
from tests.edge.listener import listening
from tests.edge.proxy import proxied
from tests.homeassistant.conftest import Making
from tests.homeassistant.device import PRESET, Door
from tests.homeassistant.instance import HomeAssistant

pytestmark = pytest.mark.slow


def shows(home: HomeAssistant, entity: str, *states: str | None) -> bool:
    return home.state(entity) in states


def documented() -> dict[str, str]:
    """The names of the entities by their ids, in the documentation's table."""
    rows = re.findall(
        r"^\| ([^|]+) \| `(\w+\.fer_edge_kiosk_\w+)` \|", (ROOT / "docs" / "mqtt.md").read_text(), re.MULTILINE
    )
    return {entity: name for name, entity in rows}


def test_every_entity_is_there_as_documented_and_has_a_state(home: HomeAssistant, device: Making) -> None:
    device("all").start(PRESET)
    wait_until(lambda: shows(home, "sensor.fer_edge_all_expression", "happy"), 60)
    page = json.loads(home.render("{{ device_entities(device_id('sensor.fer_edge_all_expression')) | to_json }}"))
    names = {entity: home.states()[entity]["attributes"]["friendly_name"] for entity in page}
    expected = {entity.replace("kiosk", "all"): f"fer-edge all {name}" for entity, name in documented().items()}
    only_there = expected.keys() - names.keys()
    assert names == {entity: name for entity, name in expected.items() if entity in names}
    boards = {"sensor.fer_edge_all_temperature", "binary_sensor.fer_edge_all_throttled"}
    elsewhere = {"sensor.fer_edge_all_people", "sensor.fer_edge_all_frames_per_second"}  # of counts; not enabled
    assert elsewhere <= only_there <= boards | elsewhere
    wait_until(lambda: not shows(home, "sensor.fer_edge_all_accelerator", "unknown", "unavailable"), 20)
    silent = {entity for entity in page if home.state(entity) == "unavailable"}
    assert not silent
    assert not [line for line in home.complaints() if "fer-edge" in line or "emplate" in line]


def test_events_come_with_time_and_delay(home: HomeAssistant, device: Making, door: Door) -> None:
    door.somebody = False  # Home Assistant misses events of the moment in which it first hears of a device
    device("events").start(PRESET)
    wait_until(lambda: shows(home, "binary_sensor.fer_edge_events_occupancy", "off"), 60)
    door.somebody = True
    event = "event.fer_edge_events_visitor"
    wait_until(
        lambda: any(one.attributes.get("event_type") == "smile" for one in home.changes if one.entity == event), 60
    )
    smile = next(one for one in home.changes if one.entity == event and one.attributes.get("event_type") == "smile")
    assert smile.attributes["late"] < 5
    assert smile.attributes["time"][:10] == str(smile.state)[:10]
    assert smile.attributes["expression"] == "happy"


def test_the_blueprint_switches_on_a_smile(home: HomeAssistant, device: Making, door: Door) -> None:
    assert home.state("automation.a_smile_turns_on_the_lamp") == "on"
    home.call("input_boolean.turn_off", entity_id="input_boolean.lamp")
    door.somebody = False
    device("lamp").start(PRESET)
    wait_until(lambda: shows(home, "binary_sensor.fer_edge_lamp_occupancy", "off"), 60)
    door.somebody = True
    wait_until(lambda: shows(home, "input_boolean.lamp", "on"), 60)


def test_the_blueprint_acts_once_for_each_smile(
    home: HomeAssistant, home_broker: Broker, device: Making, door: Door
) -> None:
    visitor = "event.fer_edge_lamp_visitor"
    home.call("counter.reset", entity_id="counter.smiles")
    door.somebody = False
    device("lamp").start(PRESET)
    wait_until(lambda: shows(home, "binary_sensor.fer_edge_lamp_occupancy", "off"), 60)
    with listening(home_broker.port) as listener:
        door.somebody = True
        wait_until(lambda: shows(home, "counter.smiles", "1"), 60)
        listener.client.publish("fer-edge/lamp/availability", "offline")
        wait_until(lambda: home.of(visitor)[-1] == "unavailable", 5)
        listener.client.publish("fer-edge/lamp/availability", "online")
        wait_until(lambda: home.of(visitor)[-1] != "unavailable", 5)
        shown = home.states()[visitor]
        home.ask(f"api/states/{visitor}", {**shown, "attributes": {**shown["attributes"], "friendly_name": "Hall"}})
        time.sleep(1)
        assert shows(home, "counter.smiles", "1"), "the same smile is shown again"
        smile = next(
            payload
            for topic, payload, _ in listener.messages
            if topic == "fer-edge/lamp/homeassistant/event" and "smile" in payload
        )
        for _ in range(2):  # of two visitors at the same moment
            listener.client.publish("fer-edge/lamp/homeassistant/event", smile)
        wait_until(lambda: shows(home, "counter.smiles", "3"), 5)


def test_old_events_do_not_fire_when_the_network_is_back(
    home: HomeAssistant, home_broker: Broker, device: Making, door: Door
) -> None:
    event = "event.fer_edge_late_visitor"

    def smiles() -> int:
        return len([one for one in home.changes if one.entity == event and one.attributes.get("event_type") == "smile"])

    with proxied(home_broker.port) as network, listening(home_broker.port) as listener:
        door.somebody = False
        kiosk = device("late", port=network.port)
        kiosk.start(PRESET, homeassistant="enabled = true\nevent_max_age = 2")
        wait_until(lambda: shows(home, "binary_sensor.fer_edge_late_occupancy", "off"), 60)
        network.cut()
        door.somebody = True
        time.sleep(12)  # a smile happens, and becomes old
        network.mend()
        wait_until(lambda: [heard for heard, _, _ in listener.messages if heard == "fer-edge/late/event"], 60)
        wait_until(lambda: shows(home, "sensor.fer_edge_late_preset_smile", "1"), 20)
        assert smiles() == 0
        door.somebody = False
        wait_until(lambda: shows(home, "binary_sensor.fer_edge_late_occupancy", "off"), 20)
        door.somebody = True
        wait_until(lambda: smiles() == 1, 20)
        kiosk.close()


def test_each_type_of_event_triggers_an_automation_made_by_clicking(
    home: HomeAssistant, device: Making, door: Door
) -> None:
    door.somebody = False
    device("clicked").start(PRESET)
    occupancy = "binary_sensor.fer_edge_clicked_occupancy"
    wait_until(lambda: shows(home, occupancy, "off"), 60)
    page = home.render(f"{{{{ device_id('{occupancy}') }}}}")
    kinds = ["appeared", "smile", "changed", "uncertain", "left"]
    assert sorted(home.states()["event.fer_edge_clicked_visitor"]["attributes"]["event_types"]) == sorted(kinds)
    trigger = {"trigger": "device", "domain": "mqtt", "device_id": page, "subtype": "visitor"}
    automations = {kind: home.automate(f"clicked_{kind}", {**trigger, "type": kind}) for kind in kinds}

    def triggered() -> set[str]:
        states = home.states()
        return {kind for kind, one in automations.items() if states[one]["attributes"]["last_triggered"]}

    wait_until(lambda: set(automations.values()) <= home.states().keys(), 10)
    assert not triggered()
    door.somebody = True
    wait_until(lambda: triggered() == {"appeared", "smile"}, 20)
    door.face = "mouth upside down"
    wait_until(lambda: "changed" in triggered(), 20)
    door.face = "blurred"
    wait_until(lambda: "uncertain" in triggered(), 20)
    assert "left" not in triggered()
    door.somebody = False
    wait_until(lambda: "left" in triggered(), 20)


def test_the_button_verify_lets_the_device_check_its_model(home: HomeAssistant, device: Making) -> None:
    device("verified").start()
    verification = "sensor.fer_edge_verified_verification"
    wait_until(lambda: shows(home, verification, "ok"), 60)
    before = home.states()[verification]["attributes"]["time"]
    time.sleep(1.1)  # it is in whole seconds
    home.call("button.press", entity_id="button.fer_edge_verified_verify")
    wait_until(lambda: home.states()[verification]["attributes"]["time"] > before, 20)
    assert home.state(verification) == "ok"


def test_the_button_restart_lets_it_start_with_new_settings(home: HomeAssistant, device: Making) -> None:
    kiosk, occupancy = device("restarted"), "binary_sensor.fer_edge_restarted_occupancy"
    kiosk.start()
    wait_until(lambda: shows(home, occupancy, "on"), 60)

    def ends_when_pressed() -> bool:
        home.call("button.press", entity_id="button.fer_edge_restarted_restart")
        time.sleep(3)
        return kiosk.ended

    wait_until(ends_when_pressed, 60)  # in its first half minute it refuses to
    wait_until(lambda: shows(home, occupancy, "unavailable"), 10)
    kiosk.start(PRESET)
    wait_until(lambda: shows(home, "sensor.fer_edge_restarted_preset_smile", "1"), 60)


def test_pause_closes_the_camera_and_says_so(home: HomeAssistant, device: Making, door: Door) -> None:
    device("pause").start()
    switch, occupancy = "switch.fer_edge_pause_pause", "binary_sensor.fer_edge_pause_occupancy"
    wait_until(lambda: shows(home, occupancy, "on"), 60)
    home.call("switch.turn_on", entity_id=switch)
    wait_until(lambda: shows(home, switch, "on") and shows(home, occupancy, "unavailable"), 20)
    home.call("switch.turn_off", entity_id=switch)
    wait_until(lambda: shows(home, switch, "off") and shows(home, occupancy, "on"), 30)


def test_a_switch_that_is_not_offered_any_more_goes(home: HomeAssistant, device: Making) -> None:
    kiosk, switch = device("mute"), "switch.fer_edge_mute_pause"
    kiosk.start()
    wait_until(lambda: shows(home, switch, "off"), 60)
    kiosk.end()
    kiosk.start(mqtt="commands = false")
    wait_until(lambda: shows(home, "binary_sensor.fer_edge_mute_occupancy", "on"), 60)
    wait_until(lambda: home.state(switch) is None, 5)


def test_a_killed_device_is_unavailable_and_comes_back(home: HomeAssistant, device: Making) -> None:
    kiosk, occupancy = device("killed"), "binary_sensor.fer_edge_killed_occupancy"
    kiosk.start()
    wait_until(lambda: shows(home, occupancy, "on"), 60)
    kiosk.end(kill=True)
    wait_until(lambda: shows(home, occupancy, "unavailable"), 10)
    kiosk.start()
    wait_until(lambda: shows(home, occupancy, "on"), 60)


def test_a_blind_device_says_what_is_wrong_and_never_that_nobody_is_there(home: HomeAssistant, device: Making) -> None:
    kiosk = device("blind", "/dev/video97")
    for _ in range(3):
        kiosk.start()
        assert kiosk.wait()
    wait_until(lambda: shows(home, "binary_sensor.fer_edge_blind_problem", "on"), 10)
    assert "/dev/video97" in str(home.state("sensor.fer_edge_blind_fault"))
    assert not {"on", "off"} & set(home.of("binary_sensor.fer_edge_blind_occupancy"))


def test_a_lost_camera_is_a_problem_within_seconds(home: HomeAssistant, device: Making, door: Door) -> None:
    kiosk, problem = device("torn"), "binary_sensor.fer_edge_torn_problem"
    with Door() as torn:
        kiosk.source = torn.url
        kiosk.start(mqtt="statistics_seconds = 600")
        wait_until(lambda: shows(home, problem, "off"), 60)
        wait_until(lambda: not shows(home, "sensor.fer_edge_torn_accelerator", None, "unknown", "unavailable"), 5)
    wait_until(lambda: shows(home, problem, "on"), 30)


def test_counts_fall_when_nobody_comes_and_no_template_fails(home: HomeAssistant, device: Making, door: Door) -> None:
    kiosk, people = device("counts"), "sensor.fer_edge_counts_people"
    kiosk.start()
    wait_until(lambda: shows(home, "binary_sensor.fer_edge_counts_occupancy", "on"), 60)
    kiosk.end()
    kiosk.start("[privacy]\naggregate_only = true\ninterval_seconds = 10\nminimum_people = 2\n")
    for somebody in (True, False, True, False, True, False, True):
        door.somebody = somebody
        time.sleep(3)  # long enough to be counted, or to be gone
    wait_until(lambda: (home.state(people) or "").isdigit() and int(home.state(people) or 0) >= 2, 40)
    assert home.state("binary_sensor.fer_edge_counts_occupancy") is None
    door.somebody = False
    wait_until(lambda: shows(home, people, "0", "unknown", "unavailable"), 40)
    assert not [line for line in home.complaints() if "emplate" in line]


def test_devices_with_similar_names_are_two(home: HomeAssistant, device: Making) -> None:
    for name in ("Küche", "K-che"):
        device(name).start()
    both = ["binary_sensor.fer_edge_kuche_occupancy", "binary_sensor.fer_edge_k_che_occupancy"]
    wait_until(lambda: all(shows(home, one, "on") for one in both), 90)
    pages = {home.render(f"{{{{ device_id('{one}') }}}}") for one in both}
    assert len(pages) == 2


def test_turned_off_everything_goes(home: HomeAssistant, device: Making) -> None:
    kiosk = device("gone")
    kiosk.start()
    wait_until(lambda: shows(home, "binary_sensor.fer_edge_gone_occupancy", "on"), 60)
    kiosk.end()
    kiosk.start(homeassistant="enabled = false")
    wait_until(lambda: not [one for one in home.states() if "fer_edge_gone" in one], 60)
