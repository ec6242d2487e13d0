"""Make a bundle of a run: quantize its network, measure it, check that all its forms agree, write the files."""

import hashlib
import platform
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge.errors import UsageError
from edge.evaluation.fer2013 import LabelledFaces
from edge.evaluation.metrics import Figures, measure, reliability_diagram
from edge.events.episodes import DEFAULT_TUNING
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
from export.quantization.calibration import calibrate, choose_threshold
from export.quantization.convert import ConversionError, convert, quantize_post_training, train_quantized
from export.quantization.parity import NetworkForm, check_parity, compare_forms
from export.quantization.prepare import prepare_network
from export.report import bundle_report
from export.tflite_graph import read_graph
from train.data.dataset import Splits
from train.models.registry import macs
from train.progress import print_line
from train.run import Run
from train.trainer import predict_logits

LABELS_FILE: Final = "labels.txt"
REPORT_FILE: Final = "report.html"
QUANTIZATION_AWARE: Final = "quantization-aware training"
POST_TRAINING: Final = "post-training quantization"

_CALIBRATION_SEED: Final = 1
_REQUIRED_BYTES: Final = 60_000_000  # a ResNet50 and its report, twice
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
class QuantizedNetwork:
    """The result of one quantization method: an int8 file, and its logits for the ``n`` measured faces.

    ``logits`` is ``(n, 7)`` int8; ``keras_logits`` is ``(n, 7)`` float32, of the Keras network that was converted.
    """

    method: str
    file: bytes
    network: Network
    logits: NDArray[np.int8]
    keras_logits: NDArray[np.float32]

    def real_logits(self) -> NDArray[np.float64]:
        """The dequantized logits, ``(n, 7)``."""
        return dequantize(
            self.logits, self.network.output_quantization.scale, self.network.output_quantization.zero_point
        )


@dataclass(frozen=True)
class _Export:
    """A run's network in float32 and in int8, and the split that they are measured on.

    ``float_logits`` is ``(n, 7)`` float32; ``candidates`` has one network per quantization method.
    """

    run: Run
    parameters: int
    macs: int
    measured: LabelledFaces
    float_logits: NDArray[np.float32]
    candidates: tuple[QuantizedNetwork, ...]

    @property
    def best(self) -> QuantizedNetwork:
        """The most accurate candidate; the first of several."""
        return max(self.candidates, key=lambda candidate: self.measure(candidate.logits).accuracy)

    def measure(self, logits: NDArray[Any]) -> Figures:
        """Accuracy of logits ``(n, 7)`` for the measured faces."""
        return measure(self.measured.labels, logits.argmax(axis=1))

    def split_figures(self, logits: NDArray[Any]) -> SplitFigures:
        """The same as a card states it."""
        figures = self.measure(logits)
        return SplitFigures(self.run.measured, figures.n, round(figures.accuracy, 5), round(figures.macro_f1, 5))


def make_bundle(folder: Path, data: Sequence[Path], out: Path, coverage: float, margin: float) -> Card:
    """Turn the training run in ``folder`` into a bundle at ``out``; returns its card.

    ``coverage`` is the share of faces (0 to 1) whose confidence is to reach the card's threshold; ``margin`` is the
    card's crop margin. The quantization-aware training is kept beside the run, and continued when it was interrupted.
    Raises UsageError when ``out`` is in use or the data is not what the run was trained on, ConversionError when the
    network cannot become int8, ParityError when its forms disagree.
    """
    _check_writable(out)
    export = _quantize(folder, data)
    best, labels = export.best, export.measured.labels
    forms = _forms(export)
    pairs = compare_forms(forms, labels)
    check_parity(forms, pairs)
    golden = make_golden(best.network, margin)
    card = _card(export, folder.name, coverage, golden, _tolerances(forms, best, golden))
    probabilities = softmax(card.temperature.calibrated(best.real_logits()))
    report = bundle_report(card, export.measure(best.logits), reliability_diagram(labels, probabilities), pairs)
    _write(out, best.file, card, golden, report)
    return card


def _quantize(folder: Path, data: Sequence[Path]) -> _Export:
    """Quantize a run's network by every method that it allows."""
    run = Run.load(folder)
    splits = run.faces(folder, data)
    model = run.model(folder)
    candidates = []
    for method, file, source in _conversions(run, model, splits, folder / "qat"):
        int8 = Network(file, method)
        logits = np.stack([int8.logits(face) for face in splits.public.pixels])
        candidates.append(QuantizedNetwork(method, file, int8, logits, predict_logits(source, splits.public.pixels)))
    float_logits = candidates[-1].keras_logits  # post-training quantization does not change the network
    return _Export(run, int(model.count_params()), macs(model), splits.public, float_logits, tuple(candidates))


def _conversions(run: Run, model: Any, splits: Splits, qat: Path) -> Iterator[tuple[str, bytes, Any]]:
    """Each method with its int8 file and the Keras network of it.

    Quantization-aware training takes a plain path of layers. A network with other layers, such as VGG16 and ResNet50,
    is quantized after training only, and need not fit an Edge TPU: its size and time rule that out.
    """
    try:
        network = prepare_network(model)
    except ConversionError as error:
        print_line(f"{error}: post-training quantization only")
        yield POST_TRAINING, quantize_post_training(model, splits.training, edge_tpu=False), model
        return
    aware = train_quantized(network, run.recipe, splits.training, splits.public, qat)
    yield QUANTIZATION_AWARE, convert(aware), aware
    yield POST_TRAINING, quantize_post_training(network, splits.training), network


def _forms(export: _Export) -> list[NetworkForm]:
    """Every form of the network that runs on this machine.

    The float32 form has other weights than the rest: it was trained further, or it is not quantized.
    """
    best = export.best
    forms = [NetworkForm("Keras float32", export.float_logits, same_weights=False)]
    if best.method == QUANTIZATION_AWARE:
        forms.append(NetworkForm("Keras quantization-aware", best.keras_logits))
    forms.append(NetworkForm(best.network.runtime, best.logits))
    if legacy_runtime.available():
        logits = legacy_runtime.outputs(best.file, _encoded(best.network, export.measured.pixels))
        forms.append(NetworkForm(legacy_runtime.NAME, logits))
    return forms


def _encoded(network: Network, pixels: NDArray[np.uint8]) -> NDArray[np.int8]:
    return np.concatenate(
        [encode(face, network.input_quantization.scale, network.input_quantization.zero_point) for face in pixels]
    )


def _tolerances(forms: list[NetworkForm], best: QuantizedNetwork, golden: Golden) -> tuple[Tolerance, ...]:
    """How far the older runtime is from the newer one, on the measured faces and the golden inputs."""
    if forms[-1].name == best.network.runtime:
        return ()
    legacy_golden = legacy_runtime.outputs(best.file, _encoded(best.network, golden.faces))
    steps = [_largest_step(forms[-1].logits, best.logits), _largest_step(legacy_golden, golden.outputs)]
    same = forms[-1].logits.argmax(axis=1) == best.logits.argmax(axis=1)
    return (Tolerance(forms[-1].name, max(steps), round(float(same.mean()), 5)),)


def _largest_step(first: NDArray[Any], second: NDArray[np.int8]) -> int:
    return int(np.abs(first.astype(np.int64) - second).max())


def _card(
    export: _Export, folder_name: str, coverage: float, golden: Golden, tolerances: tuple[Tolerance, ...]
) -> Card:
    """The bundle's card. The temperature and the threshold are fitted to the best candidate's logits."""
    best, labels, name = export.best, export.measured.labels, export.run.recipe.name
    logits = best.real_logits()
    fit = calibrate(logits, labels, _CALIBRATION_SEED)
    return Card(
        schema_version=4,
        name=name,
        sha256=hashlib.sha256(best.file).hexdigest(),
        labels=LABELS,
        input_shape=(1, INPUT_SIZE, INPUT_SIZE, 1),
        input=best.network.input_quantization,
        output=best.network.output_quantization,
        crop_margin=golden.scene.margin,
        temperature=fit.temperature,
        abstention=choose_threshold(softmax(fit.temperature.calibrated(logits)), labels, coverage),
        events=DEFAULT_TUNING,
        parameters=export.parameters,
        macs=export.macs,
        ops=dict(sorted(Counter(op.name for op in read_graph(best.file, name).ops).items())),
        figures=export.split_figures(best.logits),
        calibration=fit.assessed,
        golden_runtime=best.network.runtime,
        golden_machine=platform.machine(),
        tolerances=tolerances,
        origin=_origin(export, folder_name),
        licence=_LICENCE,
        intended_use=_INTENDED_USE,
        limits=_LIMITS,
    )


def _origin(export: _Export, folder_name: str) -> Provenance:
    run = export.run
    return Provenance(
        train_command=run.command,
        export_command=f"fer-export bundle runs/{folder_name} --data fer2013.csv --out {run.recipe.name}",
        revision=run.revision,
        seed=run.recipe.seed,
        init=run.init,
        teachers=run.teachers,
        training_data=_training_data(run),
        training_sha256=run.training_sha256,
        public_sha256=run.public_sha256,
        float_figures=export.split_figures(export.float_logits),
        quantization=export.best.method,
        quantization_figures={
            candidate.method: export.split_figures(candidate.logits) for candidate in export.candidates
        },
        chosen=f"epoch and quantization, both by {run.measured}",
    )


def _training_data(run: Run) -> str:
    text = f"FER2013 Training, without {run.excluded} pictures that other splits hold too"
    if run.skipped:
        text += f" and without {run.skipped} bad rows"
    return f"{text}; votes: {run.votes}" if run.votes else text


def _check_writable(out: Path) -> None:
    """Check before minutes of work that a bundle can be written to ``out``. Raises UsageError."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} exists and is not an empty folder. Give another --out, or remove it.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out.parent):
            free = shutil.disk_usage(out.parent).free
    except OSError as error:
        raise UsageError(f"{out}: cannot be written: {error.strerror}") from error
    if free < _REQUIRED_BYTES:
        raise UsageError(
            f"{out}: only {free / 1e6:.1f} MB are free there; making a bundle needs {_REQUIRED_BYTES / 1e6:.0f} MB"
        )


def _write(out: Path, file: bytes, card: Card, golden: Golden, report: str) -> None:
    """Write all files into a temporary folder beside ``out``, open that as a device does, then rename it."""
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
