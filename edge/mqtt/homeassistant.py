"""The description by which Home Assistant finds a device: one retained payload with all of its entities.

Names are those of https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload, as of 2026.
"""

import json
import re
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Final, get_args

from edge.model.preprocessing import LABELS
from edge.records import EventKind
from edge.settings import HomeAssistantSettings

_EXPIRE_FACTOR: Final = 3  # of the statistics' interval: two may be lost


@dataclass(frozen=True)
class DeviceDescription:
    """What there is to describe: the device's topic, name, board and presets, and whether it can be paused."""

    base: str
    device: str
    board: str
    pausable: bool
    statistics_seconds: float
    presets: tuple[str, ...] = ()
    aggregate_only: bool = False


def discovery_topic(settings: HomeAssistantSettings, base: str) -> str:
    """Where the description goes of the device with this base topic; only some characters are allowed there."""
    return f"{settings.prefix}/device/{_identity(base)}/config"


def birth_topic(settings: HomeAssistantSettings) -> str:
    """Where Home Assistant says that it has started."""
    return f"{settings.prefix}/status"


def discovery(settings: HomeAssistantSettings, described: DeviceDescription) -> bytes:
    """The payload."""
    version = metadata.version("fer-edge")
    identity = _identity(described.base)
    device = {
        "ids": [identity],
        "name": settings.name or f"fer-edge {described.device}",
        "mf": "fer-edge",
        "mdl": described.board or "computer",
        "sw": version,
    }
    people, counts = _people(described), _counts(described)
    told, removed = (counts, people) if described.aggregate_only else (people, counts)
    components: dict[str, dict[str, Any]] = {
        name: {
            "unique_id": f"{identity}-{name}",
            "default_entity_id": f"{fields['p']}.{_slug(identity, name)}",
            **fields,
        }
        for name, fields in {**told, **_components(described)}.items()
    }
    # What is only named is removed: it may be there from another time.
    components |= {name: {"p": fields["p"]} for name, fields in removed.items()}
    payload = {
        "dev": device,
        "o": {"name": "fer-edge", "sw": version},
        "availability": [{"topic": f"{described.base}/availability"}],
        "qos": 1,
        "cmps": components,
    }
    return json.dumps(payload).encode()


def _people(described: DeviceDescription) -> dict[str, dict[str, Any]]:
    """Entities that tell of those in view."""
    base = described.base
    state = {"state_topic": f"{base}/state"}
    return {
        "expression": {
            "p": "sensor",
            "name": "Expression",
            "device_class": "enum",
            "options": list(LABELS),
            "value_template": "{{ value_json.expression }}",
            **state,
        },
        "occupancy": {
            "p": "binary_sensor",
            "name": "Occupancy",
            "device_class": "occupancy",
            "value_template": "{{ 'ON' if value_json.faces > 0 else 'OFF' }}",
            **state,
        },
        "faces": {
            "p": "sensor",
            "name": "Faces",
            "state_class": "measurement",
            "value_template": "{{ value_json.faces }}",
            **state,
        },
        "event": {
            "p": "event",
            "name": "Visitor",
            # A preset is an event type of its own name; so is a kind of event.
            "event_types": [*(kind for kind in get_args(EventKind) if kind != "preset"), *described.presets],
            "state_topic": f"{base}/event",
            "value_template": "{% set e = value_json.expression or {} %}"
            "{{ {'event_type': value_json.name or value_json.kind, 'id': value_json.id, 'track': value_json.track, "
            "'expression': e.get('label'), 'confidence': e.get('confidence'), 'reason': value_json.reason, "
            "'episode': value_json.episode} | to_json }}",
        },
    }


def _counts(described: DeviceDescription) -> dict[str, dict[str, Any]]:
    """Entities of privacy.aggregate_only."""
    return {
        "people": {
            "p": "sensor",
            "name": "People",
            "state_class": "measurement",
            "value_template": "{{ value_json.people }}",
            "state_topic": f"{described.base}/aggregate",
            "json_attributes_topic": f"{described.base}/aggregate",
        },
    }


def _components(described: DeviceDescription) -> dict[str, dict[str, Any]]:
    """Entities that tell of the device."""
    base = described.base
    statistics = {
        "state_topic": f"{base}/statistics",
        "entity_category": "diagnostic",
        "expire_after": round(_EXPIRE_FACTOR * described.statistics_seconds),
    }
    measured = {"p": "sensor", "state_class": "measurement", **statistics}
    components: dict[str, dict[str, Any]] = {
        "fps": {"name": "Frames per second", "value_template": "{{ value_json.fps }}", **measured},
        "temperature": {
            "name": "Temperature",
            "device_class": "temperature",
            "unit_of_measurement": "°C",
            "value_template": "{{ value_json.temperature }}",
            **measured,
        },
        "waiting": {"name": "Events waiting", "value_template": "{{ value_json.outbox.waiting }}", **measured},
        "accelerator": {
            "p": "sensor",
            "name": "Accelerator",
            "value_template": "{{ value_json.accelerator }}",
            **statistics,
        },
        "problem": {
            "p": "binary_sensor",
            "name": "Problem",
            "device_class": "problem",
            "value_template": "{{ 'ON' if value_json.fault or value_json.throttled else 'OFF' }}",
            **statistics,
        },
    }
    if described.pausable:
        components["pause"] = {
            "p": "switch",
            "name": "Pause",
            "icon": "mdi:eye-off",
            "command_topic": f"{base}/command/pause",
            "payload_on": '{"on":true}',
            "payload_off": '{"on":false}',
            "state_topic": f"{base}/paused",
            "state_on": "ON",
            "state_off": "OFF",
        }
    return components


def _identity(base: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_-]", "-", base)


def _slug(*words: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", "_".join(words).lower()).strip("_")
