"""A trained network in the device's own pipeline: detector, crop, tracks and events.

``fer-train classify`` and ``fer-train watch`` hand it to the code of ``fer-edge classify`` and ``fer-edge run``.
"""

from pathlib import Path

import numpy as np

from edge.model.classifier import CardTerms
from edge.model.loader import DeployedModel
from edge.model.preprocessing import expression, softmax
from edge.records import Expression, Gray, Logits, Verification
from edge.system.clock import now
from train.evaluation.predictors import check_views, open_predictor

_LEAST_PROBABILITY = 1e-9


class PredictorClassifier:
    """A run or bundle as an edge.model.classifier.FaceClassifier; each face is averaged over its test-time ``views``.

    Raises what train.evaluation.predictors.open_predictor and check_views raise.
    """

    accelerator = "cpu"
    degraded = None

    def __init__(self, path: Path, views: int = 1) -> None:
        check_views(views)
        self._predictor, self._views = open_predictor(path), views
        self.card: CardTerms = self._predictor.card
        averaged = f", mean of {views} views" if views > 1 else ""
        self.runtime = f"{self._predictor.name}{averaged}"

    def poll_accelerator(self) -> None:
        """There is none."""

    def wait_for_accelerator(self) -> None:
        """There is none."""

    def read(self, face: Gray) -> Logits:
        """The logarithms of the mean probabilities of a face, ``(48, 48)`` uint8, in the order of the labels."""
        [probabilities] = self._predictor.probabilities(face[np.newaxis], self._views)
        return tuple(np.log(np.maximum(probabilities, _LEAST_PROBABILITY)).tolist())

    def classify(self, face: Gray) -> Expression:
        """The expression of a face, ``(48, 48)`` uint8, with the probability of every label."""
        return expression(softmax(self.read(face)), self.card.labels)


def as_deployed(classifier: PredictorClassifier) -> DeployedModel:
    """The classifier as the frame loop takes it; nothing is verified, since it has no golden outputs."""
    verification = Verification(
        time=now().isoformat(timespec="milliseconds"),
        ok=True,
        sentence="a network that fer-train runs has no golden outputs here",
        model=classifier.card.name,
        sha256=classifier.card.sha256,
        labels=classifier.card.labels,
        runtime=classifier.runtime,
        accelerator=classifier.accelerator,
        n=0,
        largest_lsb=0,
        allowed_lsb=0,
        top1=1.0,
        luma_levels=0,
        crop_levels=0,
    )
    return DeployedModel(classifier, verification)
