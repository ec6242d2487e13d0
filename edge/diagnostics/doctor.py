"""All checks of this device, each for something that has gone wrong in the field.

A check is a function that gets what it checks as arguments and returns a Finding. What may hang or crash (imports,
camera, network) runs in a child process with a time limit (edge.diagnostics.probes). This module and the checks import
neither numpy nor OpenCV, so that the doctor can report that these are broken.
"""

import grp
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edge.diagnostics import system_checks
from edge.diagnostics.access_check import check_files
from edge.diagnostics.broker_check import check_broker
from edge.diagnostics.device_checks import check_camera, check_detector, check_model, deployed_model
from edge.diagnostics.edgetpu_checks import CoralPaths, check_edgetpu
from edge.diagnostics.finding import Finding
from edge.diagnostics.package_check import check_packages
from edge.settings import Settings
from edge.system.clock import clock_synced
from edge.system.hardware import MODEL, throttled_now
from edge.system.instance import instance_of, service_environ
from edge.system.secret_files import with_secret_files
from edge.system.state import INSTALLED_CONFIG, SERVICE_STATE, store_folder

_SERVICE_USER: Final = "fer-edge"


def examine(config: Path | None, python: str = sys.executable) -> Iterator[Finding]:
    """Run all checks of this device; those that need valid settings come last."""
    yield system_checks.check_system(Path("/etc/os-release"), MODEL, platform.machine())
    yield system_checks.check_python(platform.python_version(), sys.prefix if sys.prefix != sys.base_prefix else None)
    yield system_checks.check_clock(clock_synced())
    yield system_checks.check_throttling(("vcgencmd", "get_throttled"), throttled_now())
    finding, settings = system_checks.check_config(config, INSTALLED_CONFIG)
    yield _check_disk(settings, config)
    yield finding
    if settings:
        yield from _examine_settings(settings, config, (python,))
        return
    for name in ("privacy", "secrets", "packages", "groups", "camera", "detector", "model", "edgetpu", "broker"):
        yield Finding(name, "warn", "not checked, because the settings cannot be read")


def _check_disk(settings: Settings | None, config: Path | None) -> Finding:
    """The disk of the state that a run with these settings uses: by the service's user, or this one by hand."""
    service = system_checks.service_user(_SERVICE_USER)
    if settings is None:
        return system_checks.check_disk(SERVICE_STATE, service)
    user = service if instance_of(config) else system_checks.current_user()
    return system_checks.check_disk(store_folder(settings.store, service_environ(config, os.environ)), user)


def _examine_settings(settings: Settings, config: Path | None, python: tuple[str]) -> Iterator[Finding]:
    yield system_checks.check_privacy(settings.privacy)
    with_secrets = with_secret_files(settings, config)
    yield system_checks.check_secrets(with_secrets)
    user = system_checks.service_user(_SERVICE_USER)
    groups = {group.gr_name for group in grp.getgrall()}
    yield check_packages(python, settings.camera, settings.metrics)
    yield system_checks.check_groups(user, system_checks.groups_of(user), groups, settings.camera)
    if config and instance_of(config):
        yield check_files(with_secrets, config, user)
    yield check_camera(python, with_secrets.camera, settings.detect)
    yield check_detector(python, settings.detect)
    model = deployed_model(settings, service_environ(config, os.environ))
    yield check_model(python, model, settings.preset)
    yield from check_edgetpu(python, model, CoralPaths())
    yield check_broker(python, with_secrets.mqtt, needed=config is not None)
