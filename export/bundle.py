"""Make a bundle of a run: quantize, convert, measure the very file, write card and golden outputs."""

import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge.bundle import (
    CARD_FILE,
    GOLDEN_FILE,
    MODEL_FILE,
    Bundle,
    Card,
    Golden,
    Origin,
    Quantization,
    SplitFigures,
    open_bundle,
)
from edge.classify import Classifier, find_runtime
from edge.contract import INPUT_SIZE, LABELS
from edge.errors import UsageError
from edge.fer2013 import LabelledFaces
from edge.metrics import Figures
from edge.verify import verify
from export.convert import convert, quantize_aware
from train.data import read_splits
from train.models import macs
from train.run import Run
from train.trainer import evaluate

_GOLDEN_FACES: Final = 16
_LICENCE: Final = "Apache-2.0 for the code; FER2013 and the pretrained start carry terms of their own, see origin"
_INTENDED_USE: Final = (
    "Counting and reacting to visible expressions of visitors who were told. Trained on frontal faces found on the "
    "web, of people nobody asked or described; an expression is not an emotion. "
    "The EU AI Act forbids inferring emotions at work and in education."
)


def make_bundle(folder: Path, data: Path, out: Path) -> Card:
    """Turn the training run in ``folder`` into a bundle at ``out``; returns its card.

    The quantization-aware training is kept beside the run and resumed when interrupted. Raises UsageError when
    ``out`` is in use, or the data is not what the run was trained on.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} exists and is not an empty folder. Give another --out, or remove it.")
    run = Run.load(folder)
    splits = read_splits(data, skip_bad=run.skipped > 0)
    training, public = splits.training, splits.public
    if (training.sha256(), public.sha256()) != (run.training_sha256, run.public_sha256):
        raise UsageError(f"{data} is not the data that {folder} was trained on")
    model = run.model(folder)
    float_figures = evaluate(model, public)
    parameters, multiplications = int(model.count_params()), macs(model)
    quantized, _epoch = quantize_aware(model, run.recipe, training, public, folder / "qat")
    file = convert(quantized)
    draft = _card(file, run, float_figures, parameters, multiplications)
    card, golden = _measure(file, draft, public)
    _write(out, file, card, golden)
    return card


def _card(file: bytes, run: Run, float_figures: Figures, parameters: int, multiplications: int) -> Card:
    """The card but for the int8 figures, which are measured on the bundle itself."""
    entry, leaving = _quantization(file)
    return Card(
        schema_version=1,
        name=run.recipe.name,
        sha256=hashlib.sha256(file).hexdigest(),
        labels=LABELS,
        input_shape=(1, INPUT_SIZE, INPUT_SIZE, 1),
        input=entry,
        output=leaving,
        crop_margin=0.0,
        temperature=1.0,
        parameters=parameters,
        macs=multiplications,
        figures=_split_figures(run.measured, float_figures),
        origin=Origin(
            train_command=run.command,
            export_command=f"fer-export bundle runs/{run.recipe.name} --data fer2013.csv --out {run.recipe.name}",
            seed=run.recipe.seed,
            init=run.init,
            training_data=_training_data(run),
            training_sha256=run.training_sha256,
            public_sha256=run.public_sha256,
            float_figures=_split_figures(run.measured, float_figures),
            chosen=f"the epoch best on {run.measured}",
        ),
        licence=_LICENCE,
        intended_use=_INTENDED_USE,
    )


def _training_data(run: Run) -> str:
    told = f"FER2013 Training, without {run.excluded} pictures that other splits hold too"
    if run.skipped:
        told += f" and without {run.skipped} bad rows"
    return f"{told}; votes: {run.votes}" if run.votes else told


def _quantization(file: bytes) -> tuple[Quantization, Quantization]:
    interpreter = find_runtime()[0](model_content=file)
    [entry], [leaving] = interpreter.get_input_details(), interpreter.get_output_details()
    made = [Quantization(float(t["quantization"][0]), int(t["quantization"][1])) for t in (entry, leaving)]
    return made[0], made[1]


def _split_figures(split: str, figures: Figures) -> SplitFigures:
    return SplitFigures(split, figures.n, round(figures.accuracy, 5), round(figures.macro_f1, 5))


def _measure(file: bytes, draft: Card, public: LabelledFaces) -> tuple[Card, Golden]:
    """Figures and golden outputs of the int8 file in the runtime that devices use."""
    faces = golden_faces()
    empty = Golden(faces, np.zeros((len(faces), len(LABELS)), np.int8), LABELS)
    classifier = Classifier(Bundle(Path("new bundle"), file, draft, empty))
    outputs = np.stack([classifier.logits(face) for face in faces])
    figures, _milliseconds = verify(classifier, public)
    told = _split_figures(draft.figures.split, figures)
    return msgspec.structs.replace(draft, figures=told), Golden(faces, outputs, LABELS)


def golden_faces() -> NDArray[np.uint8]:
    """Sixteen synthetic inputs, ``(16, 48, 48)`` uint8: smooth random blobs of many contrasts; nobody's face."""
    rng = np.random.default_rng(20130414)
    coarse = rng.uniform(-1, 1, (_GOLDEN_FACES, 6, 6))
    smooth = np.stack([np.kron(blob, np.ones((8, 8))) for blob in coarse])
    level = rng.uniform(60, 190, (_GOLDEN_FACES, 1, 1))
    contrast = np.linspace(10, 120, _GOLDEN_FACES)[:, None, None]
    noise = rng.normal(0, 6, (_GOLDEN_FACES, INPUT_SIZE, INPUT_SIZE))
    return np.asarray(np.clip(level + contrast * smooth + noise, 0, 255), np.uint8)


def _write(out: Path, file: bytes, card: Card, golden: Golden) -> None:
    """Write all files into a temporary folder beside ``out``, open it as a device would, then rename it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as name:
        folder = Path(name) / out.name
        folder.mkdir()
        (folder / MODEL_FILE).write_bytes(file)
        (folder / CARD_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(card)) + b"\n")
        np.savez_compressed(
            folder / GOLDEN_FILE, faces=golden.faces, outputs=golden.outputs, labels=np.array(golden.labels)
        )
        open_bundle(folder)
        if out.exists():
            out.rmdir()
        shutil.move(folder, out)
