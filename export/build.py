"""Make a bundle of a run: prepare, quantize, convert, measure the file, prove that its forms agree, write it."""

import hashlib
import platform
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge.errors import UsageError
from edge.evaluation.metrics import Figures, measure, reliability_diagram
from edge.model.bundle import (
    CARD_FILE,
    MODEL_FILE,
    Card,
    Golden,
    Provenance,
    SplitFigures,
    Tolerance,
    open_bundle,
)
from edge.model.classifier import Network
from edge.model.preprocessing import INPUT_SIZE, LABELS, dequantize, encode, softmax
from export.golden import make_golden, write_golden
from export.quantization import legacy_runtime
from export.quantization.calibration import abstain, calibrate
from export.quantization.convert import convert, post_training, quantize_aware
from export.quantization.parity import Form, compare, gate
from export.quantization.prepare import prepare_network
from export.report import bundle_report
from export.studies.event_tuning import USUAL
from export.tflite_graph import read_graph
from train.data.dataset import Splits
from train.models.registry import macs
from train.run import Run
from train.trainer import predict

LABELS_FILE: Final = "labels.txt"
REPORT_FILE: Final = "report.html"
QUANTIZATION_AWARE: Final = "quantization-aware training"
POST_TRAINING: Final = "post-training quantization"

_CALIBRATION_SEED: Final = 1
_ROOM: Final = 20_000_000  # bytes
_LICENCE: Final = "Apache-2.0 for the code; FER2013 and the pretrained start carry terms of their own, see origin"
_INTENDED_USE: Final = (
    "Counting and reacting to visible expressions of visitors who were told. An expression is not an emotion. The "
    "EU AI Act, Article 5(1)(f), forbids inferring emotions at work and in education."
)
_LIMITS: Final = (
    "Trained on frontal, mostly posed or newsworthy faces found on the web at 48x48 pixels, of people nobody asked or "
    "described: who is rare there is judged worse, and how much worse is not known. Faces smaller than 48 pixels, "
    "turned or tilted by more than about 30 degrees, covered, blurred or lit from behind were not measured."
)


@dataclass(frozen=True)
class Quantized:
    """One way's result: the file and its network, and what they say of the measured faces.

    ``logits`` is ``(n, 7)`` int8, ``before`` ``(n, 7)`` those of the Keras network that was converted.
    """

    way: str
    file: bytes
    network: Network
    logits: NDArray[np.int8]
    before: NDArray[np.float32]

    def real(self) -> NDArray[np.float64]:
        """The logits in real units."""
        return dequantize(
            self.logits, self.network.output_quantization.scale, self.network.output_quantization.zero_point
        )

    def figures(self, labels: NDArray[np.int64]) -> Figures:
        """How accurate the int8 form is."""
        return measure(labels, self.logits.argmax(axis=1))


def make_bundle(folder: Path, data: Path, out: Path, coverage: float, margin: float) -> Card:
    """Turn the training run in ``folder`` into a bundle at ``out``; returns its card.

    ``coverage`` is the share of faces that the model is to speak of, ``margin`` the card's crop margin. The
    quantization-aware training is kept beside the run and resumed when interrupted. Raises UsageError when ``out`` is
    in use or the data is not what the run was trained on, ConversionError when the network cannot become int8,
    ParityError when its forms disagree.
    """
    _check_place(out)
    run = Run.load(folder)
    splits = run.faces(folder, data)
    model = run.model(folder)
    network = prepare_network(model)
    floats = predict(network, splits.public.pixels)
    labels = splits.public.labels
    tried = _quantize_both_ways(network, run, splits, folder)
    best = max(tried, key=lambda quantized: quantized.figures(labels).accuracy)
    forms = _forms(floats, best, splits.public.pixels)
    pairs = compare(forms, labels)
    gate(forms, pairs)
    trust = calibrate(best.real(), labels, _CALIBRATION_SEED)
    probabilities = softmax(trust.temperature.calibrated(best.real()))
    golden = make_golden(best.network, margin)
    card = Card(
        schema_version=4,
        name=run.recipe.name,
        sha256=hashlib.sha256(best.file).hexdigest(),
        labels=LABELS,
        input_shape=(1, INPUT_SIZE, INPUT_SIZE, 1),
        input=best.network.input_quantization,
        output=best.network.output_quantization,
        crop_margin=golden.scene.margin,
        temperature=trust.temperature,
        abstention=abstain(probabilities, labels, coverage),
        events=USUAL,
        parameters=int(model.count_params()),
        macs=macs(model),
        ops=dict(sorted(Counter(op.name for op in read_graph(best.file, run.recipe.name).ops).items())),
        figures=_figures(run, best.figures(labels)),
        calibration=trust.judged,
        golden_runtime=best.network.runtime,
        golden_machine=platform.machine(),
        tolerances=_tolerances(forms, best, golden),
        origin=_origin(run, folder.name, measure(labels, floats.argmax(axis=1)), tried, best.way, labels),
        licence=_LICENCE,
        intended_use=_INTENDED_USE,
        limits=_LIMITS,
    )
    _write(
        out,
        best.file,
        card,
        golden,
        bundle_report(card, best.figures(labels), reliability_diagram(labels, probabilities), pairs),
    )
    return card


def _quantize_both_ways(network: Any, run: Run, splits: Splits, folder: Path) -> list[Quantized]:
    aware = quantize_aware(network, run.recipe, splits.training, splits.public, folder / "qat")
    ways = (
        (QUANTIZATION_AWARE, convert(aware), aware),
        (POST_TRAINING, post_training(network, splits.training), network),
    )
    made = []
    for way, file, before in ways:
        network = Network(file, way)
        logits = np.stack([network.logits(face) for face in splits.public.pixels])
        made.append(Quantized(way, file, network, logits, predict(before, splits.public.pixels)))
    return made


def _forms(floats: NDArray[np.float32], best: Quantized, pixels: NDArray[np.uint8]) -> list[Form]:
    """Every form that can be run here. The float network was trained on since, or is not quantized: other weights."""
    forms = [Form("Keras float32", floats, same_weights=False)]
    if best.way == QUANTIZATION_AWARE:
        forms.append(Form("Keras quantization-aware", best.before))
    forms.append(Form(best.network.runtime, best.logits))
    if legacy_runtime.available():
        forms.append(Form(legacy_runtime.NAME, legacy_runtime.outputs(best.file, _encoded(best.network, pixels))))
    return forms


def _encoded(network: Network, pixels: NDArray[np.uint8]) -> NDArray[np.int8]:
    return np.concatenate(
        [encode(face, network.input_quantization.scale, network.input_quantization.zero_point) for face in pixels]
    )


def _tolerances(forms: list[Form], best: Quantized, golden: Golden) -> tuple[Tolerance, ...]:
    """How far the older runtime is from the newer one, on the measured faces and the golden inputs."""
    if forms[-1].name == best.network.runtime:
        return ()
    there = legacy_runtime.outputs(best.file, _encoded(best.network, golden.faces))
    steps = [_largest_step(forms[-1].logits, best.logits), _largest_step(there, golden.outputs)]
    same = forms[-1].logits.argmax(axis=1) == best.logits.argmax(axis=1)
    return (Tolerance(forms[-1].name, max(steps), round(float(same.mean()), 5)),)


def _largest_step(first: NDArray[Any], second: NDArray[np.int8]) -> int:
    return int(np.abs(first.astype(np.int64) - second).max())


def _origin(
    run: Run, folder: str, floats: Figures, tried: list[Quantized], way: str, labels: NDArray[np.int64]
) -> Provenance:
    return Provenance(
        train_command=run.command,
        export_command=f"fer-export bundle runs/{folder} --data fer2013.csv --out {run.recipe.name}",
        revision=run.revision,
        seed=run.recipe.seed,
        init=run.init,
        teachers=run.teachers,
        training_data=_training_data(run),
        training_sha256=run.training_sha256,
        public_sha256=run.public_sha256,
        float_figures=_figures(run, floats),
        quantization=way,
        quantization_figures={quantized.way: _figures(run, quantized.figures(labels)) for quantized in tried},
        chosen=f"epoch and quantization, both by {run.measured}",
    )


def _training_data(run: Run) -> str:
    told = f"FER2013 Training, without {run.excluded} pictures that other splits hold too"
    if run.skipped:
        told += f" and without {run.skipped} bad rows"
    return f"{told}; votes: {run.votes}" if run.votes else told


def _figures(run: Run, figures: Figures) -> SplitFigures:
    return SplitFigures(run.measured, figures.n, round(figures.accuracy, 5), round(figures.macro_f1, 5))


def _check_place(out: Path) -> None:
    """Refuse, before minutes of work, a place that a bundle cannot be written to."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} exists and is not an empty folder. Give another --out, or remove it.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out.parent):
            free = shutil.disk_usage(out.parent).free
    except OSError as error:
        raise UsageError(f"{out}: cannot be written: {error.strerror}") from error
    if free < _ROOM:
        raise UsageError(f"{out}: only {free / 1e6:.1f} MB are free there; a bundle is made in up to {_ROOM / 1e6:.0f}")


def _write(out: Path, file: bytes, card: Card, golden: Golden, report: str) -> None:
    """Write all files into a temporary folder beside ``out``, open it as a device would, then rename it."""
    try:
        with tempfile.TemporaryDirectory(dir=out.parent) as name:
            folder = Path(name) / out.name
            folder.mkdir()
            (folder / MODEL_FILE).write_bytes(file)
            (folder / CARD_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(card)) + b"\n")
            (folder / LABELS_FILE).write_text("".join(f"{label}\n" for label in card.labels))
            (folder / REPORT_FILE).write_text(report)
            write_golden(folder, golden)
            open_bundle(folder)
            if out.exists():
                out.rmdir()
            shutil.move(folder, out)
    except OSError as error:
        raise UsageError(
            f"{out}: cannot be written: {error.strerror or error}. Nothing is left half-written."
        ) from error
