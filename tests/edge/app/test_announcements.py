"""What is announced to Home Assistant over several starts in one state folder; an acknowledgement is a call here."""

import json
from pathlib import Path

import pytest

from edge.app.announcements import make_announcements
from edge.labels import FER2013_LABELS, Labels
from edge.mqtt.device_record import DeviceRecordStore
from edge.mqtt.topics import file_stem
from edge.settings import HomeAssistantSettings, MqttSettings, Preset, Settings
from edge.system.state import StateStore

TOPIC = "homeassistant/device/fer-edge-{}/config"


def started(
    folder: Path,
    device: str = "kiosk",
    *presets: str,
    enabled: bool = True,
    pausable: bool = True,
    commands: bool = True,
    acknowledged: bool = True,
    labels: Labels = FER2013_LABELS,
) -> dict[str, dict]:
    """What a start announces, by topic; an empty payload is an empty dictionary."""
    settings = Settings(
        mqtt=MqttSettings(device=device, commands=commands),
        homeassistant=HomeAssistantSettings(enabled=enabled),
        preset=tuple(Preset(name, "happy") for name in presets),
    )
    store = StateStore(folder, file_stem(settings.mqtt))
    made = make_announcements(settings, DeviceRecordStore(folder), store, labels, pausable=pausable, restartable=False)
    for one in made if acknowledged else ():
        one.done()
    return {one.topic: json.loads(one.payload or b"{}") for one in made}


def removed(made: dict[str, dict]) -> set[str]:
    [described] = [payload for payload in made.values() if payload]
    return {name for name, component in described["cmps"].items() if component.keys() == {"p"}}


def test_a_device_with_another_name_removes_the_description_of_the_former(tmp_path: Path) -> None:
    assert started(tmp_path, "old").keys() == {TOPIC.format("old")}
    for _ in range(2):  # until the broker has acknowledged it
        made = started(tmp_path, "new", acknowledged=False)
        assert [topic for topic, payload in made.items() if not payload] == [
            TOPIC.format("old"),
            "fer-edge/old/homeassistant/fault",
        ]
    started(tmp_path, "new")
    assert started(tmp_path, "new").keys() == {TOPIC.format("new")}


def test_the_description_of_a_version_with_another_identity_is_removed(tmp_path: Path) -> None:
    StateStore(tmp_path, "fer-edge-入口").update(discovery="homeassistant/device/fer-edge---/config")
    made = started(tmp_path, "入口")
    [described] = [topic for topic, payload in made.items() if payload]
    assert made["homeassistant/device/fer-edge---/config"] == {}
    assert described.startswith("homeassistant/device/fer-edge----")
    assert described not in started(tmp_path / "other", "出口")


def test_turned_off_it_takes_back_all_that_it_had_for_home_assistant(tmp_path: Path) -> None:
    started(tmp_path)
    made = started(tmp_path, enabled=False)
    assert made == {TOPIC.format("kiosk"): {}, "fer-edge/kiosk/homeassistant/fault": {}}
    assert started(tmp_path, enabled=False) == {}


@pytest.mark.parametrize("change", [{"commands": False}, {"pausable": False}])
def test_a_switch_that_would_do_nothing_is_removed(tmp_path: Path, change: dict[str, bool]) -> None:
    assert "pause" not in removed(started(tmp_path))
    assert "pause" in removed(started(tmp_path, **change))


def test_the_description_has_the_expressions_of_the_model(tmp_path: Path) -> None:
    for labels in (FER2013_LABELS, ("neutral", "contempt")):
        described = started(tmp_path, labels=labels)[TOPIC.format("kiosk")]
        assert described["cmps"]["expression"]["options"] == [*labels, "uncertain", "nobody"]


def test_a_preset_that_is_gone_takes_its_counter_and_trigger_with_it(tmp_path: Path) -> None:
    started(tmp_path, "kiosk", "smile", "frown")
    for _ in range(2):  # Home Assistant may not have listened the first time
        assert {"count-frown", "trigger-frown"} <= removed(started(tmp_path, "kiosk", "smile"))
    assert not {"count-frown", "trigger-frown"} & removed(started(tmp_path, "kiosk", "frown"))
