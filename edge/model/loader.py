"""From settings to the model that runs: opened, checked against its goldens, and with something to fall back to."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edge.errors import BundleError, VerificationError
from edge.model.bundle import Bundle, find_bundle, open_bundle
from edge.model.classifier import Classifier
from edge.model.edgetpu import EdgeTpu, TrialMark
from edge.model.registry import ModelRegistry, deployed_folder, state_folder
from edge.model.tuning import load_tuning
from edge.model.verification import verify_golden
from edge.mqtt.messages import Verification
from edge.settings import Settings
from edge.system.state import store_folder
from edge.system.systemd import Service

_log = logging.getLogger(__name__)

_CRASHED = "the service ended without a word in its first minute with it"


@dataclass(frozen=True)
class Deployed:
    """A classifier that gives its golden outputs here; ``refused`` says why the chosen model does not run, if so."""

    classifier: Classifier
    verification: Verification
    refused: str = ""


def open_deployed(settings: Settings, environ: Mapping[str, str]) -> tuple[Classifier, Bundle]:
    """The classifier that a run with these settings uses first, and its bundle; for commands."""
    return open_classifier(deployed_folder(settings, environ), settings, environ)


def open_classifier(folder: Path, settings: Settings, environ: Mapping[str, str]) -> tuple[Classifier, Bundle]:
    """Open a bundle and its classifier, on what the settings, or else what was tuned, choose. Raises as they do."""
    model, bundle = settings.model, open_bundle(folder)
    tuned = load_tuning(store_folder(settings.store, environ), bundle)
    threads = model.threads or (tuned.chosen.threads if tuned else 1)
    wanted, avoided = model.accelerator == "edgetpu", model.accelerator == "cpu" or bundle.edgetpu_model is None
    if model.accelerator == "auto" and tuned and tuned.was_measured("edgetpu"):
        # What was measured to be slower is left alone; what was measured to be faster must not go missing silently.
        wanted = tuned.chosen.accelerator == "edgetpu"
        avoided = not wanted
    if avoided and not wanted:
        return Classifier(bundle, threads), bundle
    mark = TrialMark(environ.get("RUNTIME_DIRECTORY"))
    return Classifier(bundle, threads, EdgeTpu(bundle, model, mark, wanted=wanted)), bundle


def deploy(settings: Settings, environ: Mapping[str, str], service: Service) -> Deployed:
    """What is to run, checked. A service falls back when an installed model fails, or has just ended it silently.

    Raises BundleError or VerificationError when nothing is left to run.
    """
    if settings.model.bundle:
        return _checked(find_bundle(settings.model.bundle), settings, environ)
    models = ModelRegistry(state_folder(settings.store, environ))
    number, verdict = models.choice.number, models.verdict
    if service.managed and number and not (verdict.lasted or verdict.sentence):
        if service.crashed_with(number):
            models.refuse(_CRASHED)
        else:
            service.trying(number)
            service.once_lasted(models.lasted)
    return _first_that_works(models, settings, environ, falls_back=service.managed)


def _first_that_works(
    models: ModelRegistry, settings: Settings, environ: Mapping[str, str], *, falls_back: bool
) -> Deployed:
    chosen = models.choice.current
    *others, last = models.candidates()
    for candidate in others:
        try:
            deployed = _checked(candidate.folder, settings, environ)
        except (BundleError, VerificationError) as error:
            if not falls_back:
                raise
            _log.warning("%s is not used: %s", candidate.called, error)
            if candidate.name == chosen:
                models.refuse(str(error))
        else:
            return _said(deployed, models, chosen)
    return _said(_checked(last.folder, settings, environ), models, chosen)


def _said(deployed: Deployed, models: ModelRegistry, chosen: str) -> Deployed:
    if not (sentence := models.verdict.sentence):
        return deployed
    refused = (
        f"the model {chosen} is not used, {deployed.verification.model} ({deployed.verification.sha256[:12]}) is: "
        f"{sentence}. Install another one, or: fer-edge model rollback"
    )
    return Deployed(deployed.classifier, deployed.verification, refused)


def _checked(folder: Path, settings: Settings, environ: Mapping[str, str]) -> Deployed:
    classifier, bundle = open_classifier(folder, settings, environ)
    verification = verify_golden(classifier, bundle.golden)
    if not verification.ok:
        raise VerificationError(f"{folder}: {verification.sentence}")
    return Deployed(classifier, verification)
