"""Read a network as somebody saved it (Keras, SavedModel, TFLite), as the bytes of a ``.tflite`` file.

No code of the file is run: what a Keras file describes is checked first (keras_config), and layers are built by Keras
itself. A SavedModel is a graph of TensorFlow's ops, which TensorFlow loads. docs/import.md says what that means.
"""

import hashlib
import json
import os
import re
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import h5py
import tensorflow as tf
import tf_keras
from tensorflow.lite.python.convert import ConverterError
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from edge.errors import BundleError
from edge.model.bundle import CARD_FILE
from edge.untrusted_file import is_file, is_folder, require_regular
from export.importing.face_input import FaceInput, Shape, check_scores, face_input
from export.importing.keras_config import in_float32, problems
from export.importing.limits import check_size
from export.quantization.errors import ConversionError
from export.quantization.native import native_messages_hidden
from export.tflite_graph import EDGE_TPU_OP, IDENTIFIER, Graph, Tensor, read_file, read_graph

_HDF5: Final = b"\x89HDF\r\n\x1a\n"
_ZIP: Final = b"PK\x03\x04"
_MODEL_FORMS: Final = "a Keras file (.keras, .h5), a SavedModel folder or a .tflite file"
_SIGNATURE: Final = "serving_default"
# What Keras and TensorFlow raise for files that they cannot load.
_UNLOADABLE: Final = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    ImportError,
    NotImplementedError,
    RuntimeError,
    OSError,
    zipfile.BadZipFile,
    tf.errors.OpError,
)
_AS_SAVED_MODEL: Final = (
    "Where its code is, save it as a SavedModel, which holds the computation instead: model.export('folder'), or with "
    "Keras 2 model.save('folder', save_format='tf'). Then import the folder."
)


@dataclass(frozen=True)
class SourceNetwork:
    """A network as it was saved.

    ``file`` is the network as a ``.tflite`` file, which ``graph`` describes; ``quantized`` says whether it computes in
    int8, else it does in float32. ``kind`` says what it was saved as. ``sha256`` is that of the file, or of the names
    and contents of a folder's files.
    """

    path: Path
    kind: str
    sha256: str
    file: bytes
    graph: Graph
    face: FaceInput
    quantized: bool


def read_source(path: Path, labels: Sequence[str]) -> SourceNetwork:
    """Read a network that gives one score for each of ``labels``.

    Raises BundleError for a file that is no network, is damaged, needs code, or does not take faces; UsageError when it
    has another number of scores; ConversionError when TFLite lacks one of its ops or it is too large.
    """
    kind, file = _saved_model(path, labels) if is_folder(path) else _file(path, labels)
    graph = read_graph(file, path)
    quantized = _is_quantized(graph, path)
    check_size(file, 1 if quantized else 4, path)
    face = face_input([(tensor.name, _signature_shape(tensor)) for tensor in graph.inputs], path)
    check_scores([(tensor.name, tensor.shape) for tensor in graph.outputs], labels, path)
    return SourceNetwork(path, kind, _sha256(path), file, graph, face, quantized)


def _file(path: Path, labels: Sequence[str]) -> tuple[str, bytes]:
    try:
        require_regular(path)
        with path.open("rb") as opened:
            start = opened.read(8)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror or error}. Give {_MODEL_FORMS}.") from error
    if start == _HDF5:
        return _keras(path, labels, *_hdf5_config(path))
    if start[:4] == _ZIP:
        return _keras(path, labels, *_zip_config(path))
    if start[4:8] == IDENTIFIER:
        return "TFLite", read_file(path)
    raise BundleError(f"{path}: no network that can be imported: {_advice(path)}")


def _advice(path: Path) -> str:
    """What to bring instead of a file of another format."""
    ending = path.suffix.lower()
    if ending in {".pt", ".pth", ".onnx", ".safetensors"}:
        return f"PyTorch and ONNX files are not read. Convert it to float32 .tflite, and give {_MODEL_FORMS}."
    if ending == ".pb":
        return "give the folder of a SavedModel, not the saved_model.pb in it."
    return f"its content is none of these. Give {_MODEL_FORMS}."


def _hdf5_config(path: Path) -> tuple[str, Any, str]:
    """The version of Keras that saved an HDF5 file, its network's description, and the name of the format."""
    try:
        with h5py.File(path) as stored:
            attributes = dict(stored.attrs)
    except _UNLOADABLE as error:
        raise BundleError(f"{path}: a damaged HDF5 file: {error}. Copy or save it again.") from error
    if "model_config" not in attributes:
        raise BundleError(
            f"{path}: holds weights but no network. Load them in your code, save the whole with "
            "model.save('model.keras'), and give that file."
        )
    return _text(attributes.get("keras_version", "")), _json(_text(attributes["model_config"]), path), "HDF5"


def _zip_config(path: Path) -> tuple[str, Any, str]:
    """The same of a .keras file, which is a zip."""
    try:
        with zipfile.ZipFile(path) as stored:
            if "config.json" not in stored.namelist():
                raise BundleError(f"{path}: a zip, but no .keras file: it has no config.json. Give {_MODEL_FORMS}.")
            config, metadata = (_json(stored.read(name), path) for name in ("config.json", "metadata.json"))
    except _UNLOADABLE as error:
        raise BundleError(f"{path}: a damaged .keras file: {error}. Copy or save it again.") from error
    version = metadata.get("keras_version", "") if isinstance(metadata, dict) else ""
    return str(version), config, ".keras"


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _json(text: str | bytes, path: Path) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: its description of the network is damaged: {error}. Save it again.") from error


def _keras(path: Path, labels: Sequence[str], version: str, config: Any, form: str) -> tuple[str, bytes]:
    keras = _keras_of(version)
    layers = frozenset(name for name in dir(keras.layers) if name[:1].isupper())
    if found := problems(config, layers):
        listed = "".join(f"\n  {problem}" for problem in found)
        raise BundleError(f"{path}: cannot be rebuilt without code of its author:{listed}\n{_AS_SAVED_MODEL}")
    try:
        # Keras tells the formats apart by the ending of the name, which may be any here.
        with _named(path, ".h5" if form == "HDF5" else ".keras") as named:
            model = keras.models.load_model(named, compile=False, safe_mode=True)
        if in_float32(config) != config:
            model = _rebuilt_in_float32(model)
    except _UNLOADABLE as error:
        raise BundleError(
            f"{path}: Keras {keras.__version__} cannot rebuild this network of Keras {version or 'unknown'}: "
            f"{_first_line(error)}. {_AS_SAVED_MODEL}"
        ) from error
    # A Sequential that was never given its input's shape has none.
    inputs = [(tensor.name, tuple(tensor.shape)) for tensor in getattr(model, "inputs", None) or ()]
    face = face_input(inputs, path)
    check_scores([(tensor.name, tuple(tensor.shape)) for tensor in model.outputs], labels, path)
    return f"Keras {version or '1'} {form}", _converted(lambda x: model(x, training=False), face, path)


def _rebuilt_in_float32(model: Any) -> Any:
    rebuilt = type(model).from_config(in_float32(model.get_config()))
    rebuilt.set_weights(model.get_weights())
    return rebuilt


def _keras_of(version: str) -> Any:
    """The Keras that reads files of a version: the legacy one before 3."""
    if not re.match(r"[3-9]\.", version):
        return tf_keras
    os.environ["KERAS_BACKEND"] = "tensorflow"  # whatever the user's own projects use
    import keras  # noqa: PLC0415  it takes a second, and writes ~/.keras

    return keras


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")


def _saved_model(folder: Path, labels: Sequence[str]) -> tuple[str, bytes]:
    if is_file(folder / CARD_FILE):
        raise BundleError(f"{folder}: is a bundle already: it has a {CARD_FILE}. Use it as it is.")
    if is_file(folder / "run.json"):
        raise BundleError(f"{folder}: a run of fer-train. Use: fer-export bundle {folder} --data PATH --out DIR")
    if not is_file(folder / "saved_model.pb"):
        raise BundleError(f"{folder}: no SavedModel: it has no saved_model.pb. Give {_MODEL_FORMS}.")
    try:
        loaded = tf.saved_model.load(str(folder))
        version = str(getattr(loaded, "tensorflow_version", "")) or "unknown"
        signatures = dict(loaded.signatures)
    except _UNLOADABLE as error:
        raise BundleError(f"{folder}: TensorFlow cannot load this SavedModel: {_first_line(error)}") from error
    if _SIGNATURE not in signatures:
        raise BundleError(
            f"{folder}: has no signature {_SIGNATURE}, only: {', '.join(signatures) or 'none'}. Save it with "
            "model.export('folder')."
        )
    serve = signatures[_SIGNATURE]
    specs = serve.structured_input_signature[1]
    face = face_input([(name, _shape(spec)) for name, spec in specs.items()], folder)
    check_scores([(name, _shape(spec)) for name, spec in serve.structured_outputs.items()], labels, folder)
    [(name, spec)] = specs.items()
    if spec.dtype != tf.float32:
        raise BundleError(f"{folder}: its input is {spec.dtype.name}, expected float32. Export it without that cast.")
    return f"SavedModel of TensorFlow {version}", _converted(
        lambda x: next(iter(serve(**{name: x}).values())), face, folder
    )


def _shape(spec: Any) -> Shape:
    return tuple(spec.shape.as_list()) if spec.shape.rank is not None else ()


def _converted(forward: Callable[[Any], Any], face: FaceInput, path: Path) -> bytes:
    """A float32 ``.tflite`` file of what ``forward`` computes for one face."""
    spec = tf.TensorSpec((1, face.side, face.side, face.channels), tf.float32, name="face")
    try:
        with native_messages_hidden():
            frozen = convert_variables_to_constants_v2(tf.function(forward).get_concrete_function(spec))
            return bytes(tf.lite.TFLiteConverter.from_concrete_functions([frozen], tf.Module()).convert())
    except ConverterError as error:
        raise ConversionError(f"{path}: {_missing_ops(str(error))}") from error
    except _UNLOADABLE as error:
        raise ConversionError(f"{path}: cannot be computed for one face: {_first_line(error)}") from error


def _missing_ops(message: str) -> str:
    """The ops that TFLite lacks, one a line, from the converter's message."""
    details = message.partition("Details:\n")[2].splitlines()
    calls = [line.strip().partition(" : ")[0] for line in details if line.startswith("\t")]
    if not calls:
        return f"TensorFlow cannot convert it to TFLite: {_first_line(ValueError(message))}"
    listed = "".join(f"\n  {call}" for call in calls)
    advice = "Replace them, and train it again."
    if any("f16" in call for call in calls):
        advice = "It computes in float16 or bfloat16. Bring its Keras file, which is read in float32."
    return f"TFLite lacks ops of this network, so no device can run it:{listed}\n{advice}"


def _signature_shape(tensor: Tensor) -> Shape:
    """The shape of a file's input; its height and width are None when they are not fixed."""
    sizes = enumerate(tensor.shape)
    return tuple(None if tensor.dynamic and size == 1 and axis in {1, 2} else size for axis, size in sizes)


def _is_quantized(graph: Graph, path: Path) -> bool:
    """Whether a network computes in int8. Raises BundleError when it computes neither in that nor in float32."""
    bring = "Bring the float32 file or the Keras file that it was made from"
    for op in graph.ops:
        data = {tensor.dtype for tensor in op.inputs if tensor and not tensor.constant}
        constants = {tensor.dtype for tensor in op.inputs if tensor and tensor.constant}
        if op.name == EDGE_TPU_OP:
            raise BundleError(f"{path}: is compiled for the Edge TPU, so its weights cannot be read. {bring}.")
        if "FLOAT16" in data | constants:
            raise BundleError(f"{path}: op {op.index}, {op.name}, has float16 weights. {bring}.")
        if "FLOAT32" in data and constants & {"INT8", "UINT8", "INT4"}:
            raise BundleError(
                f"{path}: op {op.index}, {op.name}, has int8 weights but float32 activations (dynamic-range "
                f"quantization), which cannot become int8. {bring}, or an int8 file."
            )
        if op.name in {"CONV_2D", "FULLY_CONNECTED"} and "UINT8" in data:
            raise BundleError(f"{path}: computes in uint8, as files of before 2020; devices take int8. {bring}.")
    return any(tensor.dtype == "INT8" for op in graph.ops for tensor in op.outputs)


def _sha256(path: Path) -> str:
    if not is_folder(path):
        return hashlib.sha256(read_file(path)).hexdigest()
    digest = hashlib.sha256()
    for file in sorted(found for found in path.rglob("*") if is_file(found)):
        content = read_file(file)
        digest.update(f"{file.relative_to(path).as_posix()}\0{len(content)}\0".encode(errors="surrogateescape"))
        digest.update(content)
    return digest.hexdigest()


@contextmanager
def _named(path: Path, ending: str) -> Iterator[str]:
    """The path of a file under a name with this ending, by which Keras knows its format."""
    if path.suffix == ending:
        yield str(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / f"network{ending}"
        link.symlink_to(path.resolve())
        yield str(link)
