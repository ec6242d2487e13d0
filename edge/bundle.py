"""The deployable unit: a folder with the int8 network, a card that states its contract, and golden outputs.

It is opened strictly: whatever differs from the card stops the start with a sentence that says what differs.
"""

import hashlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge.contract import INPUT_SIZE, LABELS
from edge.errors import BundleError

MODEL_FILE: Final = "model.tflite"
EDGE_TPU_FILE: Final = "model_edgetpu.tflite"
CARD_FILE: Final = "card.json"
GOLDEN_FILE: Final = "golden.npz"


class Quantization(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Affine int8 quantization of one tensor: ``real = scale * (stored - zero_point)``."""

    scale: float
    zero_point: int


class SplitFigures(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one form of the model reaches on one split, single crop."""

    split: str
    n: int
    accuracy: float
    macro_f1: float


class Origin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the model was made, so that it can be made again."""

    train_command: str
    export_command: str
    seed: int
    init: str
    training_data: str
    training_sha256: str
    public_sha256: str
    float_figures: SplitFigures
    chosen: str


class EdgeTpuFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The same network compiled for the Edge TPU: what the file is, and how much of it runs there.

    ``compiler`` is the version that the compiler's output or log gave, None when there was neither.
    """

    sha256: str
    compiler: str | None
    mapped_ops: int
    cpu_ops: int


class Card(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The contract that travels with a model. ``crop_margin`` and ``temperature`` are as in edge.contract."""

    schema_version: Literal[1]
    name: str
    sha256: str
    labels: tuple[str, ...]
    input_shape: tuple[int, ...]
    input: Quantization
    output: Quantization
    crop_margin: float
    temperature: float
    parameters: int
    macs: int
    figures: SplitFigures
    origin: Origin
    licence: str
    intended_use: str
    edgetpu: EdgeTpuFile | None = None


@dataclass(frozen=True)
class Golden:
    """Synthetic inputs and what the model gave for them where it was made.

    ``faces`` is ``(n, 48, 48)`` uint8, ``outputs`` ``(n, 7)`` int8 in the order of ``labels``.
    """

    faces: NDArray[np.uint8]
    outputs: NDArray[np.int8]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Bundle:
    """An opened bundle whose parts agree with each other; ``edgetpu_model`` is None when it has none."""

    folder: Path
    model: bytes
    card: Card
    golden: Golden
    edgetpu_model: bytes | None = None


def find_bundle(name: str) -> Path:
    """Folder of a bundled model by name, or of a bundle by path. Raises BundleError naming what is there."""
    shipped = Path(str(resources.files("edge"))) / "bundles"
    for folder in (shipped / name, Path(name)):
        if (folder / CARD_FILE).is_file():
            return folder
    known = ", ".join(sorted(folder.name for folder in shipped.iterdir() if folder.is_dir()))
    raise BundleError(f"{name}: neither a bundled model ({known}) nor a folder with a {CARD_FILE}")


def open_bundle(folder: Path) -> Bundle:
    """Read a bundle and check its parts against its card. Raises BundleError saying what differs.

    An Edge TPU file that the card does not name is left alone: an interrupted ``fer-export add-tpu`` leaves that.
    """
    card = _read_card(folder / CARD_FILE)
    if card.labels != LABELS:
        raise BundleError(f"{folder}: its labels are {', '.join(card.labels)}; this program's are {', '.join(LABELS)}")
    if card.input_shape != (1, INPUT_SIZE, INPUT_SIZE, 1):
        raise BundleError(f"{folder}: its input is {card.input_shape}; this program gives (1, 48, 48, 1)")
    model = _read_model(folder / MODEL_FILE, card.sha256)
    compiled = _read_model(folder / EDGE_TPU_FILE, card.edgetpu.sha256) if card.edgetpu else None
    return Bundle(folder, model, card, _read_golden(folder / GOLDEN_FILE, card), compiled)


def _read_model(file: Path, sha256: str) -> bytes:
    model = _read(file)
    found = hashlib.sha256(model).hexdigest()
    if found != sha256:
        raise BundleError(
            f"{file}: its sha256 is {found[:12]}..., the card says {sha256[:12]}...: "
            "the file was damaged or replaced. Copy the bundle again."
        )
    return model


def _read_card(file: Path) -> Card:
    try:
        return msgspec.json.decode(_read(file), type=Card)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"{file}: not a card of version 1: {error}") from error


def _read_golden(file: Path, card: Card) -> Golden:
    try:
        with np.load(file, allow_pickle=False) as stored:
            golden = Golden(stored["faces"], stored["outputs"], tuple(str(name) for name in stored["labels"]))
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise BundleError(f"{file}: not readable golden outputs: {error}") from error
    if golden.labels != card.labels:
        raise BundleError(f"{file}: its labels are {', '.join(golden.labels)}, the card's {', '.join(card.labels)}")
    if golden.outputs.shape != (len(golden.faces), len(LABELS)) or golden.outputs.dtype != np.int8:
        raise BundleError(f"{file}: outputs are {golden.outputs.dtype} {golden.outputs.shape}, not int8 (n, 7)")
    return golden


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise BundleError(f"{file}: cannot be read: {error.strerror}. Copy the bundle again.") from error
