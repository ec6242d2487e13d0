"""``fer-export import``: make a bundle of a network that was trained elsewhere."""

import json
import shlex
import sys
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge.errors import DataError, UsageError
from edge.evaluation.fer2013 import MEASURED, LabelledData, LabelledFaces, Split, read_data
from edge.labels import Labels, label_problem
from edge.model.bundle import CARD_NAME, DEFAULT, find_bundle, read_card
from edge.model.classifier import Network
from edge.model.origin import ImportedNetwork, Provenance, Source, SplitFigures
from export.build.assemble import BundleChoices, MadeBundle, NetworkFacts, assemble_bundle
from export.build.measured import POST_TRAINING, QuantizedNetwork, runtime_forms, split_figures
from export.build.writing import check_writable
from export.edgetpu.predict import Prediction, predict_mapping
from export.importing.detection import ChosenScaling, choose_scaling
from export.importing.limits import check_integer
from export.importing.quantize import quantize
from export.importing.rewrite import for_devices
from export.importing.runner import BroughtNetwork, for_each_face
from export.importing.scaling import PixelScaling, candidates, parse_scaling, prepare
from export.importing.source import SourceNetwork, read_source
from export.quantization import legacy_runtime
from export.quantization.chance import require_enough
from export.quantization.parity import NetworkForm
from export.tflite_graph import count_macs, count_parameters, read_graph

_AUTO: Final = "auto"
_AS_BROUGHT: Final = "int8 as it was brought"
_DETECTION_FACES: Final = 600
_RANGE_FACES: Final = 512
_SEED: Final = 1
_HEAVY: Final = 2
"""A warning tells of networks that take more than so many times the work of the bundled student."""
_LICENCE: Final = "not known to fer-export: that of the network that was imported, see origin"
_LIMITS: Final = (
    "Imported: what it learned from, and for which faces it was meant, is not known to fer-export. Whether it has "
    "learned from the very faces that it was measured on is not known either; then its accuracy is overstated. Faces "
    "smaller than 48 pixels, turned, tilted, covered, blurred or lit from behind were not measured."
)


@dataclass(frozen=True)
class _Data:
    """Labelled faces: those that accuracy is ``measured`` on, and ``typical`` ones for the ranges and the scaling.

    They are the same if the data has one split. ``warnings`` has sentences about that, and what was left out.
    """

    measured: LabelledFaces
    typical: LabelledFaces
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Import:
    """A network, how its pixels are scaled, its int8 form for devices, and its scores as it was brought."""

    source: SourceNetwork
    chosen: ChosenScaling
    activation: str
    best: QuantizedNetwork
    brought: NDArray[np.float32]


def import_network(arguments: Namespace) -> int:
    """``fer-export import``: make the bundle and print what was found and measured; returns the exit code."""
    labels = _labels(arguments.labels)
    given = _scaling(arguments.input)
    _check_name(arguments.out)
    check_writable(arguments.out)
    source = read_source(arguments.model, labels)
    legacy_runtime.prepare()  # it may take a minute, so a wrong file is told before
    _tell(f"{source.path}: {source.kind}, {source.face}, {len(labels)} labels")
    data = _read(arguments.data, labels)
    imported = _import(source, data, given)
    made = assemble_bundle(
        BundleChoices(arguments.out, arguments.coverage, arguments.margin),
        _facts(imported, data, arguments),
        imported.best,
        _forms(imported, data.measured),
        data.measured,
    )
    prediction = predict_mapping(read_graph(imported.best.file, arguments.out))
    warnings = [*data.warnings, *_warnings(imported, made, prediction, arguments.out)]
    if arguments.json:
        print(json.dumps(_as_json(arguments.out, imported, made, prediction, warnings)))
    else:
        print(_as_text(arguments.out, imported, made, prediction))
        for warning in warnings:
            _tell(f"warning: {warning}")
    return 0


def _tell(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def _labels(text: str) -> Labels:
    labels = tuple(name.strip().lower() for name in text.split(","))
    if problem := label_problem(labels):
        raise UsageError(f"--labels {text}: {problem}")
    return labels


def _scaling(text: str) -> PixelScaling | None:
    if text == _AUTO:
        return None
    try:
        return parse_scaling(text)
    except ValueError as error:
        raise UsageError(f"--input {text}: {error}") from error


def _check_name(out: Path) -> None:
    if not CARD_NAME.fullmatch(out.name):
        raise UsageError(
            f"--out {out}: the bundle is called {out.name!r} after its folder. Use up to 64 letters, digits, dots, "
            "hyphens and underscores, a letter or digit first."
        )


def _read(path: Path, labels: Labels) -> _Data:
    _tell(f"reading {path}")
    data = read_data(path, labels)
    if data.bad:
        raise DataError(f"{path}, {data.bad[0]}; {len(data.bad):,} of its rows or pictures cannot be used. Mend it.")
    measured = data.faces(_measured_split(data))
    typical = data.splits.get(Split.TRAINING, measured)
    for faces in (typical, measured):
        require_enough(faces)
    return _Data(measured, typical, tuple(_data_warnings(data, measured, typical)))


def _data_warnings(data: LabelledData, measured: LabelledFaces, typical: LabelledFaces) -> Iterator[str]:
    """What was left out, and what cannot be told from these faces."""
    for faces in dict.fromkeys((measured.split, typical.split)):
        if left_out := data.splits[faces or Split.UNSPLIT].left_out:
            counts = ", ".join(f"{count:,} {label}" for label, count in left_out.items())
            yield f"left out of {faces}, since --labels lacks it: {counts}"
    shown = set(measured.labels.tolist())
    if missing := [label for index, label in enumerate(measured.names) if index not in shown]:
        yield f"{measured.split} has no face of {', '.join(missing)}: the accuracy is that of the other labels"
    if typical is measured:
        yield (
            f"the data has only {measured.split}: ranges, pixels and accuracy come from the same faces. A tree with "
            "train and test separates them."
        )


def _measured_split(data: LabelledData) -> Split:
    if set(data.splits) == {Split.UNSPLIT}:
        return Split.UNSPLIT
    return next((split for split in MEASURED if split in data.splits), Split.PUBLIC)


def _import(source: SourceNetwork, data: _Data, given: PixelScaling | None) -> _Import:
    """Find the scaling, quantize, and measure."""
    brought = BroughtNetwork(source)
    sample = _sample(data.typical, _DETECTION_FACES)
    chosen = _choose(brought, sample, (given,) if given else candidates(source.face))
    _tell(f"pixels {chosen.scaling.name}, {chosen.sentence}")
    file, method = source.file, _AS_BROUGHT
    if not source.quantized:
        _tell(f"quantizing by the ranges for {min(_RANGE_FACES, len(data.typical))} faces")
        file, method = quantize(file, _inputs(source, data, chosen.scaling), source.path), POST_TRAINING
    file, activation = for_devices(file, source.face, chosen.scaling, source.path)
    check_integer(file, source.path)
    network = Network(file, source.path)
    pixels = data.measured.pixels
    logits = for_each_face(pixels, "int8", network.logits)
    scores = for_each_face(pixels, "as brought", lambda face: brought.scores(face, chosen.scaling))
    return _Import(source, chosen, activation, QuantizedNetwork(method, file, network, logits), scores)


def _sample(faces: LabelledFaces, most: int) -> LabelledFaces:
    kept = np.zeros(len(faces), bool)
    kept[np.random.default_rng(_SEED).permutation(len(faces))[:most]] = True
    return faces.select(kept)


def _choose(brought: BroughtNetwork, faces: LabelledFaces, scalings: tuple[PixelScaling, ...]) -> ChosenScaling:
    def predict(scaling: PixelScaling) -> NDArray[np.int64]:
        scores = for_each_face(faces.pixels, f"trying {scaling.name}", lambda face: brought.scores(face, scaling))
        return np.asarray(scores.argmax(axis=1), np.int64)

    return choose_scaling(scalings, predict, faces)


def _inputs(source: SourceNetwork, data: _Data, scaling: PixelScaling) -> Iterator[NDArray[np.float32]]:
    """Typical inputs, after those of a black and a white picture, which span the input's range."""
    faces = _sample(data.typical, _RANGE_FACES).pixels
    for face in (np.zeros_like(faces[0]), np.full_like(faces[0], 255), *faces):
        yield prepare(face, source.face, scaling)


def _forms(imported: _Import, measured: LabelledFaces) -> list[NetworkForm]:
    """As brought, then int8 in every runtime. Another resizing and rounding make the first not exactly comparable."""
    as_brought = NetworkForm("as brought", imported.brought, same_weights=False)
    return [as_brought, *runtime_forms(imported.best, measured)]


def _facts(imported: _Import, data: _Data, arguments: Namespace) -> NetworkFacts:
    graph = imported.source.graph
    return NetworkFacts(
        name=arguments.out.name,
        parameters=count_parameters(graph),
        macs=count_macs(graph),
        origin=_origin(imported, data, arguments),
        licence=_LICENCE,
        limits=_LIMITS,
    )


def _origin(imported: _Import, data: _Data, arguments: Namespace) -> Provenance:
    source, chosen, measured = imported.source, imported.chosen, data.measured
    name = source.path.name
    command = ["fer-export", "import", name, "--labels", ",".join(measured.names), "--data", arguments.data.name]
    return Provenance(
        train_command=f"not known: imported from {name}",
        export_command=shlex.join([*command, "--input", chosen.scaling.name, "--out", arguments.out.name]),
        revision="",
        seed=0,
        training_sha256="",
        public_sha256=measured.sha256(),
        float_figures=split_figures(imported.brought, measured),
        quantization=imported.best.method,
        quantization_figures={imported.best.method: split_figures(imported.best.logits, measured)},
        chosen="scaling of the pixels",
        sources=(
            Source("start", name, sha256=source.sha256),
            Source(
                "data",
                f"{data.typical.split} of {arguments.data.name}",
                "for the ranges of int8 and the pixels' scaling; what it was trained on is not known",
                sha256=data.typical.sha256(),
            ),
        ),
        imported=ImportedNetwork(
            file=name,
            sha256=source.sha256,
            kind=source.kind,
            input_side=source.face.side,
            input_channels=source.face.channels,
            activation=imported.activation,
            scaling=chosen.scaling.name,
            scaling_chosen=chosen.sentence,
            scaling_accuracies=dict(chosen.accuracies),
        ),
    )


def _warnings(imported: _Import, made: MadeBundle, prediction: Prediction, out: Path) -> Iterator[str]:
    chosen = imported.chosen
    if chosen.close:
        yield (
            f"pixels {chosen.scaling.name} and {', '.join(chosen.close)} cannot be told apart by {chosen.n:,} faces. "
            "Give --input if you know which is right."
        )
    if (times := made.card.macs / read_card(find_bundle(DEFAULT)).macs) > _HEAVY:
        yield f"the network takes about {times:.0f} times the work of the bundled {DEFAULT}"
    if not prediction.all_mapped:
        yield f"not every op is predicted to map to an Edge TPU; fer-export check {shlex.quote(str(out))} lists them"


def _as_text(out: Path, imported: _Import, made: MadeBundle, prediction: Prediction) -> str:
    card, source = made.card, imported.source
    figures, brought, abstention = card.figures, card.origin.float_figures, card.abstention
    end = f", {imported.activation.lower()} at its end left to the device" if imported.activation else ""
    mapped = prediction.refused or f"{prediction.mapped_ops} of {len(prediction.ops)} ops map"
    return "\n".join(
        (
            f"{out}: {card.name}, imported from {source.path} ({source.kind}, {source.face}{end})",
            f"pixels     {imported.chosen.scaling.name}, {imported.chosen.sentence}",
            f"accuracy   int8 {figures.accuracy:.2%} on {figures.n:,} faces of {figures.split} (as brought "
            f"{brought.accuracy:.2%}), {card.origin.quantization}",
            f"confidence {abstention.threshold:.2f} or more for {abstention.coverage:.0%} of the faces, "
            f"{abstention.accuracy:.1%} of which are classified correctly; expected calibration error "
            f"{card.calibration.ece:.3f}",
            f"size       {card.parameters:,} parameters, {card.macs / 1e6:.1f} MMAC, {len(imported.best.file):,} bytes",
            f"Edge TPU   PREDICTED (no compiler was run): {mapped}",
        )
    )


def _as_json(
    out: Path, imported: _Import, made: MadeBundle, prediction: Prediction, warnings: list[str]
) -> dict[str, Any]:
    card, chosen = made.card, imported.chosen
    return {
        "schema_version": 1,
        "bundle": str(out),
        "name": card.name,
        "sha256": card.sha256,
        "labels": card.labels,
        "source": msgspec.to_builtins(card.origin.imported),
        "scaling_close": chosen.close,
        "figures": {"as_brought": _figures(card.origin.float_figures), "int8": _figures(card.figures)},
        "quantization": card.origin.quantization,
        "parity": [
            {"forms": [pair.first, pair.second], "points": pair.points, "agreement": round(pair.agreement, 5)}
            for pair in made.pairs
        ],
        "parameters": card.parameters,
        "macs": card.macs,
        "edge_tpu": {
            "predicted": True,
            "refused": prediction.refused,
            "mapped_ops": prediction.mapped_ops,
            "cpu_ops": prediction.cpu_ops,
        },
        "warnings": warnings,
    }


def _figures(figures: SplitFigures) -> Any:
    return msgspec.to_builtins(figures)
