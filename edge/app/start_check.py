"""Whether a start with other settings would last: ``reload`` must not end a service that works for one that cannot."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edge.camera.sources import is_live
from edge.diagnostics.package_check import install_command
from edge.errors import BundleError, SettingsError
from edge.model.bundle import Card, find_bundle, open_bundle
from edge.model.registry import ModelRegistry, state_folder
from edge.mqtt.connection import new_client
from edge.mqtt.topics import client_id
from edge.settings import Settings, require_expressions
from edge.system.secret_files import with_credentials
from edge.vision.detectors import open_detector

if TYPE_CHECKING:
    from edge.monitoring.prometheus import PrometheusExporter


def check_start(settings: Settings, environ: Mapping[str, str]) -> None:
    """Raise SettingsError, SourceError or BundleError if a service that publishes would end with it at its start.

    It reads files only: neither camera nor broker is asked, and no port is opened.
    """
    is_live(settings.camera)
    _check_broker_files(settings, environ)
    if settings.metrics.enabled:
        load_exporter()
    open_detector(settings.detect)
    if card := _expected_card(settings, environ):
        require_expressions(settings.preset, card.labels, card.name)


def load_exporter() -> "type[PrometheusExporter]":
    """The class that serves the metrics. Raises SettingsError when the extra that it needs is not installed."""
    try:
        from edge.monitoring.prometheus import PrometheusExporter  # noqa: PLC0415  an extra that few install
    except ImportError as error:
        raise SettingsError(f"metrics.enabled: {error}. Install it: {install_command('prometheus-client')}") from error
    return PrometheusExporter


def _check_broker_files(settings: Settings, environ: Mapping[str, str]) -> None:
    mqtt = with_credentials(settings, environ).mqtt
    if mqtt.cert_file and not settings.mqtt.key_file:
        # systemd reads the key anew at each start: the one of now need not fit a certificate that was renewed.
        if not os.access(mqtt.cert_file, os.R_OK):
            raise SettingsError(f"mqtt.cert_file: {Path(mqtt.cert_file)} is missing, or this user may not read it")
        mqtt = msgspec.structs.replace(mqtt, tls=True, cert_file="", key_file="")
    new_client(mqtt, client_id(mqtt))


def _expected_card(settings: Settings, environ: Mapping[str, str]) -> Card | None:
    """The card of the model that a start tries first; None if another one takes its place, with fewer presets."""
    if settings.model.bundle:
        return open_bundle(find_bundle(settings.model.bundle)).card
    registry = ModelRegistry(state_folder(settings.store, environ))
    if registry.verdict.sentence:
        return None
    try:
        return open_bundle(registry.candidates()[0].folder).card
    except BundleError:
        return None
