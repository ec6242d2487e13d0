"""``fer-edge run``: puts the pipeline and its observers together, and runs the frame loop."""

import contextlib
import logging
import os
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

import msgspec

from edge.app.broker_session import BrokerSession, open_broker_session
from edge.app.frame_loop import FrameLoop, LoopControl
from edge.app.recording import Recorder
from edge.app.reporters import AggregateReport, EventReporter, PerEventReport, ReportStrategy
from edge.app.start_check import load_exporter
from edge.app.summary import ContactSheet, Summary, show_at_end
from edge.camera.sources import is_live, with_source
from edge.errors import DeliveryError, FerEdgeError, UsageError
from edge.events.factory import EventFactory
from edge.model.classifier import CardTerms
from edge.model.loader import DeployedModel, open_deployed_model
from edge.monitoring.counters import RunCounters
from edge.monitoring.observer import FrameObserver, LoopStatus
from edge.mqtt.device_record import DeviceRecordStore
from edge.mqtt.publisher import MqttPublisher
from edge.mqtt.topics import with_device_name
from edge.pipeline import FrameResult, make_pipeline
from edge.settings import CameraSettings, MetricsSettings, Settings, load_settings
from edge.system.clock import TimeOrigin, now
from edge.system.instance import service_environ
from edge.system.secret_files import with_credentials
from edge.system.state import store_folder
from edge.system.systemd import STOP_SECONDS, Service, fault_of
from edge.untrusted_file import is_file

_log = logging.getLogger(__name__)

OpenModel: TypeAlias = Callable[[Settings, Mapping[str, str], Service], DeployedModel]

_DELIVERY_SECONDS: Final = 5.0
_FORCED_EXIT_SECONDS: Final = 1.0


def run(arguments: Namespace, open_model: OpenModel = open_deployed_model) -> int:
    """Carry out ``fer-edge run`` with its parsed arguments, by hand or as a service.

    ``open_model`` opens the model; ``fer-train watch`` opens a training run in place of a bundle.
    """
    with Service(os.environ) as service:
        if not service.wait_for_turn():
            return 0
        try:
            code = _run(arguments, service, open_model)
        except FerEdgeError as error:
            service.failed(error)
            raise
        service.forget_failures()
        return code


def _run(arguments: Namespace, service: Service, open_model: OpenModel) -> int:
    settings = _settings(arguments)
    record_store = DeviceRecordStore(store_folder(settings.store, os.environ))
    settings = with_device_name(settings, record_store, keep=arguments.events == "mqtt")
    if settings.privacy.aggregate_only and (arguments.record or arguments.sheet):
        raise UsageError("--record and --sheet keep what single faces showed, and privacy.aggregate_only forbids that")
    _spare_files(arguments, settings.camera)
    # The broker comes first, so that a camera or a model that does not work can be published as a fault.
    session = None
    if arguments.events == "mqtt":
        session = open_broker_session(settings, arguments.config, service, record_store)
        service.before_forced_exit(partial(session.close, _FORCED_EXIT_SECONDS))
    try:
        _observe(arguments, settings, service, session, open_model)
    except FerEdgeError as error:
        if session and service.managed:
            session.publisher.faults.set("service", fault_of(error, now()))
        raise
    finally:
        # Who asks for a stop wants it soon; after three seconds a camera that hangs would be blamed.
        seconds = STOP_SECONDS if service.managed or service.stopping.is_set() else _DELIVERY_SECONDS
        undelivered = session.close(seconds) if session else 0
    if undelivered:
        message = (
            f"{undelivered} events were not acknowledged by the MQTT broker at {settings.mqtt.host}:"
            f"{settings.mqtt.port} within {seconds:.0f} s. They are kept, and the next run sends them. Is it running, "
            "and may this device publish?"
        )
        if not service.stopping.is_set():
            raise DeliveryError(message)
        _log.warning(message)  # stopping is what was asked for, and that worked
    return 0


def _observe(
    arguments: Namespace, settings: Settings, service: Service, session: BrokerSession | None, open_model: OpenModel
) -> None:
    """Run the frame loop with all observers that arguments and settings want; show at its end what they collected."""
    individuals = not settings.privacy.aggregate_only
    counters = RunCounters(service.failed_starts, individuals=individuals)
    recording = Recorder(arguments.record) if arguments.record else contextlib.nullcontext()
    with _metrics(settings.metrics, counters, session), recording as recorder:
        deployed = open_model(settings, service_environ(arguments.config, os.environ), service)
        counters.deployed(deployed)
        settings = _for_fallback(settings, deployed)
        if session:
            session.deployed(deployed)
        summary = Summary(individuals=individuals)
        sheet = ContactSheet(arguments.sheet) if arguments.sheet else None
        observers = (summary, counters, sheet, ServiceNotifier(service), session)
        publisher = session.publisher if session else None
        loop = FrameLoop(
            settings,
            make_pipeline(settings, deployed.classifier),
            [observer for observer in observers if observer],
            lambda origin: _open_reporter(origin, deployed.classifier.card, settings, publisher, recorder),
            LoopControl(service.stopping, lambda: bool(session and session.command_processor.paused)),
            realtime=arguments.realtime,
        )
        if not is_live(settings.camera):
            deployed.classifier.wait_for_accelerator()  # a file can wait, and all of it is to be computed in one place
        with show_at_end(summary, sheet, lambda: summary.text(loop.pipeline, loop.frames_dropped)):
            loop.run()


class ServiceNotifier(FrameObserver):
    """Notifies systemd of frames, pauses, and waits for the camera."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def frame(self, result: FrameResult, status: LoopStatus) -> None:
        """The first frame makes the service ready; each feeds the watchdog."""
        self._service.frame(status.classifier.accelerator)

    def waiting(self) -> None:
        """Waiting for a camera is no hang, because the camera is given up after a limited time."""
        self._service.waiting()

    def paused(self, status: LoopStatus) -> None:
        """A pause makes the service ready and feeds the watchdog too."""
        self._service.rest()


@contextlib.contextmanager
def _metrics(settings: MetricsSettings, counters: RunCounters, session: BrokerSession | None) -> Iterator[None]:
    """Serve the metrics page while this lasts, if the settings want it."""
    if not settings.enabled:
        yield
        return
    delivery = session.publisher.figures if session else None
    with contextlib.closing(load_exporter()(settings, counters, delivery)):
        yield


def _settings(arguments: Namespace) -> Settings:
    """The settings file, with the source and the options of the command line and the secrets of systemd."""
    settings = with_source(load_settings(arguments.config), arguments.source)
    if arguments.no_metrics:
        settings = msgspec.structs.replace(settings, metrics=MetricsSettings(enabled=False))
    return with_credentials(settings, os.environ)


def _spare_files(arguments: Namespace, camera: CameraSettings) -> None:
    """Raise UsageError if an output would be written over the video that is read, or over the other output."""
    if arguments.record and arguments.sheet and arguments.record.resolve() == arguments.sheet.resolve():
        raise UsageError(f"--record and --sheet: both would be written to {arguments.sheet}. Give two files")
    for option, file in (("--record", arguments.record), ("--sheet", arguments.sheet)):
        if file and is_file(file) and is_file(Path(camera.source)) and file.samefile(camera.source):
            raise UsageError(f"{option} {file}: this is the source, which would be lost. Give another file")


def _for_fallback(settings: Settings, deployed: DeployedModel) -> Settings:
    """The settings without the presets that a model does not know which runs in place of the chosen one.

    The fault is known already, and the device goes on with the rest.
    """
    card = deployed.classifier.card
    known = tuple(preset for preset in settings.preset if preset.expression in card.labels)
    if not deployed.refused or known == settings.preset:
        return settings
    unknown = ", ".join(preset.name for preset in settings.preset if preset not in known)
    _log.warning("without the presets %s, whose expressions %s does not know", unknown, card.name)
    return msgspec.structs.replace(settings, preset=known)


def _open_reporter(
    origin: TimeOrigin, card: CardTerms, settings: Settings, publisher: MqttPublisher | None, recorder: Recorder | None
) -> EventReporter:
    """A reporter for one opening of the source, with a run id of its own."""
    factory = EventFactory()
    if recorder:
        recorder.begin(factory.run_id, card, settings)
    strategy: ReportStrategy = (
        AggregateReport(factory, settings.privacy, publisher)
        if settings.privacy.aggregate_only
        else PerEventReport(factory, publisher)
    )
    return EventReporter(origin, strategy, recorder)
