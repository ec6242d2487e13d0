"""``fer-edge model``: list, show, install, choose and roll back the models of this device."""

import json
import os
import sys
from argparse import Namespace
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import msgspec

from edge.errors import BundleError, VerificationError
from edge.model.bundle import DEFAULT, Bundle, Card, bundled, find_bundle, open_bundle
from edge.model.classifier import Classifier
from edge.model.registry import MAX_INSTALLED, ModelRegistry, state_folder
from edge.model.verification import verify_golden
from edge.settings import Settings, load_settings, require_expressions
from edge.system.installer import run_command
from edge.system.instance import FIRST, instance_of, service_environ
from edge.system.state import device_config

_UNKNOWN: Final = "unknown"


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
    rows = model_rows(registry)
    if arguments.json:
        print(json.dumps([asdict(row) for row in rows]))
    else:
        for row in rows:
            accuracy = "" if row.accuracy is None else f"{row.accuracy:.1%}"
            print(f"{row.role:9} {row.name:40} {row.sha256[:12]:12} {accuracy:>6}  {row.trouble}".rstrip())
    _warn_of_settings(settings)
    return 0


def show_model(arguments: Namespace) -> int:
    """Carry out ``fer-edge model show``."""
    _, registry = _open_registry(arguments)
    card = open_bundle(_folder_of(registry, arguments.name)).card
    print(msgspec.json.format(msgspec.json.encode(card)).decode() if arguments.json else describe_card(card))
    return 0


def _folder_of(registry: ModelRegistry, name: str) -> Path:
    """The folder of the model in use if ``name`` is empty, of one of this device, or of a bundle by its path."""
    if not name:
        return registry.candidates()[0].folder
    return registry.folder_of(name) if name in registry.installed() else find_bundle(name)


def describe_card(card: Card) -> str:
    """What a card says of its model in words: accuracy, limits, and everything that it was made of."""
    figures, origin = card.figures, card.origin
    lines = [
        f"{card.name}, sha256 {card.sha256}",
        f"accuracy  {figures.accuracy:.2%} of {figures.n:,} faces of {figures.split}",
        f"labels    {', '.join(card.labels)}",
        f"made by   {origin.train_command}",
        f"          {origin.export_command}",
        f"licence   {card.licence}",
        f"limits    {card.limits}",
    ]
    for source in origin.sources:
        lines += [
            "",
            f"{source.role:9} {source.name}",
            f"  source  {source.source or _UNKNOWN}",
            f"  licence {source.licence or _UNKNOWN}",
            f"  sha256  {source.sha256 or _UNKNOWN}",
        ]
    if not origin.sources:
        lines.append(f"sources   a card of version {card.schema_version} has no list of them; --json prints its lines")
    return "\n".join(lines)


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
