"""``fer-edge model``: which models are on this device, and which one is in use."""

import json
import os
import sys
from argparse import Namespace
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from edge.errors import BundleError, VerificationError
from edge.model.bundle import DEFAULT, Bundle, bundled, open_bundle
from edge.model.classifier import Classifier
from edge.model.registry import KEPT, ModelRegistry, state_folder
from edge.model.verification import verify_golden
from edge.settings import Settings, load_settings
from edge.system.installer import UNIT, UNIT_FILE, run_command
from edge.system.state import device_config


@dataclass(frozen=True)
class Listed:
    """One line of ``fer-edge model list``; ``accuracy`` is the card's, ``trouble`` why it cannot be used."""

    name: str
    role: str
    sha256: str
    accuracy: float | None
    trouble: str


def install(arguments: Namespace) -> int:
    """Carry out ``fer-edge model install``."""
    settings, models = _device(arguments)
    before = models.installed()
    name = models.install(arguments.bundle, _check(settings))
    for gone in sorted({*before} - {*models.installed()}):
        print(f"removed: {gone} ({KEPT} models are kept, those last in use)")
    return _switched(arguments, settings, name)


def use(arguments: Namespace) -> int:
    """Carry out ``fer-edge model use``."""
    settings, models = _device(arguments)
    models.use(arguments.name, _check(settings))
    return _switched(arguments, settings, arguments.name)


def rollback(arguments: Namespace) -> int:
    """Carry out ``fer-edge model rollback``."""
    settings, models = _device(arguments)
    return _switched(arguments, settings, models.rollback(_check(settings)))


def listing(arguments: Namespace) -> int:
    """Carry out ``fer-edge model list``."""
    settings, models = _device(arguments)
    listed = list_models(models)
    if arguments.json:
        print(json.dumps([asdict(one) for one in listed]))
    else:
        for one in listed:
            accuracy = "" if one.accuracy is None else f"{one.accuracy:.1%}"
            print(f"{one.role:9} {one.name:40} {one.sha256[:12]:12} {accuracy:>6}  {one.trouble}".rstrip())
    _warn_of_settings(settings)
    return 0


def list_models(models: ModelRegistry) -> list[Listed]:
    """The program's models, its own first, and the installed ones, with their part in the choice."""
    choice, refused = models.choice, models.verdict.sentence
    roles = {choice.previous: "previous", choice.current: "refused" if refused else "in use"}
    if refused:
        roles[choice.previous] = "in use"
    listed = []
    for name in ["", *(other for other in bundled() if other != DEFAULT), *models.installed()]:
        role = roles.get(name, "") if name or choice.number else "in use"
        try:
            card = open_bundle(models.folder_of(name)).card
        except BundleError as error:
            listed.append(Listed(name, role, "", None, str(error)))
        else:
            trouble = refused if role == "refused" else ""
            listed.append(Listed(name or DEFAULT, role, card.sha256, card.figures.accuracy, trouble))
    return listed


def _device(arguments: Namespace) -> tuple[Settings, ModelRegistry]:
    settings = load_settings(device_config(arguments.config))
    models = ModelRegistry(state_folder(settings.store, os.environ))
    models.require_readable()
    return settings, models


def _check(settings: Settings) -> Callable[[Bundle], None]:
    """Run the golden inputs through a bundle's network on this device."""

    def check(bundle: Bundle) -> None:
        found = verify_golden(Classifier(bundle, settings.model.threads or 1), bundle.golden)
        if not found.ok:
            raise VerificationError(f"{found.sentence}. It was not put in use.")

    return check


def _switched(arguments: Namespace, settings: Settings, name: str) -> int:
    print(f"in use: {name}")
    _warn_of_settings(settings)
    if not arguments.no_restart and Path("/run/systemd/system").is_dir() and (Path("/") / UNIT_FILE).exists():
        run_command(("systemctl", "try-restart", "--no-block", UNIT))
        print("the service starts again with it; see: fer-edge service status")
    return 0


def _warn_of_settings(settings: Settings) -> None:
    if settings.model.bundle:
        print(
            f'fer-edge: the settings say [model] bundle = "{settings.model.bundle}", and that is what runs. Remove the '
            "line to run what is in use here.",
            file=sys.stderr,
        )
