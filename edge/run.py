"""``fer-edge run``: put the steps of the stream together, and carry what they tell to where it was asked for."""

import sys
from argparse import Namespace
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from edge.bundle import find_bundle, open_bundle
from edge.camera import Source, open_source, paced
from edge.classify import Classifier
from edge.episodes import Narrator
from edge.errors import DeliveryError
from edge.events import EventMaker, clock_synced, live_time, media_time, to_json
from edge.faces import FaceDetector
from edge.mqtt import MqttSink
from edge.pipeline import Pipeline
from edge.records import Event
from edge.settings import Mqtt, Settings, load_settings
from edge.summary import ContactSheet, Summary
from edge.tracks import Tracker

_DELIVERY_SECONDS = 5.0


def run(arguments: Namespace) -> int:
    """Carry out ``fer-edge run`` with its parsed arguments."""
    settings = load_settings(arguments.config)
    if arguments.source:
        camera = msgspec.structs.replace(settings.camera, source=arguments.source)
        settings = msgspec.structs.replace(settings, camera=camera)
    pipeline = make_pipeline(settings)
    source = open_source(settings.camera)
    summary = Summary()
    sheet = ContactSheet(arguments.sheet) if arguments.sheet else None
    broker = MqttSink(settings.mqtt) if arguments.events == "mqtt" else None
    try:
        _watch(source, pipeline, broker.tell if broker else _print_event, summary, sheet, realtime=arguments.realtime)
    finally:
        source.close()
        undelivered = broker.close(_DELIVERY_SECONDS) if broker else 0
    if sheet:
        sheet.write()
    print(summary.text(pipeline, source.dropped), file=sys.stderr)
    if undelivered:
        raise DeliveryError(_undelivered(undelivered, settings.mqtt))
    return 0


def make_pipeline(settings: Settings) -> Pipeline:
    """The steps of the stream as the settings want them."""
    return Pipeline(
        FaceDetector(settings.detect), Tracker(settings.track), make_classifier(settings), Narrator(settings.events)
    )


def make_classifier(settings: Settings) -> Classifier:
    """The classifier of the bundle that the settings name."""
    return Classifier(open_bundle(find_bundle(settings.model.bundle)), settings.model.threads)


def _watch(
    source: Source,
    pipeline: Pipeline,
    tell: Callable[[Event], None],
    summary: Summary,
    sheet: ContactSheet | None,
    *,
    realtime: bool,
) -> None:
    maker = EventMaker(live_time() if source.live else media_time(datetime.now(UTC).astimezone()), clock_synced)
    frames = source.frames()
    for seen in pipeline.run(paced(frames) if realtime and not source.live else frames):
        for change in seen.changes:
            tell(maker.event(change))
        summary.add(seen)
        if sheet:
            sheet.add(seen)
    for change in pipeline.finish():
        tell(maker.event(change))
        summary.count(change)


def _print_event(event: Event) -> None:
    print(to_json(event).decode(), flush=True)


def _undelivered(count: int, mqtt: Mqtt) -> str:
    return (
        f"{count} messages were not acknowledged by the MQTT broker at {mqtt.host}:{mqtt.port} "
        f"within {_DELIVERY_SECONDS:.0f} s. Is it running, and may this device publish?"
    )
