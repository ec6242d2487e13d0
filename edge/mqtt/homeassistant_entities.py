"""The components of a device in Home Assistant: its entities, and the triggers for automations."""

from dataclasses import dataclass
from typing import Any, Final, TypeAlias, get_args

from edge.labels import Labels
from edge.records import EventKind

_EXPIRE_FACTOR: Final = 3  # intervals of the statistics: two may be lost
_EXPIRE_INTERVALS: Final = 2  # of the counts of people
_LONGEST_STATE: Final = 255  # characters that Home Assistant allows

Components: TypeAlias = dict[str, dict[str, Any]]
"""Fields of each component by its name; ``p`` is its platform."""


@dataclass(frozen=True)
class DeviceDescription:
    """What the components depend on: the device's topic, name, board and presets, what it can do, and its intervals.

    ``labels`` are the expressions of the model that runs.
    ``pausable`` says that the source can be closed, ``commands`` that it takes commands at all, and ``restartable``
    that a new process comes after its end. The intervals are in seconds.
    """

    base: str
    device: str
    board: str
    labels: Labels
    pausable: bool
    statistics_seconds: float
    interval_seconds: float
    presets: tuple[str, ...] = ()
    aggregate_only: bool = False
    commands: bool = True
    restartable: bool = True
    has_temperature: bool = True
    has_throttling: bool = True
    serial: str = ""

    @property
    def event_types(self) -> list[str]:
        """A preset is an event type of its own name; so is a kind of event."""
        return [*(kind for kind in get_args(EventKind) if kind != "preset"), *self.presets]


def components_of(described: DeviceDescription) -> Components:
    """All components that the device offers."""
    people = _count_entities if described.aggregate_only else _people_components
    statistics = _statistics_entities(described)
    return {
        **people(described),
        **_fault_entities(described.base),
        **statistics,
        **_model_entities(described.base),
        **(_command_entities(described) if described.commands else {}),
    }


def _available(base: str, *topics: str) -> dict[str, Any]:
    """The fields of an entity that is there while each of these topics of the device carries ``online``."""
    return {"availability": [{"topic": f"{base}/{topic}"} for topic in topics], "availability_mode": "all"}


def _people_components(described: DeviceDescription) -> Components:
    """Entities and triggers about single people."""
    live = f"{described.base}/homeassistant/event"
    triggers = {
        f"trigger-{kind}": {
            "p": "device_automation",
            "automation_type": "trigger",
            "type": kind,
            "subtype": "visitor",
            "topic": live,
            "payload": kind,
            "value_template": "{{ value_json.name or value_json.kind }}",
        }
        for kind in described.event_types
    }
    event = {
        "p": "event",
        "name": "Visitor",
        "icon": "mdi:account-eye",
        "event_types": described.event_types,
        "state_topic": live,
        "value_template": "{% set e = value_json.expression or {} %}"
        "{{ {'event_type': value_json.name or value_json.kind, 'id': value_json.id, 'track': value_json.track, "
        "'time': value_json.time, 'late': value_json.late, "
        "'expression': e.get('label'), 'confidence': e.get('confidence'), 'reason': value_json.reason, "
        "'episode': value_json.episode} | to_json }}",
        **_available(described.base, "availability"),
    }
    return {**_state_entities(described), "event": event, **_visitor_counters(described), **triggers}


def _state_entities(described: DeviceDescription) -> Components:
    """Entities about who is in view; while the camera is closed nothing is known of that."""
    base = described.base
    state = {"state_topic": f"{base}/state", **_available(base, "availability", "camera")}
    return {
        "expression": {
            "p": "sensor",
            "name": "Expression",
            "icon": "mdi:emoticon-outline",
            "device_class": "enum",
            "options": [*described.labels, "uncertain", "nobody"],
            "value_template": _value("(value_json.expression or 'uncertain') if value_json.faces else 'nobody'"),
            **_attributes(f"{base}/state", "confidence", "reason", "since"),
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
            "icon": "mdi:face-recognition",
            "state_class": "measurement",
            "value_template": _value("value_json.faces"),
            **state,
        },
    }


def _visitor_counters(described: DeviceDescription) -> Components:
    """Counters since the start of the process; they come with the statistics, and not with each visitor."""
    counted = {"p": "sensor", "state_class": "total_increasing", **_statistics(described, diagnostic=False)}
    presets: Components = {
        f"count-{preset}": {
            "name": f"Preset {preset}",
            "icon": "mdi:counter",
            "value_template": _value(f"value_json.presets.get('{preset}', 0)"),
            **counted,
        }
        for preset in described.presets
    }
    return {
        "visitors": {
            "name": "Visitors",
            "icon": "mdi:counter",
            "value_template": _value("value_json.visitors"),
            **counted,
        },
        **presets,
    }


def _count_entities(described: DeviceDescription) -> Components:
    """Entities of ``privacy.aggregate_only``."""
    return {
        "people": {
            "p": "sensor",
            "name": "People",
            "icon": "mdi:account-group",
            "state_class": "measurement",
            "value_template": _value("value_json.people"),
            "expire_after": round(_EXPIRE_INTERVALS * described.interval_seconds),
            "state_topic": f"{described.base}/aggregate",
            "json_attributes_topic": f"{described.base}/aggregate",
            **_available(described.base, "availability", "camera"),
        },
    }


def _statistics(described: DeviceDescription, *, diagnostic: bool = True) -> dict[str, Any]:
    """The fields of an entity that comes with the statistics, and expires without them."""
    return {
        "state_topic": f"{described.base}/statistics",
        "expire_after": round(_EXPIRE_FACTOR * described.statistics_seconds),
        **({"entity_category": "diagnostic"} if diagnostic else {}),
        **_available(described.base, "availability"),
    }


def _statistics_entities(described: DeviceDescription) -> Components:
    """Entities about the device's health. Rounded, so that a history has fewer rows.

    Even so frames per second change with each statistics: 1440 rows a day. Who wants them enables the entity.
    """
    statistics = _statistics(described)
    measured = {"p": "sensor", "state_class": "measurement", **statistics}
    components: Components = {
        "fps": {
            "name": "Frames per second",
            "icon": "mdi:speedometer",
            "unit_of_measurement": "fps",
            "value_template": _rounded("value_json.fps"),
            "enabled_by_default": False,
            **measured,
        },
        "waiting": {
            "name": "Events waiting",
            "icon": "mdi:tray-full",
            "value_template": _value("value_json.outbox.waiting"),
            **measured,
        },
        "too-dark": {
            "p": "binary_sensor",
            "name": "Too dark",
            "icon": "mdi:weather-night",
            "value_template": _value("'ON' if value_json.too_dark else 'OFF'"),
            **statistics,
        },
        "accelerator": {
            "p": "sensor",
            "name": "Accelerator",
            "icon": "mdi:chip",
            "value_template": _value("value_json.accelerator"),
            **statistics,
        },
    }
    if described.has_temperature:
        components["temperature"] = {
            "name": "Temperature",
            "device_class": "temperature",
            "unit_of_measurement": "°C",
            "value_template": _rounded("value_json.temperature"),
            **measured,
        }
    if described.has_throttling:
        components["throttled"] = {
            "p": "binary_sensor",
            "name": "Throttled",
            "device_class": "problem",
            "value_template": _value("'ON' if value_json.throttled else 'OFF'"),
            **statistics,
        }
    return components


def _fault_entities(base: str) -> Components:
    """Entities about what is wrong. They have no availability: they matter most while the device is not available."""
    topic = f"{base}/homeassistant/fault"
    fault = {"state_topic": topic, "entity_category": "diagnostic"}
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
            "icon": "mdi:alert-circle-outline",
            "value_template": _value(f"{sentence} if value_json.problem else 'none'"),
            **_attributes(topic, "code", "sentence", "time"),
            **fault,
        },
    }


def _model_entities(base: str) -> Components:
    """Entities about the model that runs, and whether it computes here what it should."""
    topic = f"{base}/verification"
    verified = {
        "p": "sensor",
        "state_topic": topic,
        "entity_category": "diagnostic",
        **_available(base, "availability"),
    }
    return {
        "model": {
            "name": "Model",
            "icon": "mdi:brain",
            "value_template": _value("value_json.model"),
            **_attributes(topic, "sha256", "runtime"),
            **verified,
        },
        "verification": {
            "name": "Verification",
            "icon": "mdi:check-decagram",
            "device_class": "enum",
            "options": ["ok", "failed"],
            "value_template": _value("'ok' if value_json.ok else 'failed'"),
            **_attributes(topic, "sentence", "time"),
            **verified,
        },
    }


def _command_entities(described: DeviceDescription) -> Components:
    """Entities that send commands."""
    base = described.base
    components: Components = {
        "verify": {
            "p": "button",
            "name": "Verify",
            "icon": "mdi:check-decagram",
            "entity_category": "diagnostic",
            "command_topic": f"{base}/command/verify",
            "payload_press": "{}",
            **_available(base, "availability"),
        }
    }
    if described.restartable:
        components["restart"] = {
            "p": "button",
            "name": "Restart",
            "device_class": "restart",
            "entity_category": "config",
            "command_topic": f"{base}/command/reload",
            "payload_press": "{}",
            **_available(base, "availability"),
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


def _value(expression: str) -> str:
    """A template of an expression with ``value_json``; an empty payload, which removes a topic, gives an unknown."""
    return f"{{{{ ({expression}) if value_json is defined else None }}}}"


def _rounded(value: str) -> str:
    return _value(f"{value} | round(0) if {value} is number else None")


def _attributes(topic: str, *names: str) -> dict[str, Any]:
    """The fields of an entity that shows these fields of a topic's payload as attributes."""
    pairs = ", ".join(f"'{name}': value_json.{name}" for name in names)
    return {
        "json_attributes_topic": topic,
        "json_attributes_template": f"{{{{ ({{{pairs}}} if value_json is defined else {{}}) | to_json }}}}",
    }
