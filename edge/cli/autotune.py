"""``fer-edge bench --autotune``: measure what classifies fastest on this device, and keep the choice."""

import json
import os
from argparse import Namespace

import msgspec

from edge.errors import UsageError
from edge.model.bundle import open_bundle
from edge.model.loader import become_network_owner
from edge.model.registry import folder_in_use
from edge.model.tuning import SAMPLES, Tuning, save_tuning, tune
from edge.settings import ModelSettings, load_settings
from edge.system.instance import service_environ
from edge.system.state import device_config, store_folder


def autotune(arguments: Namespace) -> int:
    """Carry out ``fer-edge bench --autotune``: of the model that ``run`` uses, since the choice holds for it alone."""
    for option in ("bundle", "truth", "picture"):
        if getattr(arguments, option):
            raise UsageError(f"--autotune measures the model that `fer-edge run` uses: leave out --{option}")
    config = device_config(arguments.config)
    settings = load_settings(config)
    environ = service_environ(config, os.environ)
    folder = folder_in_use(settings, environ)
    become_network_owner(folder)
    tuning = tune(open_bundle(folder), settings.model)
    file = save_tuning(store_folder(settings.store, environ), tuning)
    if arguments.json:
        print(json.dumps(msgspec.to_builtins(tuning) | {"file": str(file)}))
    else:
        print(f"{format_tuning(tuning)}\nkept in {file}; {describe_use(settings.model)}")
    return 0


def format_tuning(tuning: Tuning) -> str:
    """The measurements as a table for a terminal."""
    lines = [f"{tuning.holds_for.runtime}; milliseconds a face, median of {SAMPLES}, measured in turn"]
    for speed in tuning.measured:
        plural = "s" if speed.threads > 1 else ""
        name = "Edge TPU" if speed.accelerator == "edgetpu" else f"CPU, {speed.threads} thread{plural}"
        lines.append(f"  {name:16}{speed.ms:>9.3f}{'   <- chosen' if speed == tuning.chosen else ''}")
    if not tuning.was_measured("edgetpu"):
        lines.append(f"  {'Edge TPU':16}{'-':>9}   {tuning.edgetpu}")
    return "\n".join(lines)


def describe_use(settings: ModelSettings) -> str:
    """Whether the next start uses the kept choice, or which settings override it."""
    overriding = []
    if settings.threads:
        overriding.append(f"model.threads = {settings.threads}")
    if settings.accelerator != "auto":
        overriding.append(f'model.accelerator = "{settings.accelerator}"')
    return f"but the settings say {' and '.join(overriding)}" if overriding else "used from the next start on"
