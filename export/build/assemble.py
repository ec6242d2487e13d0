"""Put a bundle together: check that all forms of its network agree, make golden outputs, card and report, write it."""

import hashlib
import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge.evaluation.fer2013 import LabelledFaces
from edge.evaluation.metrics import reliability_diagram
from edge.events.episodes import DEFAULT_TUNING
from edge.model.bundle import Card, Golden, Tolerance
from edge.model.origin import Provenance
from edge.model.preprocessing import INPUT_SIZE, softmax
from export.build.measured import QuantizedNetwork, measure_logits, split_figures, tolerances
from export.build.writing import write_bundle
from export.golden import make_golden
from export.quantization.calibration import calibrate, choose_threshold
from export.quantization.parity import FormPair, NetworkForm, check_parity, compare_forms
from export.report import bundle_report
from export.tflite_graph import read_graph

_INTENDED_USE: Final = (
    "Counting and reacting to visible expressions of visitors who were told. An expression is not an emotion. The "
    "EU AI Act, Article 5(1)(f), forbids inferring emotions at work and in education."
)
_CALIBRATION_SEED: Final = 1


@dataclass(frozen=True)
class BundleChoices:
    """What the user chooses for a bundle.

    ``out`` is its folder. ``coverage`` is the share of faces (0 to 1) whose confidence is to reach the card's
    threshold; ``margin`` is the card's crop margin.
    """

    out: Path
    coverage: float
    margin: float


@dataclass(frozen=True)
class NetworkFacts:
    """What a card states of a network beside its measurements."""

    name: str
    parameters: int
    macs: int
    origin: Provenance
    licence: str
    limits: str


@dataclass(frozen=True)
class MadeBundle:
    """The card of a bundle that was written, and how the forms of its network compared."""

    card: Card
    pairs: list[FormPair]


def assemble_bundle(
    choices: BundleChoices,
    facts: NetworkFacts,
    best: QuantizedNetwork,
    forms: Sequence[NetworkForm],
    measured: LabelledFaces,
) -> MadeBundle:
    """Write the bundle of a network that was measured in ``forms``, the last ones int8.

    Raises ParityError when its forms disagree, UsageError when it cannot be written.
    """
    labels = measured.labels
    pairs = compare_forms(list(forms), labels)
    check_parity(list(forms), pairs)
    golden = make_golden(best.network, choices.margin, measured.names)
    card = _card(facts, best, measured, golden, tolerances(forms, best, golden), choices.coverage)
    diagram = reliability_diagram(labels, softmax(card.temperature.calibrated(best.real_logits())))
    report = bundle_report(card, measure_logits(best.logits, measured), diagram, pairs)
    write_bundle(choices.out, best.file, card, golden, report)
    return MadeBundle(card, pairs)


def _card(
    facts: NetworkFacts,
    best: QuantizedNetwork,
    measured: LabelledFaces,
    golden: Golden,
    differing: tuple[Tolerance, ...],
    coverage: float,
) -> Card:
    """The bundle's card. The temperature and the threshold are fitted to the logits for the measured faces."""
    logits = best.real_logits()
    fit = calibrate(logits, measured.labels, _CALIBRATION_SEED)
    ops = Counter(op.name for op in read_graph(best.file, facts.name).ops)
    return Card(
        schema_version=5,
        name=facts.name,
        sha256=hashlib.sha256(best.file).hexdigest(),
        labels=golden.labels,
        input_shape=(1, INPUT_SIZE, INPUT_SIZE, 1),
        input=best.network.input_quantization,
        output=best.network.output_quantization,
        crop_margin=golden.scene.margin,
        temperature=fit.temperature,
        abstention=choose_threshold(softmax(fit.temperature.calibrated(logits)), measured.labels, coverage),
        events=DEFAULT_TUNING,
        parameters=facts.parameters,
        macs=facts.macs,
        ops=dict(sorted(ops.items())),
        figures=split_figures(best.logits, measured),
        calibration=fit.assessed,
        golden_runtime=best.network.runtime,
        golden_machine=platform.machine(),
        tolerances=differing,
        origin=facts.origin,
        licence=facts.licence,
        intended_use=_INTENDED_USE,
        limits=facts.limits,
    )
