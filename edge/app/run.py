"""``fer-edge run``: put the steps of the stream together, and carry what they tell to where it was asked for."""

import contextlib
import logging
import os
import sys
from argparse import Namespace
from collections.abc import Iterator
from functools import partial

import msgspec

from edge.app.broker_session import BrokerSession, open_broker_session
from edge.app.recording import Recorder
from edge.app.reporters import AggregateReport, EventReporter, PerEventReport
from edge.app.summary import ContactSheet, Summary
from edge.camera.sources import is_live, open_source, paced
from edge.errors import CameraStalled, DeliveryError, FerEdgeError, SettingsError, UsageError
from edge.events.factory import EventFactory
from edge.model.bundle import Card
from edge.model.loader import deploy
from edge.monitoring.counters import RunCounters
from edge.pipeline import make_pipeline
from edge.settings import MetricsSettings, Settings, load_settings
from edge.system.clock import TimeOrigin, live_time, media_time, now
from edge.system.shutdown import hanging
from edge.system.systemd import STOP_SECONDS, Service, credential, fault_of

_log = logging.getLogger(__name__)

_DELIVERY_SECONDS = 5.0


def run(arguments: Namespace) -> int:
    """Carry out ``fer-edge run`` with its parsed arguments, by hand or as a service."""
    with Service(os.environ) as service:
        if not service.wait_for_turn():
            return 0
        try:
            code = _run(arguments, service)
        except FerEdgeError as error:
            service.failed(error)
            raise
        service.forget_failures()
        return code


def _run(arguments: Namespace, service: Service) -> int:
    settings = _settings(arguments)
    if settings.privacy.aggregate_only and (arguments.record or arguments.sheet):
        raise UsageError("--record and --sheet keep what single faces showed, and privacy.aggregate_only forbids that")
    # The broker comes first, so that it can be told why the camera or the model does not work.
    session = open_broker_session(settings, arguments.config, service) if arguments.events == "mqtt" else None
    if session:
        service.before_forced_exit(partial(session.publisher.close, 1.0))
    seconds = STOP_SECONDS if service.managed else _DELIVERY_SECONDS
    try:
        counts = RunCounters(service.failed_starts, individuals=not settings.privacy.aggregate_only, session=session)
        recording = Recorder(arguments.record) if arguments.record else contextlib.nullcontext()
        with _metrics(settings.metrics, counts), recording as recorder:
            _watch(arguments, settings, service, counts, recorder)
    except FerEdgeError as error:
        if session and service.managed:
            session.publisher.faults.set("service", fault_of(error, now()))
        raise
    finally:
        undelivered = session.publisher.close(seconds) if session else 0
    if undelivered:
        sentence = (
            f"{undelivered} events were not acknowledged by the MQTT broker at {settings.mqtt.host}:"
            f"{settings.mqtt.port} within {seconds:.0f} s. They are kept, and the next run sends them. Is it running, "
            "and may this device publish?"
        )
        if not service.stopping.is_set():
            raise DeliveryError(sentence)
        _log.warning(sentence)  # stopping is what was asked for, and that worked
    return 0


def _watch(
    arguments: Namespace, settings: Settings, service: Service, counts: RunCounters, recorder: Recorder | None
) -> None:
    """Go through all frames of the source, until it ends or a stop is asked for; rest while it is paused."""
    session = counts.session
    deployed = deploy(settings, os.environ, service)
    counts.deployed(deployed)
    pipeline = make_pipeline(settings, deployed.classifier)
    if not is_live(settings.camera):
        pipeline.classifier.settle()  # a file can wait, and all of it is to be computed in one place
    summary = Summary(individuals=not settings.privacy.aggregate_only)
    sheet = ContactSheet(arguments.sheet) if arguments.sheet else None
    dropped = 0
    while not service.stopping.is_set():
        if session and session.command_processor.paused:
            counts.rests()
            session.rest(service, pipeline)
            continue
        with contextlib.closing(open_source(settings.camera)) as source:
            origin = live_time() if source.live else media_time(now())
            teller = _teller(origin, pipeline.classifier.card, settings, session, recorder)
            frames = source.frames()
            try:
                for seen in pipeline.run(paced(frames) if arguments.realtime and not source.live else frames):
                    teller.seen(seen)
                    summary.add(seen)
                    counts.seen(seen, pipeline, source.dropped)
                    if sheet:
                        sheet.add(seen)
                    pipeline.classifier.tend()
                    service.frame(pipeline.classifier.accelerator)
                    if session:
                        session.seen(pipeline, source.dropped)
                    if service.stopping.is_set() or (session and session.command_processor.paused):
                        break
            finally:  # nobody is watched any more, whatever the reason
                left = pipeline.finish()
                teller.end(left)
                counts.told(left)
                for change in left:
                    summary.count(change)
        dropped += source.dropped
        if not (session and session.command_processor.paused):
            break
        if hanging():
            raise CameraStalled("the camera hangs and cannot be closed; only the end of this process closes it")
        pipeline = pipeline.anew(settings)  # time begins anew with the source, and so do tracks
    if sheet:
        sheet.write()
    print(summary.text(pipeline, dropped), file=sys.stderr)


@contextlib.contextmanager
def _metrics(settings: MetricsSettings, counts: RunCounters) -> Iterator[None]:
    """Serve what is counted while this lasts, if the settings want it."""
    if not settings.enabled:
        yield
        return
    try:
        from edge.monitoring.prometheus import PrometheusExporter  # noqa: PLC0415  an extra that few install
    except ImportError as error:
        raise SettingsError(f"metrics.enabled: {error}. Install it: pip install 'fer-edge[metrics]'") from error
    with contextlib.closing(PrometheusExporter(settings, counts)):
        yield


def _settings(arguments: Namespace) -> Settings:
    """The settings file, with what the command line and systemd put in its place."""
    settings = load_settings(arguments.config)
    if arguments.source:
        camera = msgspec.structs.replace(settings.camera, source=arguments.source)
        settings = msgspec.structs.replace(settings, camera=camera)
    for key, name in (("password_file", "mqtt-password"), ("key_file", "mqtt-key")):
        if secret := credential(os.environ, name):
            mqtt = msgspec.structs.replace(settings.mqtt, **{key: str(secret)})
            settings = msgspec.structs.replace(settings, mqtt=mqtt)
    return settings


def _teller(
    origin: TimeOrigin, card: Card, settings: Settings, session: BrokerSession | None, recorder: Recorder | None
) -> EventReporter:
    """For one opening of the source: a run id of its own, and what is said under it."""
    maker = EventFactory()
    publisher = session.publisher if session else None
    if recorder:
        recorder.begin(maker.run_id, card, settings)
    counting = settings.privacy.aggregate_only
    voice = AggregateReport(maker, settings.privacy, publisher) if counting else PerEventReport(maker, publisher)
    return EventReporter(origin, voice, recorder)
