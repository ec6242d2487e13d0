"""``fer-edge run``: put the steps of the stream together, and carry what they tell to where it was asked for."""

import contextlib
import logging
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import replace

import msgspec

from edge.camera import open_source, paced
from edge.classify import Classifier
from edge.clock import clock_synced, live_time, media_time, now
from edge.counts import Counts
from edge.deployed import deploy
from edge.ending import hanging
from edge.episodes import Change, Narrator
from edge.errors import CameraStalled, DeliveryError, FerEdgeError, SettingsError
from edge.events import EventMaker, to_json
from edge.faces import FaceDetector
from edge.mqtt import MqttSink
from edge.outside import make_outside
from edge.pipeline import Pipeline
from edge.service import STOP_SECONDS, Service, credential, fault_of
from edge.settings import Metrics, Settings, load_settings
from edge.summary import ContactSheet, Summary
from edge.tracks import Tracker

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
    # The broker comes first, so that it can be told why the camera or the model does not work.
    outside = make_outside(settings, arguments.config, service) if arguments.events == "mqtt" else None
    service.farewell = lambda: outside.sink.close(1.0) if outside else None
    seconds = STOP_SECONDS if service.managed else _DELIVERY_SECONDS
    try:
        counts = Counts(service.failed_starts, outside=outside)
        with _metrics(settings.metrics, counts):
            _watch(arguments, settings, service, counts)
    except FerEdgeError as error:
        if outside and service.managed:
            outside.sink.fault(fault_of(error, now()))
        raise
    finally:
        undelivered = outside.sink.close(seconds) if outside else 0
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


def _watch(arguments: Namespace, settings: Settings, service: Service, counts: Counts) -> None:
    """Go through all frames of the source, until it ends or a stop is asked for; rest while it is paused."""
    outside = counts.outside
    deployed = deploy(settings, os.environ, service)
    counts.deployed(deployed)
    pipeline = make_pipeline(settings, deployed.classifier)
    summary = Summary()
    sheet = ContactSheet(arguments.sheet) if arguments.sheet else None
    dropped = 0
    while not service.stopping.is_set():
        if outside and outside.remote.paused:
            counts.rests()
            outside.rest(service, pipeline)
            continue
        with contextlib.closing(open_source(settings.camera)) as source:
            tell = _teller(source.live, outside.sink if outside else None)
            frames = source.frames()
            try:
                for seen in pipeline.run(paced(frames) if arguments.realtime and not source.live else frames):
                    tell(seen.changes)
                    summary.add(seen)
                    counts.seen(seen, pipeline, source.dropped)
                    if sheet:
                        sheet.add(seen)
                    ready = service.frame(pipeline.classifier.accelerator)
                    if outside:
                        outside.seen(pipeline, source.dropped, ready=ready)
                    if service.stopping.is_set() or (outside and outside.remote.paused):
                        break
            finally:  # nobody is watched any more, whatever the reason
                left = pipeline.finish()
                tell(left)
                counts.told(left)
                for change in left:
                    summary.count(change)
        dropped += source.dropped
        if not (outside and outside.remote.paused):
            break
        if hanging():
            raise CameraStalled("the camera hangs and cannot be closed; only the end of this process closes it")
        # Time begins anew with the source, and so do tracks.
        pipeline = replace(pipeline, tracker=Tracker(settings.track), narrator=Narrator(settings.events))
    if sheet:
        sheet.write()
    print(summary.text(pipeline, dropped), file=sys.stderr)


@contextlib.contextmanager
def _metrics(settings: Metrics, counts: Counts) -> Iterator[None]:
    """Serve what is counted while this lasts, if the settings want it."""
    if not settings.enabled:
        yield
        return
    try:
        from edge.exporter import Exporter  # noqa: PLC0415  an extra that few install
    except ImportError as error:
        raise SettingsError(f"metrics.enabled: {error}. Install it: pip install 'fer-edge[metrics]'") from error
    with contextlib.closing(Exporter(settings, counts)):
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


def make_pipeline(settings: Settings, classifier: Classifier) -> Pipeline:
    """The steps of the stream as the settings want them."""
    return Pipeline(FaceDetector(settings.detect), Tracker(settings.track), classifier, Narrator(settings.events))


def _teller(live: bool, sink: MqttSink | None) -> Callable[[list[Change]], None]:
    """Makes events of changes and carries them to the broker, or to stdout."""
    maker = EventMaker(live_time() if live else media_time(now()), clock_synced)

    def tell(changes: list[Change]) -> None:
        for change in changes:
            event = maker.event(change)
            if sink:
                sink.tell(event)
            else:
                print(to_json(event).decode(), flush=True)

    return tell
