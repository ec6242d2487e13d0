"""Open the model that a run uses: find its bundle, check its golden outputs, fall back to another when it fails."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from edge.errors import BundleError, VerificationError
from edge.model.bundle import DEFAULT, Bundle, find_bundle, open_bundle
from edge.model.classifier import Classifier, FaceClassifier
from edge.model.edgetpu import CrashMarker, EdgeTpu
from edge.model.registry import ModelRegistry, folder_in_use, state_folder
from edge.model.tuning import load_tuning
from edge.model.verification import verify_golden
from edge.records import Verification
from edge.settings import Settings
from edge.system.owner_rights import become_owner, user_to_become
from edge.system.state import store_folder
from edge.system.systemd import Service

_log = logging.getLogger(__name__)

_CRASHED = "the service exited without an error message in its first minute with it"


@dataclass(frozen=True)
class DeployedModel:
    """A classifier that gives its golden outputs here; ``refused`` says why the chosen model does not run, if so."""

    classifier: FaceClassifier
    verification: Verification
    refused: str = ""


def become_network_owner(folder: Path) -> None:
    """Let root be the owner of a bundle's folder for good, before its network runs; other users stay who they are."""
    if not user_to_become(folder):
        return
    own = open_bundle(find_bundle(DEFAULT))  # files of the program that only root may read can be imported now
    verify_golden(Classifier(own), own.golden)
    become_owner(folder)


def open_deployed(settings: Settings, environ: Mapping[str, str]) -> tuple[Classifier, Bundle]:
    """The classifier that a run with these settings tries first, and its bundle. For commands.

    Root becomes the user whose model it is, for good. Raises BundleError, and UsageError when this user may not read
    which model is in use.
    """
    folder = folder_in_use(settings, environ)
    become_network_owner(folder)
    return open_classifier(folder, settings, environ)


def open_classifier(folder: Path, settings: Settings, environ: Mapping[str, str]) -> tuple[Classifier, Bundle]:
    """Open a bundle and its classifier, with the accelerator and threads of the settings, or else of the tuning.

    Raises BundleError and RuntimeMissingError.
    """
    model, bundle = settings.model, open_bundle(folder)
    tuning = load_tuning(store_folder(settings.store, environ), bundle)
    threads = model.threads or (tuning.chosen.threads if tuning else 1)
    wanted, avoided = model.accelerator == "edgetpu", model.accelerator == "cpu" or bundle.edgetpu_model is None
    if model.accelerator == "auto" and tuning and tuning.was_measured("edgetpu"):
        # An Edge TPU that was measured as slower is not used. One that was faster must not be missing silently.
        wanted = tuning.chosen.accelerator == "edgetpu"
        avoided = not wanted
    if avoided and not wanted:
        return Classifier(bundle, threads), bundle
    marker = CrashMarker(environ.get("RUNTIME_DIRECTORY"))
    return Classifier(bundle, threads, EdgeTpu(bundle, model.edgetpu_library, marker, wanted=wanted)), bundle


def open_deployed_model(settings: Settings, environ: Mapping[str, str], service: Service) -> DeployedModel:
    """The model that a run uses, with its golden outputs checked.

    A service falls back to another model when an installed one fails, or has just crashed it. Raises BundleError or
    VerificationError when no model is left.
    """
    if settings.model.bundle:
        return _open_checked(find_bundle(settings.model.bundle), settings, environ)
    registry = ModelRegistry(state_folder(settings.store, environ))
    number, verdict = registry.choice.number, registry.verdict
    if service.managed and number and not (verdict.lasted or verdict.sentence):
        if service.crashed_with(number):
            registry.refuse_choice(_CRASHED)
        else:
            service.trying(number)
            service.once_lasted(registry.confirm_choice)
    return _open_first_working(registry, settings, environ, falls_back=service.managed)


def _open_first_working(
    registry: ModelRegistry, settings: Settings, environ: Mapping[str, str], *, falls_back: bool
) -> DeployedModel:
    chosen = registry.choice.current
    *others, last = registry.candidates()
    for candidate in others:
        try:
            deployed = _open_checked(candidate.folder, settings, environ)
        except (BundleError, VerificationError) as error:
            if not falls_back:
                raise
            _log.warning("%s is not used: %s", candidate.display_name, error)
            if candidate.name == chosen:
                registry.refuse_choice(str(error))
        else:
            return _with_refusal(deployed, registry, chosen)
    return _with_refusal(_open_checked(last.folder, settings, environ), registry, chosen)


def _with_refusal(deployed: DeployedModel, registry: ModelRegistry, chosen: str) -> DeployedModel:
    """Add why the chosen model does not run, if that is so."""
    if not (sentence := registry.verdict.sentence):
        return deployed
    used = f"{deployed.verification.model} ({deployed.verification.sha256[:12]})"
    refused = (
        f"{used} runs in place of the chosen model {chosen}: {sentence}. Install another one, or: fer-edge model "
        "rollback"
    )
    return replace(deployed, refused=refused)


def _open_checked(folder: Path, settings: Settings, environ: Mapping[str, str]) -> DeployedModel:
    classifier, bundle = open_classifier(folder, settings, environ)
    verification = verify_golden(classifier, bundle.golden)
    if not verification.ok:
        raise VerificationError(f"{folder}: {verification.sentence}")
    return DeployedModel(classifier, verification)
