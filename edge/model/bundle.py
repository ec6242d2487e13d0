"""The bundle, the deployable unit: a folder with an int8 network, a card that states its contract, and golden outputs.

It is opened strictly: anything that differs from the card is an error that says what differs.
"""

import hashlib
import io
import logging
import lzma
import os
import re
import struct
import sys
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
from edge.labels import Labels, label_problem
from edge.model.origin import Provenance, SplitFigures
from edge.model.preprocessing import INPUT_SIZE, Temperature
from edge.records import Box, EventTuning, Gray
from edge.system.owner_rights import rights_of_owner
from edge.untrusted_file import MALFORMED_JSON, is_file, is_folder, is_forbidden, read_regular

_log = logging.getLogger(__name__)

DEFAULT: Final = "student-small-72"
"""The bundled model that is used when no other is chosen."""

MODEL_FILE: Final = "model.tflite"
EDGE_TPU_FILE: Final = "model_edgetpu.tflite"
CARD_FILE: Final = "card.json"
GOLDEN_FILE: Final = "golden.npz"

_UNREADABLE: Final = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    RuntimeError,  # an encrypted part, or a compression method that Python does not know
    SyntaxError,  # in the header of an array; so is the next
    tokenize.TokenError,
    MemoryError,  # an array whose header states a huge size
    OverflowError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
)
"""What Python's and numpy's readers raise for a file that is damaged or of another format."""

_MIB: Final = 2**20

MAX_BYTES: Final = {
    MODEL_FILE: 32 * _MIB,
    EDGE_TPU_FILE: 32 * _MIB,
    CARD_FILE: _MIB,
    GOLDEN_FILE: 4 * _MIB,
    "labels.txt": _MIB // 16,
    "report.html": 8 * _MIB,
}
"""The files of a bundle, and the largest accepted size of each in bytes. Any other file is ignored."""

CARD_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""The form of a model's name."""

_CARD_VERSION: Final = 5
_OLDEST_CARD_VERSION: Final = 4
_READ_VERSIONS: Final = f"{_OLDEST_CARD_VERSION} or {_CARD_VERSION}"
_MAX_GOLDEN_BYTES: Final = 16 * 2**20  # unpacked; they are about 60 KB


class Quantization(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Affine int8 quantization of one tensor: ``real = scale * (stored - zero_point)``."""

    scale: float
    zero_point: int


class Calibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Calibration of the int8 model's confidences, cross-fitted over two halves of the measured split.

    ``ece`` is the expected calibration error over ten bins. Below ``perfect_p95`` it cannot be distinguished from that
    of a perfectly calibrated model with the same confidences. ``nll`` is the mean negative log-likelihood in nats.
    """

    ece_before: float
    ece: float
    perfect_p95: float
    nll_before: float
    nll: float


class Abstention(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The model abstains below the probability ``threshold``.

    It classifies the share ``coverage`` of the faces, with the accuracy ``accuracy``.
    """

    threshold: float
    coverage: float
    accuracy: float


class Tolerance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far one runtime's int8 logits differ from those of the runtime that made the golden outputs.

    ``largest_lsb`` is the largest difference on any tested face, in quantization steps; ``agreement`` is the share of
    the measured split's faces with the same likeliest label.
    """

    runtime: str
    largest_lsb: int
    agreement: float


class EdgeTpuFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The same network compiled for the Edge TPU: the file's hash, and how many of its ops run there.

    ``compiler`` is the version from the compiler's output or log, None when there was neither.
    """

    sha256: str
    compiler: str | None
    mapped_ops: int
    cpu_ops: int


class _Version(msgspec.Struct):
    """The one field that cards of all versions have."""

    schema_version: int


class Card(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The contract that travels with a model.

    ``labels`` name the network's outputs, in their order; edge.labels says which names are possible. ``crop_margin``
    and ``temperature`` are those of edge.model.preprocessing, ``events`` the thresholds of edge.events.episodes, tuned
    by ``fer-export episodes``. ``ops`` counts the network's ops by name. The golden outputs were made by
    ``golden_runtime`` on ``golden_machine``, which must reproduce them exactly; ``tolerances`` says how far other
    runtimes differ. Version 5 differs from 4 in ``origin`` alone.
    """

    schema_version: Literal[4, 5]
    name: str
    sha256: str
    labels: Labels
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

    @property
    def threshold(self) -> float:
        """The probability below which the expression is uncertain."""
        return self.abstention.threshold

    def allowed_lsb(self, runtime: str, machine: str) -> int:
        """How many quantization steps an int8 logit of ``runtime`` on ``machine`` may differ from the golden one.

        0 where the golden outputs were made; elsewhere what was measured for that runtime, or the largest of any.
        """
        if (runtime, machine) == (self.golden_runtime, self.golden_machine):
            return 0
        measured = {tolerance.runtime: tolerance.largest_lsb for tolerance in self.tolerances}
        return measured.get(runtime, max(measured.values(), default=0))


@dataclass(frozen=True)
class GoldenScene:
    """A synthetic picture, and the results of preparing it for the network where the model was made.

    ``jpeg`` is the picture in colour as a camera sends it, ``luma`` its full-range grey, ``(height, width)`` uint8.
    ``crops`` are the ``(n, 48, 48)`` uint8 faces that were cropped from ``luma`` at ``boxes`` with ``margin`` (see
    edge.model.preprocessing.crop).
    """

    jpeg: bytes
    luma: Gray
    boxes: tuple[Box, ...]
    margin: float
    crops: NDArray[np.uint8]


@dataclass(frozen=True)
class Golden:
    """Golden outputs: synthetic inputs, and the model's outputs for them where it was made.

    ``faces`` is ``(n, 48, 48)`` uint8, ``outputs`` ``(n, len(labels))`` int8. ``scene`` checks the preparation
    of pictures.
    """

    faces: NDArray[np.uint8]
    outputs: NDArray[np.int8]
    labels: Labels
    scene: GoldenScene


@dataclass(frozen=True)
class Bundle:
    """An opened bundle whose parts match its card; ``edgetpu_model`` is None without a file for the Edge TPU."""

    folder: Path
    model: bytes
    card: Card
    golden: Golden
    edgetpu_model: bytes | None = None


def bundled() -> list[str]:
    """Names of the bundled models, which are installed with the program; DEFAULT is one."""
    return sorted(folder.name for folder in _bundles_folder().iterdir() if (folder / CARD_FILE).is_file())


def find_bundle(name: str) -> Path:
    """The folder of a bundled model by name (empty: DEFAULT), or of a bundle by path. Raises BundleError.

    What has a slash is a path: ``./student`` is a folder here. A warning tells when a name could mean either.
    """
    name = name or DEFAULT
    own, here = _bundles_folder() / name, Path(name)
    if os.sep not in name and is_file(own / CARD_FILE):
        if is_folder(here) and not here.samefile(own):
            _log.warning("%s is the bundled model; the folder here is ./%s", name, name)
        return own
    if is_file(here / CARD_FILE):
        return here
    if is_forbidden(Path(name) / CARD_FILE):
        raise BundleError(f"{name}: this user may not read it, or not a folder that leads to it")
    raise BundleError(f"{name}: neither a bundled model ({', '.join(bundled())}) nor a folder with a {CARD_FILE}")


def _bundles_folder() -> Path:
    return Path(str(resources.files("edge"))) / "bundles"


def open_bundle(folder: Path, labels: Labels = ()) -> Bundle:
    """Read a bundle and check its parts against its card. Raises BundleError, which says what differs.

    With ``labels``, the card must have these in this order. An Edge TPU file that the card does not state is ignored:
    an interrupted ``fer-export add-tpu`` leaves one. Root reads with the rights of the folder's owner.
    """
    with rights_of_owner(folder):
        return _open_bundle(folder, labels)


def _open_bundle(folder: Path, labels: Labels) -> Bundle:
    card = read_card(folder)
    if labels and card.labels != labels:
        raise BundleError(f"{folder}: its labels are {', '.join(card.labels)}; needed are {', '.join(labels)}")
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


def read_card(folder: Path) -> Card:
    """Read a bundle's card alone. Raises BundleError. Root reads with the rights of the folder's owner."""
    file = folder / CARD_FILE
    with rights_of_owner(folder):
        content = _read(file)
    try:
        version = msgspec.json.decode(content, type=_Version).schema_version
        if not _OLDEST_CARD_VERSION <= version <= _CARD_VERSION:
            remedy = "make the bundle again with its fer-export" if version < _CARD_VERSION else "upgrade fer-edge"
            raise BundleError(
                f"{file}: a card of version {version}, and this fer-edge reads {_READ_VERSIONS}: {remedy}"
            )
        card = msgspec.json.decode(content, type=Card)
    except MALFORMED_JSON as error:
        raise BundleError(f"{file}: not a card of version {_READ_VERSIONS}: {error}") from error
    if problem := label_problem(card.labels):
        raise BundleError(f"{file}: {problem}")
    return card


def _read_golden(file: Path, card: Card) -> Golden:
    try:
        content = io.BytesIO(read_regular(file, MAX_BYTES[file.name]))
        with zipfile.ZipFile(content) as archive:
            if sum(part.file_size for part in archive.infolist()) > _MAX_GOLDEN_BYTES:
                raise BundleError(
                    f"{file}: unpacks to more than {_MAX_GOLDEN_BYTES} bytes, which golden outputs never do"
                )
        with np.load(content, allow_pickle=False) as stored:
            golden = _golden_of(dict(stored))
    except KeyError as error:
        raise BundleError(f"{file}: {error.args[0]}. Make it again: fer-export golden {file.parent}") from error
    except _UNREADABLE as error:
        raise BundleError(f"{file}: not readable golden outputs: {error}") from error
    if golden.labels != card.labels:
        raise BundleError(f"{file}: its labels are {', '.join(golden.labels)}, the card's {', '.join(card.labels)}")
    if golden.scene.margin != card.crop_margin:
        raise BundleError(
            f"{file}: its faces were cropped with a margin of {golden.scene.margin:g}, the card says "
            f"{card.crop_margin:g}. Copy the bundle again."
        )
    return golden


def _golden_of(stored: dict[str, NDArray[Any]]) -> Golden:
    """Check and convert the arrays. Raises KeyError for a missing one, ValueError for one of a wrong type or shape."""
    if odd := [name for name, array in stored.items() if not isinstance(array, np.ndarray)]:
        raise ValueError(f"{odd[0]} is no array")  # numpy gives the bytes of a part that is none
    boxes = _array(stored, "boxes", np.int64, (None, 4))
    scene = GoldenScene(
        _array(stored, "scene_jpeg", np.uint8, (None,)).tobytes(),
        _array(stored, "scene", np.uint8, (None, None)),
        tuple(Box(*map(int, box)) for box in boxes),
        float(_array(stored, "margin", np.float64, ())),
        _array(stored, "crops", np.uint8, (len(boxes), INPUT_SIZE, INPUT_SIZE)),
    )
    _check_geometry(scene)
    faces = _array(stored, "faces", np.uint8, (None, INPUT_SIZE, INPUT_SIZE))
    labels = _labels(stored)
    return Golden(faces, _array(stored, "outputs", np.int8, (len(faces), len(labels))), labels, scene)


def _labels(stored: dict[str, NDArray[Any]]) -> Labels:
    """The names of the labels. Raises KeyError and ValueError as _golden_of does."""
    if "labels" not in stored:
        raise KeyError("it lacks 'labels', so it is of an older version")
    array = stored["labels"]
    codes = np.frombuffer(array.tobytes(), np.dtype(np.uint32).newbyteorder(array.dtype.byteorder))
    if array.dtype.kind != "U" or (codes > sys.maxunicode).any():  # numpy makes strings of them that break Python's
        raise ValueError("its labels are no text")
    return tuple(str(name) for name in array.ravel())


def _check_geometry(scene: GoldenScene) -> None:
    """Raise ValueError when the faces cannot be cropped from the scene, or only with much memory."""
    height, width = scene.luma.shape
    for box in scene.boxes:
        if not (0 <= box.x < width and 0 <= box.y < height and 0 < box.w <= width and 0 < box.h <= height):
            raise ValueError(f"{box} is not inside the {width}x{height} picture")
    if not -0.4 <= scene.margin <= 4:
        raise ValueError(f"{scene.margin} is no margin")


def _array(stored: dict[str, NDArray[Any]], name: str, dtype: type, shape: tuple[int | None, ...]) -> NDArray[Any]:
    """One array, of this type and shape; None stands for any length but 0."""
    if name not in stored:
        raise KeyError(f"it lacks {name!r}, so it is of an older version")
    array = stored[name]
    fits = (
        array.ndim == len(shape)
        and all(array.shape)
        and all(wanted in (None, found) for wanted, found in zip(shape, array.shape, strict=True))
    )
    if not fits or array.dtype != dtype:
        wanted = ", ".join("n" if size is None else str(size) for size in shape)
        raise ValueError(f"{name} are {array.dtype} {array.shape}, not {np.dtype(dtype)} ({wanted})")
    return array


def _read(file: Path) -> bytes:
    try:
        return read_regular(file, MAX_BYTES[file.name])
    except OSError as error:
        raise BundleError(f"{file}: cannot be read: {error.strerror}. Copy the bundle again.") from error
