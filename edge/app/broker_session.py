"""The MQTT side of a run beside its events: commands, statistics, Home Assistant, and the files behind them."""

import logging
import os
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edge.camera.sources import is_live
from edge.errors import AcceleratorError, BundleError, StoreError
from edge.model.bundle import open_bundle
from edge.model.loader import DeployedModel
from edge.model.registry import deployed_folder
from edge.monitoring.observer import FrameObserver, LoopStatus
from edge.monitoring.statistics import StatisticsCollector, StatisticsInput
from edge.mqtt.commands import Capabilities, CommandProcessor
from edge.mqtt.homeassistant import DeviceDescription, birth_topic, discovery, discovery_topic
from edge.mqtt.outbox import Outbox
from edge.mqtt.publisher import MqttPublisher
from edge.mqtt.retained import Announcement
from edge.mqtt.topics import base_topic, client_id, device_id
from edge.pipeline import FrameResult
from edge.settings import PrivacySettings, Settings, load_settings
from edge.system import hardware
from edge.system.clock import now
from edge.system.state import StateStore, store_folder
from edge.system.systemd import Service, fault_of

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BrokerSession(FrameObserver):
    """The publisher, the commands that come from the broker, and the statistics of the device."""

    publisher: MqttPublisher
    command_processor: CommandProcessor
    state_store: StateStore
    statistics: StatisticsCollector
    pausable: bool
    privacy: PrivacySettings

    def deployed(self, deployed: DeployedModel) -> None:
        """Publish which model runs, and a fault when it is not the chosen one."""
        self.publisher.set_verification(deployed.verification)
        fault = fault_of(BundleError(deployed.refused), now()) if deployed.refused else None
        self.publisher.faults.set("model", fault)

    def frame(self, result: FrameResult, status: LoopStatus) -> None:
        """Count a frame, answer pauses that have ended, and do what is due between frames."""
        self.statistics.frame()
        if self.pausable:
            self.publisher.set_paused(False)
        self.command_processor.camera_is_open()
        self._between_frames(status)

    def paused(self, status: LoopStatus) -> None:
        """Answer pauses that have begun, and do what is due while the camera is closed."""
        self.publisher.set_paused(True)
        self.command_processor.camera_is_closed()
        self._between_frames(status)

    def report_damaged_state(self) -> None:
        """Publish a fault while the camera is closed because the kept state is damaged; clear it afterwards."""
        damage = self.state_store.damage if self.pausable else ""
        self.publisher.faults.set("state", fault_of(StoreError(damage), now()) if damage else None)

    def close(self, seconds: float) -> int:
        """Store what was put off, and close the publisher; returns how many events are undelivered."""
        self.command_processor.close()
        return self.publisher.close(seconds)

    def _between_frames(self, status: LoopStatus) -> None:
        classifier = status.classifier
        self.publisher.check_threads()
        self.publisher.faults.set("service", None)  # a service that works has none, whatever ended the one before
        degraded = classifier.degraded
        self.publisher.faults.set("accelerator", fault_of(AcceleratorError(degraded), now()) if degraded else None)
        self.report_damaged_state()
        self.command_processor.continue_verification(classifier)
        if self.statistics.due:
            self._publish_statistics(status)

    def _publish_statistics(self, status: LoopStatus) -> None:
        given = StatisticsInput(
            paused=self.command_processor.paused,
            frames_dropped=status.frames_dropped,
            model=status.classifier.card.name,
            accelerator=status.classifier.accelerator,
            delivery=self.publisher.figures(),
            commands_ignored=self.command_processor.ignored,
            declared_use=self.privacy.declared_use,
        )
        stage_seconds = {} if self.privacy.aggregate_only else status.stage_seconds
        self.publisher.publish_statistics(self.statistics.collect(stage_seconds, given))


def open_broker_session(settings: Settings, config: Path | None, service: Service) -> BrokerSession:
    """Open the outbox and the kept state, and begin to connect.

    Raises StoreError when another process uses the outbox, and SettingsError.
    """
    folder, name = store_folder(settings.store, os.environ), client_id(settings.mqtt)
    state_store = StateStore(folder, name)
    pausable = is_live(settings.camera)
    counting = settings.privacy.aggregate_only
    # Aggregates have an outbox of their own, so that events of earlier runs are not sent among them.
    outbox = Outbox(folder / f"{name}{'.aggregate' if counting else ''}.outbox.db", settings.store.events)
    announcements = _announcements(settings, state_store, pausable=pausable)
    publisher = MqttPublisher(settings.mqtt, outbox, announcements, aggregate_only=counting)
    if not settings.privacy.declared_use:
        _log.warning("privacy.declared_use is empty: say in one sentence what this device is used for")

    def reload() -> None:
        load_settings(config)  # settings that cannot be read must not end a device that works
        service.stop()

    capabilities = Capabilities(
        pausable=pausable,
        reload=reload if service.managed else None,
        bundle=lambda: open_bundle(deployed_folder(settings, os.environ)),
    )
    command_processor = CommandProcessor(
        state_store, capabilities, publisher.publish_reply, time.monotonic, publisher.set_verification
    )
    statistics = StatisticsCollector(settings.mqtt.statistics_seconds)
    if not service.managed:
        publisher.faults.set("service", None)  # of an earlier process; a service keeps it until it is ready
    session = BrokerSession(publisher, command_processor, state_store, statistics, pausable, settings.privacy)
    session.report_damaged_state()
    publisher.start(command_processor.receive)
    return session


def _announcements(settings: Settings, state_store: StateStore, *, pausable: bool) -> list[Announcement]:
    """The discovery message for Home Assistant, and the removal of an earlier one on another topic."""
    wanted, base = settings.homeassistant, base_topic(settings.mqtt)
    topic = discovery_topic(wanted, base) if wanted.enabled else ""
    announcements = []
    if (former := state_store.state.discovery) and former != topic:
        announcements.append(Announcement(former, b"", done=partial(state_store.update, discovery=topic)))
    if topic:
        described = DeviceDescription(
            base=base,
            device=device_id(settings.mqtt),
            board=hardware.text_of(hardware.MODEL),
            pausable=pausable and settings.mqtt.commands,
            statistics_seconds=settings.mqtt.statistics_seconds,
            presets=tuple(preset.name for preset in settings.preset),
            aggregate_only=settings.privacy.aggregate_only,
        )
        if not announcements:
            state_store.update(discovery=topic)
        announcements.append(Announcement(topic, discovery(wanted, described), birth_topic(wanted)))
    return announcements
