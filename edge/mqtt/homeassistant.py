"""The discovery message for Home Assistant: one retained payload with all entities of a device.

Names are those of https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload, as of 2026.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from importlib import metadata

from edge.mqtt.homeassistant_entities import Components, DeviceDescription, components_of
from edge.mqtt.topics import identity
from edge.settings import HomeAssistantSettings


def discovery_topic(settings: HomeAssistantSettings, base: str) -> str:
    """The topic of the discovery message; of a base topic it allows only some characters."""
    return f"{settings.prefix}/device/{identity(base)}/config"


def birth_topic(settings: HomeAssistantSettings) -> str:
    """The topic on which Home Assistant publishes ``online`` when it has started."""
    return f"{settings.prefix}/status"


def platforms(described: DeviceDescription, former: Mapping[str, str]) -> dict[str, str]:
    """The platform of each component, those included that are not offered now; ``former`` were once."""
    everything = replace(
        described, pausable=True, commands=True, restartable=True, has_temperature=True, has_throttling=True
    )
    possible = [components_of(replace(everything, aggregate_only=counting)) for counting in (False, True)]
    return {**former, **{name: str(fields["p"]) for one in possible for name, fields in one.items()}}


def discovery(
    settings: HomeAssistantSettings, described: DeviceDescription, former: Mapping[str, str] | None = None
) -> bytes:
    """The payload of the discovery message, as JSON; it removes what is not offered now, or was ``former``."""
    name = identity(described.base)
    present = components_of(described)
    # A component with a platform alone is removed: an earlier message may have had it.
    components: Components = {one: {"p": platform} for one, platform in platforms(described, former or {}).items()}
    components |= {one: _identified(name, one, fields) for one, fields in present.items()}
    payload = {
        "dev": _device(settings, described, name),
        "o": {"name": "fer-edge", "sw": metadata.version("fer-edge"), "url": _documentation()},
        "qos": 1,
        "cmps": components,
    }
    return json.dumps(payload, separators=(",", ":")).encode()


def _device(settings: HomeAssistantSettings, described: DeviceDescription, name: str) -> dict[str, object]:
    model, _, revision = described.board.partition(" Rev ")
    optional = {"hw": f"Rev {revision}" if revision else "", "sn": described.serial}
    return {
        "ids": [name],
        "name": settings.name or f"fer-edge {described.device}",
        "mf": "fer-edge",
        "mdl": model or "computer",
        "sw": metadata.version("fer-edge"),
        "cu": _documentation(),
        **{key: value for key, value in optional.items() if value},
    }


def _documentation() -> str:
    urls = dict(str(url).split(", ", 1) for url in metadata.metadata("fer-edge").get_all("Project-URL") or [])
    return urls["Documentation"]


def _identified(identity_: str, component: str, fields: dict[str, object]) -> dict[str, object]:
    """A component with its id; a trigger is no entity and has none.

    Home Assistant makes the entity's own id of both names, in all versions. ``default_entity_id`` would give other ids
    in those versions that know it.
    """
    return fields if fields["p"] == "device_automation" else {"unique_id": f"{identity_}-{component}", **fields}
