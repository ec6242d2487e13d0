"""What a device announces to Home Assistant, and what it takes back, by what the state folder remembers."""

from edge.labels import Labels
from edge.mqtt.device_record import DeviceRecord, DeviceRecordStore, former_topics
from edge.mqtt.homeassistant import birth_topic, discovery, discovery_topic, platforms
from edge.mqtt.homeassistant_entities import DeviceDescription
from edge.mqtt.retained import Announcement
from edge.mqtt.topics import base_topic, device_id, file_stem
from edge.settings import Settings
from edge.system import hardware
from edge.system.state import StateStore


def make_announcements(
    settings: Settings,
    store: DeviceRecordStore,
    state_store: StateStore,
    labels: Labels,
    *,
    pausable: bool,
    restartable: bool,
) -> list[Announcement]:
    """The discovery message, and the removal of what an earlier name or setting has left.

    ``store`` keeps the record of the state folder, and ``labels`` are those of the model that runs. ``pausable`` says
    that the source can be closed, ``restartable`` that a new process comes after the end of this one.
    """
    wanted, base = settings.homeassistant, base_topic(settings.mqtt)
    topic = discovery_topic(wanted, base) if wanted.enabled else ""
    record, stem = store.record, file_stem(settings.mqtt)
    described = DeviceDescription(
        base=base,
        device=device_id(settings.mqtt),
        board=hardware.text_of(hardware.MODEL),
        labels=labels,
        pausable=pausable,
        statistics_seconds=settings.mqtt.statistics_seconds,
        interval_seconds=settings.privacy.interval_seconds,
        presets=tuple(preset.name for preset in settings.preset),
        aggregate_only=settings.privacy.aggregate_only,
        commands=settings.mqtt.commands,
        restartable=restartable,
        has_temperature=hardware.temperature() is not None,
        has_throttling=hardware.throttled_now() is not None,
        serial=hardware.text_of(hardware.SERIAL),
    )
    earlier = record.components if record.base == base else {}
    left = DeviceRecord(record.name, topic, base, stem, described.serial, platforms(described, earlier))

    def keep() -> None:
        state_store.update(discovery=topic)
        store.update(left if topic else DeviceRecord(record.name))

    removals = former_topics(record, left, store.folder)
    if (former := state_store.state.discovery) and former != topic:
        removals = [*removals, former, *([] if topic else [f"{base}/homeassistant/fault"])]
    announcements = [Announcement(one, b"", done=keep) for one in dict.fromkeys(removals)]
    if topic:
        if not announcements:
            keep()
        announcements.append(Announcement(topic, discovery(wanted, described, earlier), birth_topic(wanted)))
    return announcements
