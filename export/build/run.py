"""Make a bundle of a run: quantize its network by every method that it allows, measure all, and take the best."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge.errors import UsageError
from edge.evaluation.fer2013 import LabelledFaces
from edge.model.bundle import Card
from edge.model.classifier import Network
from edge.model.origin import Provenance
from export.build.assemble import BundleChoices, NetworkFacts, assemble_bundle
from export.build.measured import (
    POST_TRAINING,
    QUANTIZATION_AWARE,
    QuantizedNetwork,
    measure_logits,
    runtime_forms,
    split_figures,
)
from export.build.writing import check_writable
from export.quantization import legacy_runtime
from export.quantization.bias_correction import correct_biases
from export.quantization.chance import require_enough
from export.quantization.convert import convert, quantize_post_training, train_quantized
from export.quantization.errors import ConversionError
from export.quantization.parity import NetworkForm
from export.quantization.prepare import prepare_network
from train.checkpoints import BEST_WEIGHTS
from train.data.dataset import Splits
from train.models.registry import macs
from train.progress import print_line
from train.run import Run, data_options
from train.sources import sha256_of
from train.trainer import predict_logits

_START: Final = "start.sha256"  # in the folder of the quantization-aware training: the weights that it began with
_LICENCE: Final = "Apache-2.0 for the code; its sources have terms of their own, see origin"
_LIMITS: Final = (
    "Trained on frontal, mostly posed or newsworthy faces found on the web at 48x48 pixels, of people nobody asked or "
    "described: who is rare there is judged worse, and how much worse is not known. Faces smaller than 48 pixels, "
    "turned or tilted by more than about 30 degrees, covered, blurred or lit from behind were not measured."
)


@dataclass(frozen=True)
class _Candidate(QuantizedNetwork):
    """The result of one method; ``keras_logits``, ``(n, 7)`` float32, are of the Keras network that was converted."""

    keras_logits: NDArray[np.float32]


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
    candidates: tuple[_Candidate, ...]

    @property
    def best(self) -> _Candidate:
        """The most accurate candidate; the first of several."""
        return max(self.candidates, key=lambda candidate: measure_logits(candidate.logits, self.measured).accuracy)


def make_bundle(folder: Path, data: Sequence[Path], choices: BundleChoices, *, train: bool) -> Card:
    """Turn the training run in ``folder`` into a bundle; returns its card.

    With ``train`` by quantization-aware training too, if the network allows it. This training is kept beside the run,
    and continued when it was interrupted. Raises UsageError when ``choices.out`` is in use, the run is not finished or
    the data is not what it was trained on, DataError when it has too few faces to measure, ConversionError when the
    network cannot become int8, ParityError when its forms disagree, LegacyRuntimeError when the older runtime cannot be
    installed.
    """
    check_writable(choices.out)
    run = Run.load(folder)
    run.require_finished(folder)
    legacy_runtime.prepare()  # it may take a minute, so a wrong name is told before
    export = _quantize(run, folder, data, train)
    facts = NetworkFacts(
        name=export.run.recipe.name,
        parameters=export.parameters,
        macs=export.macs,
        origin=_origin(export, folder.name, data, "" if train else " --post-training"),
        licence=_LICENCE,
        limits=_LIMITS,
    )
    return assemble_bundle(choices, facts, export.best, _forms(export), export.measured).card


def _quantize(run: Run, folder: Path, data: Sequence[Path], train: bool) -> _Export:
    """Quantize a run's network by every method that it allows, or after training only."""
    splits = run.faces(folder, data)
    require_enough(splits.public)
    model = run.model(folder)
    candidates = []
    for method, file, source in _conversions(run, model, splits, folder if train else None):
        int8 = Network(file, method)
        logits = np.stack([int8.logits(face) for face in splits.public.pixels])
        candidates.append(_Candidate(method, file, int8, logits, predict_logits(source, splits.public.pixels)))
    float_logits = candidates[-1].keras_logits  # post-training quantization does not change the network
    return _Export(run, int(model.count_params()), macs(model), splits.public, float_logits, tuple(candidates))


def _conversions(run: Run, model: Any, splits: Splits, folder: Path | None) -> Iterator[tuple[str, bytes, Any]]:
    """Each method with its int8 file and the Keras network of it.

    ``folder`` is the run's, for quantization-aware training; None: only what needs no training. That training takes a
    plain path of layers. A network with other layers, such as VGG16 and ResNet50, is quantized after training only, and
    need not fit an Edge TPU: its size and time rule that out.
    """
    try:
        network = prepare_network(model)
    except ConversionError as error:
        print_line(f"{error}: post-training quantization only")
        yield POST_TRAINING, quantize_post_training(model, splits.training, edge_tpu=False), model
        return
    if folder:
        aware = train_quantized(network, run.recipe, splits.training, splits.public, _aware_folder(folder))
        yield QUANTIZATION_AWARE, convert(aware), aware
    corrected = correct_biases(network, splits.training)
    yield POST_TRAINING, quantize_post_training(corrected, splits.training), network


def _aware_folder(folder: Path) -> Path:
    """The folder of the quantization-aware training of the run's weights, without what other weights left there.

    Raises UsageError when it cannot be written.
    """
    aware, sha256 = folder / "qat", sha256_of(folder / BEST_WEIGHTS)
    start = aware / _START
    try:
        if not start.is_file() or start.read_text() != sha256:
            if aware.exists():
                shutil.rmtree(aware)
            aware.mkdir()
            start.write_text(sha256)
    except OSError as error:
        raise UsageError(
            f"{aware}: cannot be written: {error.strerror}. Give a copy of the run that can, or --post-training, which "
            "writes nothing there."
        ) from error
    return aware


def _forms(export: _Export) -> list[NetworkForm]:
    """Every form of the network that runs on this machine.

    The float32 form has other weights than the rest: it was trained further, or it is not quantized.
    """
    best = export.best
    forms = [NetworkForm("Keras float32", export.float_logits, same_weights=False)]
    if best.method == QUANTIZATION_AWARE:
        forms.append(NetworkForm("Keras quantization-aware", best.keras_logits))
    return [*forms, *runtime_forms(best, export.measured)]


def _origin(export: _Export, folder_name: str, data: Sequence[Path], option: str) -> Provenance:
    run = export.run
    figures = {one.method: split_figures(one.logits, export.measured) for one in export.candidates}
    return Provenance(
        train_command=run.command,
        export_command=f"fer-export bundle runs/{folder_name} {data_options(data)} --out {run.recipe.name}{option}",
        revision=run.revision,
        seed=run.recipe.seed,
        training_sha256=run.training_sha256,
        public_sha256=run.public_sha256,
        float_figures=split_figures(export.float_logits, export.measured),
        quantization=export.best.method,
        quantization_figures=figures,
        chosen=f"epoch and quantization, both by {run.measured}" if len(figures) > 1 else f"epoch, by {run.measured}",
        sources=run.sources,
    )
