"""The discovery message for Home Assistant: one retained payload with all entities of a device.

Names are those of https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload, as of 2026.
"""

import json
import re
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Final, TypeAlias, get_args

from edge.model.preprocessing import LABELS
from edge.records import EventKind
from edge.settings import HomeAssistantSettings

_EXPIRE_FACTOR: Final = 3  # intervals of the statistics: two may be lost
_LONGEST_STATE: Final = 255  # characters that Home Assistant allows

Components: TypeAlias = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class DeviceDescription:
    """What the message describes: the device's base topic, name, board and presets, and whether it can be paused."""

    base: str
    device: str
    board: str
    pausable: bool
    statistics_seconds: float
    presets: tuple[str, ...] = ()
    aggregate_only: bool = False


def discovery_topic(settings: HomeAssistantSettings, base: str) -> str:
    """The topic of the discovery message; of a base topic it allows only some characters."""
    return f"{settings.prefix}/device/{_identity(base)}/config"


def birth_topic(settings: HomeAssistantSettings) -> str:
    """The topic on which Home Assistant publishes ``online`` when it has started."""
    return f"{settings.prefix}/status"


def discovery(settings: HomeAssistantSettings, described: DeviceDescription) -> bytes:
    """The payload of the discovery message, as JSON."""
    version = metadata.version("fer-edge")
    identity = _identity(described.base)
    device = {
        "ids": [identity],
        "name": settings.name or f"fer-edge {described.device}",
        "mf": "fer-edge",
        "mdl": described.board or "computer",
        "sw": version,
    }
    people, counts = _people_entities(described), _count_entities(described)
    present, removed = (counts, people) if described.aggregate_only else (people, counts)
    components: Components = {
        name: {
            "unique_id": f"{identity}-{name}",
            "default_entity_id": f"{fields['p']}.{_slug(identity, name)}",
            **fields,
        }
        for name, fields in {**present, **_device_entities(described)}.items()
    }
    # An entity with a platform alone is removed: an earlier message may have had it.
    components |= {name: {"p": fields["p"]} for name, fields in removed.items()}
    payload = {
        "dev": device,
        "o": {"name": "fer-edge", "sw": version},
        "qos": 1,
        "cmps": components,
    }
    return json.dumps(payload).encode()


def _available(base: str, *topics: str) -> dict[str, Any]:
    """The fields of an entity that is there while each of these topics of the device carries ``online``."""
    return {"availability": [{"topic": f"{base}/{topic}"} for topic in topics], "availability_mode": "all"}


def _people_entities(described: DeviceDescription) -> Components:
    """Entities about the people in view; while the camera is closed nothing is known of them."""
    base = described.base
    seen = _available(base, "availability", "camera")
    state = {"state_topic": f"{base}/state", **seen}
    return {
        "expression": {
            "p": "sensor",
            "name": "Expression",
            "device_class": "enum",
            "options": list(LABELS),
            "value_template": _value("value_json.expression"),
            **state,
        },
        "occupancy": {
            "p": "binary_sensor",
            "name": "Occupancy",
            "device_class": "occupancy",
            "value_template": _value("'ON' if value_json.faces > 0 else 'OFF'"),
            **state,
        },
        "faces": {
            "p": "sensor",
            "name": "Faces",
            "state_class": "measurement",
            "value_template": _value("value_json.faces"),
            **state,
        },
        "event": {
            "p": "event",
            "name": "Visitor",
            # A preset is an event type of its own name; so is a kind of event.
            "event_types": [*(kind for kind in get_args(EventKind) if kind != "preset"), *described.presets],
            "state_topic": f"{base}/homeassistant/event",
            "value_template": "{% set e = value_json.expression or {} %}"
            "{{ {'event_type': value_json.name or value_json.kind, 'id': value_json.id, 'track': value_json.track, "
            "'time': value_json.time, 'late': value_json.late, "
            "'expression': e.get('label'), 'confidence': e.get('confidence'), 'reason': value_json.reason, "
            "'episode': value_json.episode} | to_json }}",
            **_available(base, "availability"),
        },
    }


def _count_entities(described: DeviceDescription) -> Components:
    """Entities of ``privacy.aggregate_only``."""
    return {
        "people": {
            "p": "sensor",
            "name": "People",
            "state_class": "measurement",
            "value_template": _value("value_json.people"),
            "state_topic": f"{described.base}/aggregate",
            "json_attributes_topic": f"{described.base}/aggregate",
            **_available(described.base, "availability", "camera"),
        },
    }


def _device_entities(described: DeviceDescription) -> Components:
    """Entities about the device."""
    base = described.base
    statistics = {
        "state_topic": f"{base}/statistics",
        "entity_category": "diagnostic",
        "expire_after": round(_EXPIRE_FACTOR * described.statistics_seconds),
        **_available(base, "availability"),
    }
    measured = {"p": "sensor", "state_class": "measurement", **statistics}
    components: Components = {
        **_fault_entities(base),
        "fps": {"name": "Frames per second", "value_template": _value("value_json.fps"), **measured},
        "temperature": {
            "name": "Temperature",
            "device_class": "temperature",
            "unit_of_measurement": "°C",
            "value_template": _value("value_json.temperature"),
            **measured,
        },
        "waiting": {"name": "Events waiting", "value_template": _value("value_json.outbox.waiting"), **measured},
        "accelerator": {
            "p": "sensor",
            "name": "Accelerator",
            "value_template": _value("value_json.accelerator"),
            **statistics,
        },
        "throttled": {
            "p": "binary_sensor",
            "name": "Throttled",
            "device_class": "problem",
            "value_template": _value("'ON' if value_json.throttled else 'OFF'"),
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
            **_available(base, "availability"),
        }
    return components


def _fault_entities(base: str) -> Components:
    """Entities about what is wrong. They have no availability: they matter most while the device is not available."""
    fault = {"state_topic": f"{base}/homeassistant/fault", "entity_category": "diagnostic"}
    sentence = f"(value_json.code ~ ': ' ~ value_json.sentence)[:{_LONGEST_STATE}]"
    return {
        "problem": {
            "p": "binary_sensor",
            "name": "Problem",
            "device_class": "problem",
            "value_template": _value("'ON' if value_json.problem else 'OFF'"),
            **fault,
        },
        "fault": {
            "p": "sensor",
            "name": "Fault",
            "value_template": _value(f"{sentence} if value_json.problem else 'none'"),
            "json_attributes_topic": fault["state_topic"],
            **fault,
        },
    }


def _value(expression: str) -> str:
    """A template of an expression with ``value_json``; an empty payload, which removes a topic, gives an unknown."""
    return f"{{{{ ({expression}) if value_json is defined else None }}}}"


def _identity(base: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_-]", "-", base)


def _slug(*words: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", "_".join(words).lower()).strip("_")
