"""``fer-edge bench --autotune``: measure what classifies fastest on this device, and keep the choice."""

import json
import os
from argparse import Namespace

import msgspec

from edge.model.bundle import find_bundle, open_bundle
from edge.model.tuning import SAMPLES, Tuning, save_tuning, tune
from edge.settings import ModelSettings, load_settings
from edge.system.instance import service_environ
from edge.system.state import store_folder


def autotune(arguments: Namespace) -> int:
    """Carry out ``fer-edge bench --autotune``."""
    settings = load_settings(arguments.config)
    folder = store_folder(settings.store, service_environ(arguments.config, os.environ))
    tuning = tune(open_bundle(find_bundle(settings.model.bundle)), settings.model)
    file = save_tuning(folder, tuning)
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
