"""What a run over MQTT has beside its events: commands, statistics, Home Assistant, and where all of it is kept."""

import logging
import os
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from edge.camera.sources import is_live
from edge.errors import AcceleratorError, BundleError
from edge.model.bundle import open_bundle
from edge.model.loader import Deployed
from edge.model.registry import deployed_folder
from edge.monitoring.statistics import StatisticsCollector, StatisticsInput
from edge.mqtt.commands import Capabilities, CommandProcessor
from edge.mqtt.homeassistant import DeviceDescription, birth_topic, discovery, discovery_topic
from edge.mqtt.outbox import Outbox
from edge.mqtt.publisher import MqttPublisher
from edge.mqtt.retained import Announcement
from edge.mqtt.topics import base_topic, client_id, device_id
from edge.pipeline import Pipeline
from edge.settings import PrivacySettings, Settings, load_settings
from edge.system import hardware
from edge.system.clock import now
from edge.system.state import StateStore, store_folder
from edge.system.systemd import Service, fault_of

_log = logging.getLogger(__name__)

_REST_SECONDS: Final = 0.2


@dataclass(frozen=True)
class BrokerSession:
    """The way to the broker, the commands that come from there, and what is told of the device."""

    publisher: MqttPublisher
    command_processor: CommandProcessor
    vitals: StatisticsCollector
    outbox: Outbox
    pausable: bool
    privacy: PrivacySettings

    def deployed(self, deployed: Deployed) -> None:
        """Tell of the model that runs."""
        self.publisher.set_verification(deployed.verification)
        self.publisher.faults.set("model", fault_of(BundleError(deployed.refused), now()) if deployed.refused else None)

    def seen(self, pipeline: Pipeline, dropped: int) -> None:
        """A frame has gone through the pipeline."""
        self.vitals.frame()
        if self.pausable:
            self.publisher.set_paused(False)
        self.command_processor.seeing()
        self._between(pipeline, dropped)

    def rest(self, service: Service, pipeline: Pipeline) -> None:
        """The camera is closed, until it is wanted again or a stop is asked for."""
        _log.warning('the camera is paused; .../command/pause with {"on":false} opens it again')
        self.publisher.set_paused(True)
        while self.command_processor.paused and not service.stopping.is_set():
            pipeline.classifier.tend()
            service.rest()
            self.command_processor.resting()
            self._between(pipeline, 0)
            service.stopping.wait(_REST_SECONDS)

    def _between(self, pipeline: Pipeline, dropped: int) -> None:
        self.publisher.check_threads()
        self.publisher.faults.set("service", None)  # a service that works has none, whatever ended the one before
        degraded = pipeline.classifier.degraded
        self.publisher.faults.set("accelerator", fault_of(AcceleratorError(degraded), now()) if degraded else None)
        self.command_processor.step(pipeline.classifier)
        if self.vitals.due:
            told = StatisticsInput(
                paused=self.command_processor.paused,
                frames_dropped=dropped,
                model=pipeline.classifier.card.name,
                accelerator=pipeline.classifier.accelerator,
                outbox=self.outbox.figures,
                refused=self.publisher.figures.refused,
                commands_ignored=self.command_processor.ignored,
                fault=self.publisher.figures.fault,
                declared_use=self.privacy.declared_use,
            )
            stages = {} if self.privacy.aggregate_only else pipeline.stage_seconds
            self.publisher.publish_statistics(self.vitals.statistics(stages, told))


def open_broker_session(settings: Settings, config: Path | None, service: Service) -> BrokerSession:
    """Open what is kept, and begin to connect. Raises StoreError when another process uses it, and SettingsError."""
    folder, name = store_folder(settings.store, os.environ), client_id(settings.mqtt)
    state_store = StateStore(folder, name)
    pausable = is_live(settings.camera)
    counting = settings.privacy.aggregate_only
    # Events that still wait from before must not be sent among counts: those have a file of their own.
    outbox = Outbox(folder / f"{name}{'.aggregate' if counting else ''}.outbox.db", settings.store.events)
    announcements = _announcements(settings, state_store, pausable=pausable)
    publisher = MqttPublisher(settings.mqtt, outbox, announcements, aggregate_only=counting)
    if not settings.privacy.declared_use:
        _log.warning("privacy.declared_use is empty: say in one sentence what this device is used for")

    def reload() -> None:
        load_settings(config)  # what cannot be read must not end a device that works
        service.stop()

    abilities = Capabilities(
        pausable=pausable,
        reload=reload if service.managed else None,
        bundle=lambda: open_bundle(deployed_folder(settings, os.environ)),
    )
    command_processor = CommandProcessor(
        state_store, abilities, publisher.publish_reply, time.monotonic, publisher.set_verification
    )
    vitals = StatisticsCollector(settings.mqtt.statistics_seconds)
    if not service.managed:
        publisher.faults.set(
            "service", None
        )  # what another process has left; a service waits with that until it is ready
    publisher.start(command_processor.received)
    return BrokerSession(publisher, command_processor, vitals, outbox, pausable, settings.privacy)


def _announcements(settings: Settings, state_store: StateStore, *, pausable: bool) -> list[Announcement]:
    """What Home Assistant is told now, and what it was told once and is to forget."""
    wanted, base = settings.homeassistant, base_topic(settings.mqtt)
    topic = discovery_topic(wanted, base) if wanted.enabled else ""
    announcements = []
    if (former := state_store.kept.discovery) and former != topic:
        announcements.append(Announcement(former, b"", done=partial(state_store.keep, discovery=topic)))
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
            state_store.keep(discovery=topic)
        announcements.append(Announcement(topic, discovery(wanted, described), birth_topic(wanted)))
    return announcements
