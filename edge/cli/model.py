"""``fer-edge model``: list, install, choose and roll back the models of this device."""

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
from edge.model.registry import MAX_INSTALLED, ModelRegistry, state_folder
from edge.model.verification import verify_golden
from edge.settings import Settings, load_settings, require_expressions
from edge.system.installer import run_command
from edge.system.instance import FIRST, instance_of, service_environ
from edge.system.owner_rights import rights_of_owner
from edge.system.state import device_config


@dataclass(frozen=True)
class ModelRow:
    """One line of ``fer-edge model list``.

    ``role`` is ``in use``, ``previous``, ``refused`` or empty; ``accuracy`` is the card's, ``trouble`` why the model
    cannot be used.
    """

    name: str
    role: str
    sha256: str
    accuracy: float | None
    trouble: str


def install_model(arguments: Namespace) -> int:
    """Carry out ``fer-edge model install``."""
    settings, registry = _open_registry(arguments)
    before = registry.installed()
    name = registry.install(arguments.bundle, _golden_check(settings))
    for removed in sorted({*before} - {*registry.installed()}):
        print(f"removed: {removed} (the {MAX_INSTALLED} models last in use are kept)")
    return _report_switch(arguments, settings, name)


def use_model(arguments: Namespace) -> int:
    """Carry out ``fer-edge model use``."""
    settings, registry = _open_registry(arguments)
    registry.use(arguments.name, _golden_check(settings))
    return _report_switch(arguments, settings, arguments.name)


def roll_back_model(arguments: Namespace) -> int:
    """Carry out ``fer-edge model rollback``."""
    settings, registry = _open_registry(arguments)
    return _report_switch(arguments, settings, registry.rollback(_golden_check(settings)))


def list_models(arguments: Namespace) -> int:
    """Carry out ``fer-edge model list``."""
    settings, registry = _open_registry(arguments)
    with rights_of_owner(registry.folder.parent):
        rows = model_rows(registry)
    if arguments.json:
        print(json.dumps([asdict(row) for row in rows]))
    else:
        for row in rows:
            accuracy = "" if row.accuracy is None else f"{row.accuracy:.1%}"
            print(f"{row.role:9} {row.name:40} {row.sha256[:12]:12} {accuracy:>6}  {row.trouble}".rstrip())
    _warn_of_settings(settings)
    return 0


def model_rows(registry: ModelRegistry) -> list[ModelRow]:
    """The bundled models, the default one first, and the installed ones, each with its role."""
    choice, refused = registry.choice, registry.verdict.sentence
    roles = {choice.previous: "previous", choice.current: "refused" if refused else "in use"}
    if refused:
        roles[choice.previous] = "in use"
    rows = []
    for name in ["", *(other for other in bundled() if other != DEFAULT), *registry.installed()]:
        role = roles.get(name, "") if name or choice.number else "in use"
        try:
            card = open_bundle(registry.folder_of(name)).card
        except BundleError as error:
            rows.append(ModelRow(name, role, "", None, str(error)))
        else:
            trouble = refused if role == "refused" else ""
            rows.append(ModelRow(name or DEFAULT, role, card.sha256, card.figures.accuracy, trouble))
    return rows


def _open_registry(arguments: Namespace) -> tuple[Settings, ModelRegistry]:
    config = device_config(arguments.config)
    settings = load_settings(config)
    registry = ModelRegistry(state_folder(settings.store, service_environ(config, os.environ)))
    registry.require_readable()
    return settings, registry


def _golden_check(settings: Settings) -> Callable[[Bundle], None]:
    """A check that a bundle has the presets' expressions, and gives its golden outputs on this device.

    It raises SettingsError, or VerificationError.
    """

    def check(bundle: Bundle) -> None:
        require_expressions(settings.preset, bundle.card.labels, bundle.card.name)
        result = verify_golden(Classifier(bundle, settings.model.threads or 1), bundle.golden)
        if not result.ok:
            raise VerificationError(f"{result.sentence}. It was not put in use.")

    return check


def _report_switch(arguments: Namespace, settings: Settings, name: str) -> int:
    """Print which model is in use now, and restart the service unless that is not wanted."""
    print(f"in use: {name}")
    _warn_of_settings(settings)
    instance = instance_of(arguments.config) or FIRST
    installed = Path("/run/systemd/system").is_dir() and (Path("/") / instance.unit_file).exists()
    if installed and not arguments.no_restart:
        run_command(("systemctl", "try-restart", "--no-block", instance.unit))
        print(f"the service restarts with it; see: fer-edge service status{instance.option}")
    return 0


def _warn_of_settings(settings: Settings) -> None:
    if settings.model.bundle:
        print(
            f'fer-edge: the settings say [model] bundle = "{settings.model.bundle}", and that is what runs. Remove the '
            "line to run the model that is in use here.",
            file=sys.stderr,
        )
