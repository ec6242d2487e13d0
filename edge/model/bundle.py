"""The deployable unit: a folder with the int8 network, a card that states its contract, and golden outputs.

It is opened strictly: whatever differs from the card stops the start with a sentence that says what differs.
"""

import hashlib
import lzma
import struct
import tokenize
import zipfile
import zlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge.errors import BundleError
from edge.model.preprocessing import INPUT_SIZE, LABELS, Temperature
from edge.records import Box, EventTuning, Gray

DEFAULT: Final = "student"
"""The bundled model that is used when nothing else is chosen."""

MODEL_FILE: Final = "model.tflite"
EDGE_TPU_FILE: Final = "model_edgetpu.tflite"
CARD_FILE: Final = "card.json"
GOLDEN_FILE: Final = "golden.npz"

_UNREADABLE: Final = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    RuntimeError,  # an encrypted part, or a way of compression that Python does not know
    SyntaxError,  # of the text in front of an array; so is the next
    tokenize.TokenError,
    MemoryError,  # an array that says it is larger than everything
    OverflowError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
)
"""What Python's and numpy's readers raise for a file that is damaged or something else."""

_CARD_VERSION: Final = 4
_LARGEST_GOLDEN: Final = 16 * 2**20  # bytes, unpacked; they are some 60 KB


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


class Provenance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the model was made, so that it can be made again.

    ``revision`` is the Git commit of the program that trained it, ``teachers`` whose answers it learned from.
    ``quantization`` is the way that was taken, the better one on the measured split; ``quantization_figures`` has every
    way that was tried, ``float_figures`` the network before.
    """

    train_command: str
    export_command: str
    revision: str
    seed: int
    init: str
    teachers: tuple[str, ...]
    training_data: str
    training_sha256: str
    public_sha256: str
    float_figures: SplitFigures
    quantization: str
    quantization_figures: dict[str, SplitFigures]
    chosen: str


class Calibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whether the int8 model's confidences can be believed, cross-fitted over two halves of the measured split.

    A model whose ``ece`` (expected calibration error, ten bins) is below ``perfect_p95`` cannot be told from a
    perfectly calibrated one with the same confidences. ``nll`` is the mean negative log-likelihood in nats.
    """

    ece_before: float
    ece: float
    perfect_p95: float
    nll_before: float
    nll: float


class Abstention(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Below ``threshold`` the model abstains; it speaks of the share ``coverage``, and is right with ``accuracy``."""

    threshold: float
    coverage: float
    accuracy: float


class Tolerance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far one runtime's int8 logits were from those of the runtime that made the golden outputs.

    ``largest_lsb`` is the largest difference on any face that was tried, in quantization steps; ``agreement`` the share
    of the measured split's faces with the same likeliest label.
    """

    runtime: str
    largest_lsb: int
    agreement: float


class EdgeTpuFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The same network compiled for the Edge TPU: what the file is, and how much of it runs there.

    ``compiler`` is the version that the compiler's output or log gave, None when there was neither.
    """

    sha256: str
    compiler: str | None
    mapped_ops: int
    cpu_ops: int


class _Version(msgspec.Struct):
    """The only thing that cards of all versions share."""

    schema_version: int


class Card(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The contract that travels with a model. ``crop_margin`` and ``temperature`` are as in edge.model.preprocessing.

    ``events`` are the thresholds of edge.events.episodes, tuned by ``fer-export episodes``. ``ops`` counts the
    network's ops by name. The golden outputs were made by ``golden_runtime`` on ``golden_machine``, where they must
    come out exactly; ``tolerances`` says how far other runtimes were from them.
    """

    schema_version: Literal[4]
    name: str
    sha256: str
    labels: tuple[str, ...]
    input_shape: tuple[int, ...]
    input: Quantization
    output: Quantization
    crop_margin: float
    temperature: Temperature
    abstention: Abstention
    events: EventTuning
    parameters: int
    macs: int
    ops: dict[str, int]
    figures: SplitFigures
    calibration: Calibration
    golden_runtime: str
    golden_machine: str
    tolerances: tuple[Tolerance, ...]
    origin: Provenance
    licence: str
    intended_use: str
    limits: str
    edgetpu: EdgeTpuFile | None = None

    def allowed_lsb(self, runtime: str, machine: str) -> int:
        """By how many quantization steps an int8 logit may differ from the golden one in ``runtime`` on ``machine``.

        0 where the golden outputs were made; elsewhere what was measured for that runtime, or the most of any.
        """
        if (runtime, machine) == (self.golden_runtime, self.golden_machine):
            return 0
        measured = {tolerance.runtime: tolerance.largest_lsb for tolerance in self.tolerances}
        return measured.get(runtime, max(measured.values(), default=0))


@dataclass(frozen=True)
class GoldenScene:
    """A synthetic picture, and what became of it on its way to the network where the model was made.

    ``jpeg`` is the picture in colour as a camera sends it, ``luma`` its full-range grey, ``crops`` the ``(n, 48, 48)``
    uint8 squares that were cut out of ``luma`` around ``boxes`` with ``margin`` (as in edge.model.preprocessing).
    """

    jpeg: bytes
    luma: Gray
    boxes: tuple[Box, ...]
    margin: float
    crops: NDArray[np.uint8]


@dataclass(frozen=True)
class Golden:
    """Synthetic inputs and what the model gave for them where it was made.

    ``faces`` is ``(n, 48, 48)`` uint8, ``outputs`` ``(n, 7)`` int8 in the order of ``labels``. ``scene`` shows whether
    the way to the network is the same.
    """

    faces: NDArray[np.uint8]
    outputs: NDArray[np.int8]
    labels: tuple[str, ...]
    scene: GoldenScene


@dataclass(frozen=True)
class Bundle:
    """An opened bundle whose parts agree with each other; ``edgetpu_model`` is None when it has none."""

    folder: Path
    model: bytes
    card: Card
    golden: Golden
    edgetpu_model: bytes | None = None


def bundled() -> list[str]:
    """Names of the models that come with the program; DEFAULT is one."""
    return sorted(folder.name for folder in _shipped().iterdir() if (folder / CARD_FILE).is_file())


def find_bundle(name: str) -> Path:
    """Folder of a bundled model by name (empty: DEFAULT), or of a bundle by path. Raises BundleError."""
    name = name or DEFAULT
    for folder in (_shipped() / name, Path(name)):
        if (folder / CARD_FILE).is_file():
            return folder
    raise BundleError(f"{name}: neither a bundled model ({', '.join(bundled())}) nor a folder with a {CARD_FILE}")


def _shipped() -> Path:
    return Path(str(resources.files("edge"))) / "bundles"


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
    content = _read(file)
    try:
        version = msgspec.json.decode(content, type=_Version).schema_version
        if version != _CARD_VERSION:
            mend = "make the bundle anew with its fer-export" if version < _CARD_VERSION else "upgrade fer-edge"
            raise BundleError(f"{file}: a card of version {version}, and this fer-edge reads {_CARD_VERSION}: {mend}")
        return msgspec.json.decode(content, type=Card)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"{file}: not a card of version {_CARD_VERSION}: {error}") from error


def _read_golden(file: Path, card: Card) -> Golden:
    try:
        with zipfile.ZipFile(file) as archive:
            if sum(part.file_size for part in archive.infolist()) > _LARGEST_GOLDEN:
                raise BundleError(f"{file}: unpacks to more than {_LARGEST_GOLDEN} bytes, so it is no golden outputs")
        with np.load(file, allow_pickle=False) as stored:
            golden = _golden(dict(stored))
    except KeyError as error:
        raise BundleError(f"{file}: {error.args[0]}. Make it anew: fer-export golden {file.parent}") from error
    except _UNREADABLE as error:
        raise BundleError(f"{file}: not readable golden outputs: {error}") from error
    if golden.labels != card.labels:
        raise BundleError(f"{file}: its labels are {', '.join(golden.labels)}, the card's {', '.join(card.labels)}")
    if golden.scene.margin != card.crop_margin:
        raise BundleError(
            f"{file}: its faces were cut out with a margin of {golden.scene.margin:g}, the card says "
            f"{card.crop_margin:g}. Copy the bundle again."
        )
    return golden


def _golden(stored: dict[str, NDArray[Any]]) -> Golden:
    """Raises KeyError for what is missing, and ValueError saying which part is not as it should be."""
    boxes = _part(stored, "boxes", np.int64, (None, 4))
    scene = GoldenScene(
        _part(stored, "scene_jpeg", np.uint8, (None,)).tobytes(),
        _part(stored, "scene", np.uint8, (None, None)),
        tuple(Box(*map(int, box)) for box in boxes),
        float(_part(stored, "margin", np.float64, ())),
        _part(stored, "crops", np.uint8, (len(boxes), INPUT_SIZE, INPUT_SIZE)),
    )
    _check_geometry(scene)
    faces = _part(stored, "faces", np.uint8, (None, INPUT_SIZE, INPUT_SIZE))
    labels = tuple(str(name) for name in stored["labels"].ravel())
    return Golden(faces, _part(stored, "outputs", np.int8, (len(faces), len(LABELS))), labels, scene)


def _check_geometry(scene: GoldenScene) -> None:
    """Raises ValueError when faces cannot be cut out of the scene as it says, or only with much memory."""
    height, width = scene.luma.shape
    for box in scene.boxes:
        if not (0 <= box.x < width and 0 <= box.y < height and 0 < box.w <= width and 0 < box.h <= height):
            raise ValueError(f"{box} is no face in a {width}x{height} picture")
    if not -0.4 <= scene.margin <= 4:
        raise ValueError(f"{scene.margin} is no margin")


def _part(stored: dict[str, NDArray[Any]], name: str, dtype: type, shape: tuple[int | None, ...]) -> NDArray[Any]:
    """One array, of this type and shape; None stands for any length but 0."""
    if name not in stored:
        raise KeyError(f"lacks {name!r}, so it is of an older version")
    part = stored[name]
    fits = (
        part.ndim == len(shape)
        and all(part.shape)
        and all(wanted in (None, found) for wanted, found in zip(shape, part.shape, strict=True))
    )
    if not fits or part.dtype != dtype:
        wanted = ", ".join("n" if size is None else str(size) for size in shape)
        raise ValueError(f"{name} are {part.dtype} {part.shape}, not {np.dtype(dtype)} ({wanted})")
    return part


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise BundleError(f"{file}: cannot be read: {error.strerror}. Copy the bundle again.") from error
