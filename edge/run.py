"""``fer-edge run``: put the steps of the stream together, and carry what they tell to where it was asked for."""

import contextlib
import logging
import os
import sys
from argparse import Namespace

import msgspec

from edge.autotune import kept
from edge.bundle import Card, find_bundle, open_bundle
from edge.camera import is_live, open_source, paced
from edge.classify import Classifier
from edge.clock import Origin, live_time, media_time, now
from edge.edgetpu import EdgeTpu, Mark
from edge.ending import hanging
from edge.errors import CameraStalled, DeliveryError, FerEdgeError, UsageError
from edge.events import EventMaker
from edge.keeping import store_folder
from edge.outside import Outside, make_outside
from edge.pipeline import Pipeline, make_stream
from edge.recording import Recorder
from edge.service import STOP_SECONDS, Service, credential, fault_of
from edge.settings import Settings, load_settings
from edge.summary import ContactSheet, Summary
from edge.telling import Counts, EachEvent, Teller

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
    outside = make_outside(settings, arguments.config, service) if arguments.events == "mqtt" else None
    service.farewell = lambda: outside.sink.close(1.0) if outside else None
    seconds = STOP_SECONDS if service.managed else _DELIVERY_SECONDS
    try:
        with Recorder(arguments.record) if arguments.record else contextlib.nullcontext() as recorder:
            _watch(arguments, settings, service, outside, recorder)
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


def _watch(
    arguments: Namespace, settings: Settings, service: Service, outside: Outside | None, recorder: Recorder | None
) -> None:
    """Go through all frames of the source, until it ends or a stop is asked for; rest while it is paused."""
    pipeline = make_pipeline(settings)
    if not is_live(settings.camera):
        pipeline.classifier.settle()  # a file can wait, and all of it is to be computed in one place
    summary = Summary(individuals=not settings.privacy.aggregate_only)
    sheet = ContactSheet(arguments.sheet) if arguments.sheet else None
    dropped = 0
    while not service.stopping.is_set():
        if outside and outside.remote.paused:
            outside.rest(service, pipeline)
            continue
        with contextlib.closing(open_source(settings.camera)) as source:
            origin = live_time() if source.live else media_time(now())
            teller = _teller(origin, pipeline.classifier.card, settings, outside, recorder)
            frames = source.frames()
            try:
                for seen in pipeline.run(paced(frames) if arguments.realtime and not source.live else frames):
                    teller.seen(seen)
                    summary.add(seen)
                    if sheet:
                        sheet.add(seen)
                    pipeline.classifier.tend()
                    ready = service.frame(pipeline.classifier.accelerator)
                    if outside:
                        outside.seen(pipeline, source.dropped, ready=ready)
                    if service.stopping.is_set() or (outside and outside.remote.paused):
                        break
            finally:  # nobody is watched any more, whatever the reason
                left = pipeline.finish()
                teller.end(left)
                for change in left:
                    summary.count(change)
        dropped += source.dropped
        if not (outside and outside.remote.paused):
            break
        if hanging():
            raise CameraStalled("the camera hangs and cannot be closed; only the end of this process closes it")
        pipeline = pipeline.anew(settings)  # time begins anew with the source, and so do tracks
    if sheet:
        sheet.write()
    print(summary.text(pipeline, dropped), file=sys.stderr)


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


def make_pipeline(settings: Settings) -> Pipeline:
    """The steps of the stream as the settings want them."""
    return make_stream(settings, make_classifier(settings))


def make_classifier(settings: Settings) -> Classifier:
    """The classifier of the bundle that the settings name, on what they, or else what was tuned, choose."""
    model, bundle = settings.model, open_bundle(find_bundle(settings.model.bundle))
    tuned = kept(store_folder(settings.store, os.environ), bundle)
    threads = model.threads or (tuned.chosen.threads if tuned else 1)
    wanted, avoided = model.accelerator == "edgetpu", model.accelerator == "cpu" or bundle.edgetpu_model is None
    if model.accelerator == "auto" and tuned and tuned.was_measured("edgetpu"):
        # What was measured to be slower is left alone; what was measured to be faster must not go missing silently.
        wanted = tuned.chosen.accelerator == "edgetpu"
        avoided = not wanted
    if avoided and not wanted:
        return Classifier(bundle, threads)
    mark = Mark(os.environ.get("RUNTIME_DIRECTORY"))
    return Classifier(bundle, threads, EdgeTpu(bundle, model, mark, wanted=wanted))


def _teller(
    origin: Origin, card: Card, settings: Settings, outside: Outside | None, recorder: Recorder | None
) -> Teller:
    """For one opening of the source: a run id of its own, and what is said under it."""
    maker = EventMaker()
    sink = outside.sink if outside else None
    if recorder:
        recorder.begin(maker.run_id, card, settings)
    counting = settings.privacy.aggregate_only
    voice = Counts(maker, settings.privacy, sink) if counting else EachEvent(maker, sink)
    return Teller(origin, voice, recorder)
