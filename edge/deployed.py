"""From settings to the model that runs: opened, checked against its goldens, and with something to fall back to."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edge.bundle import Bundle, find_bundle, open_bundle
from edge.classify import Classifier
from edge.errors import BundleError, VerificationError
from edge.messages import Verification
from edge.models import Models, deployed_folder, state_folder
from edge.service import Service
from edge.settings import Settings
from edge.verify import verify_golden

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
    return open_classifier(deployed_folder(settings, environ), settings)


def open_classifier(folder: Path, settings: Settings) -> tuple[Classifier, Bundle]:
    """Open a bundle and the classifier of it as the settings want it. Raises as they do."""
    bundle = open_bundle(folder)
    return Classifier(bundle, settings.model.threads), bundle


def deploy(settings: Settings, environ: Mapping[str, str], service: Service) -> Deployed:
    """What is to run, checked. A service falls back when an installed model fails, or has just ended it silently.

    Raises BundleError or VerificationError when nothing is left to run.
    """
    if settings.model.bundle:
        return _checked(find_bundle(settings.model.bundle), settings)
    models = Models(state_folder(settings.store, environ))
    number, verdict = models.choice.number, models.verdict
    if service.managed and number and not (verdict.lasted or verdict.sentence):
        if service.crashed_with(number):
            models.refuse(_CRASHED)
        else:
            service.trying(number)
            service.lasting = models.lasted
    return _first_that_works(models, settings, falls_back=service.managed)


def _first_that_works(models: Models, settings: Settings, *, falls_back: bool) -> Deployed:
    chosen = models.choice.current
    *others, last = models.candidates()
    for candidate in others:
        try:
            deployed = _checked(candidate.folder, settings)
        except (BundleError, VerificationError) as error:
            if not falls_back:
                raise
            _log.warning("%s is not used: %s", candidate.called, error)
            if candidate.name == chosen:
                models.refuse(str(error))
        else:
            return _said(deployed, models, chosen)
    return _said(_checked(last.folder, settings), models, chosen)


def _said(deployed: Deployed, models: Models, chosen: str) -> Deployed:
    if not (sentence := models.verdict.sentence):
        return deployed
    refused = (
        f"the model {chosen} is not used, {deployed.verification.model} ({deployed.verification.sha256[:12]}) is: "
        f"{sentence}. Install another one, or: fer-edge model rollback"
    )
    return Deployed(deployed.classifier, deployed.verification, refused)


def _checked(folder: Path, settings: Settings) -> Deployed:
    classifier, bundle = open_classifier(folder, settings)
    verification = verify_golden(classifier, bundle.golden)
    if not verification.ok:
        raise VerificationError(f"{folder}: {verification.sentence}")
    return Deployed(classifier, verification)
