"""The MQTT side of a run beside its events: commands, statistics, Home Assistant, and the files behind them."""

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edge.app.announcements import make_announcements
from edge.app.start_check import check_start
from edge.camera.sources import is_live
from edge.errors import AcceleratorError, BundleError, StoreError
from edge.events.episodes import Change
from edge.labels import Labels
from edge.model.bundle import open_bundle
from edge.model.classifier import Classifier
from edge.model.loader import DeployedModel
from edge.model.registry import deployed_folder, expected_labels
from edge.monitoring.observer import FrameObserver, LoopStatus
from edge.monitoring.statistics import StatisticsCollector, StatisticsInput
from edge.mqtt.commands import Capabilities, CommandProcessor
from edge.mqtt.device_record import DeviceRecordStore
from edge.mqtt.outbox import Outbox
from edge.mqtt.publisher import MqttPublisher
from edge.mqtt.retained import Announcement
from edge.mqtt.topics import file_stem
from edge.pipeline import FrameResult
from edge.settings import PrivacySettings, Settings, load_settings
from edge.system.clock import now
from edge.system.instance import service_environ
from edge.system.owner_rights import require_own_folder
from edge.system.state import StateStore
from edge.system.systemd import Service, fault_of

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BrokerSession(FrameObserver):
    """The publisher, the commands that come from the broker, and the statistics of the device."""

    publisher: MqttPublisher
    command_processor: CommandProcessor
    state_store: StateStore
    record_store: DeviceRecordStore
    statistics: StatisticsCollector
    pausable: bool
    privacy: PrivacySettings
    announcements_of: Callable[[Labels], list[Announcement]]

    def deployed(self, deployed: DeployedModel) -> None:
        """Publish which model runs, what it can recognise, and a fault when it is not the chosen one."""
        self.publisher.announce(self.announcements_of(deployed.classifier.card.labels))
        self.publisher.set_verification(deployed.verification)
        fault = fault_of(BundleError(deployed.refused), now()) if deployed.refused else None
        self.publisher.faults.set("model", fault)

    def frame(self, result: FrameResult, status: LoopStatus) -> None:
        """Count a frame, answer pauses that have ended, and do what is due between frames."""
        self.statistics.frame(result.changes)
        self.publisher.set_camera(is_open=True)
        if self.pausable:
            self.publisher.set_paused(False)
        self.command_processor.camera_is_open()
        self._between_frames(status)

    def paused(self, status: LoopStatus) -> None:
        """Answer pauses that have begun, and do what is due while the camera is closed."""
        self.publisher.set_camera(is_open=False)
        self.publisher.set_paused(True)
        self.command_processor.camera_is_closed()
        self._between_frames(status)

    def closed(self, changes: Sequence[Change]) -> None:
        """The camera is closed, before the events say that everybody has left: nobody has been seen leaving."""
        self.publisher.close_camera()

    def report_damaged_state(self) -> None:
        """Publish a fault while the camera is closed because the kept state is damaged; clear it afterwards."""
        damage = self.state_store.damage if self.pausable else ""
        self.publisher.faults.set("state", fault_of(StoreError(damage), now()) if damage else None)

    def disk_works(self) -> None:
        """Store what the disk did not take before. For any thread but the frame loop's, because a disk may hang."""
        self.command_processor.disk_works()
        self.record_store.write_again()

    def close(self, seconds: float) -> int:
        """Store what was put off, and close the publisher; returns how many events are undelivered."""
        self.command_processor.close()
        self.record_store.write_again()
        return self.publisher.close(seconds)

    def _between_frames(self, status: LoopStatus) -> None:
        classifier = status.classifier
        self.publisher.check_threads()
        self.publisher.faults.set("service", None)  # a service that works has none, whatever ended the one before
        degraded = classifier.degraded
        self.publisher.faults.set("accelerator", fault_of(AcceleratorError(degraded), now()) if degraded else None)
        self.report_damaged_state()
        if isinstance(classifier, Classifier):  # nothing else has golden outputs
            self.command_processor.continue_verification(classifier)
        if self.statistics.due(classifier.accelerator, self.publisher.faults.code, too_dark=status.too_dark):
            self._publish_statistics(status)

    def _publish_statistics(self, status: LoopStatus) -> None:
        given = StatisticsInput(
            paused=self.command_processor.paused,
            too_dark=status.too_dark,
            frames_dropped=status.frames_dropped,
            model=status.classifier.card.name,
            accelerator=status.classifier.accelerator,
            delivery=self.publisher.figures(),
            commands_ignored=self.command_processor.ignored,
            declared_use=self.privacy.declared_use,
        )
        stage_seconds = {} if self.privacy.aggregate_only else status.stage_seconds
        self.publisher.publish_statistics(self.statistics.collect(stage_seconds, given))


def open_broker_session(
    settings: Settings, config: Path | None, service: Service, record_store: DeviceRecordStore
) -> BrokerSession:
    """Open the outbox and the kept state, and begin to connect. ``record_store`` is that of the state folder.

    Raises StoreError when another process uses the outbox, UsageError for root in a folder of another user, and
    SettingsError.
    """
    folder, name = record_store.folder, file_stem(settings.mqtt)
    models = service_environ(config, os.environ)
    require_own_folder(folder)
    state_store = StateStore(folder, name)
    pausable = is_live(settings.camera)
    counting = settings.privacy.aggregate_only
    # Aggregates have an outbox of their own, so that events of earlier runs are not sent among them.
    outbox = Outbox(folder / f"{name}{'.aggregate' if counting else ''}.outbox.db", settings.store.events)
    announcements_of = partial(
        make_announcements, settings, record_store, state_store, pausable=pausable, restartable=service.managed
    )
    publisher = MqttPublisher(
        settings.mqtt,
        outbox,
        announcements_of(expected_labels(settings, models)),
        aggregate_only=counting,
        homeassistant=settings.homeassistant if settings.homeassistant.enabled else None,
    )
    if not settings.privacy.declared_use:
        _log.warning("privacy.declared_use is empty: say in one sentence what this device is used for")

    def reload() -> None:
        check_start(load_settings(config), os.environ)  # a device that works must not end for one that does not
        service.stop()

    capabilities = Capabilities(
        pausable=pausable,
        reload=reload if service.managed else None,
        bundle=lambda: open_bundle(deployed_folder(settings, models)),
    )
    command_processor = CommandProcessor(
        state_store, capabilities, publisher.publish_reply, time.monotonic, publisher.set_verification
    )
    statistics = StatisticsCollector(settings.mqtt.statistics_seconds, individuals=not counting)
    if not service.managed:
        publisher.faults.set("service", None)  # of an earlier process; a service keeps it until it is ready
    session = BrokerSession(
        publisher,
        command_processor,
        state_store,
        record_store,
        statistics,
        pausable,
        settings.privacy,
        announcements_of,
    )
    session.report_damaged_state()
    if not pausable:
        publisher.set_paused(None)
    publisher.start(command_processor.receive, session.disk_works)
    return session
