"""Initialize networks from published weights (``--weights``).

``none`` means random weights. ``imagenet`` and ``vggface`` are downloaded into ``~/.keras``, as ``keras.applications``
does it. Anything else is the path of a file. ``docs/models.md`` lists licences and provenance.
"""

import contextlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
import tf_keras as keras
from numpy.typing import NDArray

from edge.errors import DataError, UsageError
from edge.model.origin import Source
from train.init.faceres import load_faceres
from train.models.registry import Architecture
from train.models.resnet import BACKBONE
from train.sources import PUBLISHED_FILES, sha256_of


@dataclass(frozen=True)
class Download:
    """A published file: its address, the folder under ``~/.keras`` to store it in, and its MD5 if published."""

    url: str
    folder: str
    md5: str | None


@dataclass(frozen=True)
class PublishedWeights:
    """Weights that others trained: the file's name in train.sources.PUBLISHED_FILES, and how to load them.

    ``load(model, file, faces)`` raises DataError when the file is not these weights.
    """

    file: str
    load: Callable[[Any, Path, NDArray[np.float32]], None]
    download: Download | None = None


def weights_sources(architecture: Architecture, source: str) -> tuple[Source, ...]:
    """The files of ``--weights SOURCE``, with origin, licence and sha256; none for random weights.

    Downloads the file if needed. Raises UsageError when the architecture does not take that source, DataError when the
    file cannot be downloaded.
    """
    found = _find(architecture, source)
    return _sources(*found) if found else ()


def load_weights(model: Any, architecture: Architecture, source: str, faces: NDArray[np.float32]) -> None:
    """Load ``--weights SOURCE`` into ``model``.

    ``faces`` is ``(n, 48, 48, 1)`` normalized training faces, for weights without batch-norm statistics. Raises what
    ``weights_sources`` raises, and DataError when the file does not fit the model.
    """
    found = _find(architecture, source)
    if found:
        published, file = found
        published.load(model, file, faces)


def _find(architecture: Architecture, source: str) -> tuple[PublishedWeights, Path] | None:
    if source == "none":
        return None
    if architecture.weights is None:
        others = f" of {' or '.join(architecture.sources[1:])}"
        own = f"a run or bundle of it or{others}" if architecture.sources[1:] else "an earlier run of it"
        raise UsageError(f"--weights {source}: {architecture.name} takes none, or {own}")
    published = PUBLISHED[architecture.weights]
    if published.download and source == architecture.weights:
        return published, _download(source, published.file, published.download)
    file = Path(source)
    if not file.is_file():
        named = f"{architecture.weights}, " if published.download else ""
        raise UsageError(
            f"--weights {source}: {architecture.name} takes {named}none, or the path of {published.file}, but "
            f"there is no file {source}"
        )
    return published, file


def _sources(published: PublishedWeights, file: Path) -> tuple[Source, ...]:
    # a TensorFlow.js manifest has its values in a file beside it
    parts = dict.fromkeys(part for part in (file, file.with_suffix(".bin")) if part.is_file())
    origin, licence = PUBLISHED_FILES[published.file]
    return tuple(Source("start", part.name, origin, licence, sha256_of(part)) for part in parts)


def _download(name: str, file: str, download: Download) -> Path:
    """The file in Keras's folder; Keras downloads it if it is missing, and prints to stderr."""
    home = Path.home() / ".keras"
    try:
        home.mkdir(exist_ok=True)
        with contextlib.redirect_stdout(sys.stderr):
            fetched = keras.utils.get_file(
                file, download.url, cache_dir=home, cache_subdir=download.folder, file_hash=download.md5
            )
    except Exception as error:  # Keras wraps what urllib raises in a plain Exception
        checked = f" (MD5 {download.md5})" if download.md5 else ""
        raise DataError(
            f"--weights {name}: {file} is not in {home / download.folder} and could not be downloaded: "
            f"{error.__context__ or error}. Save {download.url}{checked} there, or give its path: --weights PATH"
        ) from error
    return Path(fetched)


def _load_nested(model: Any, file: Path, _faces: NDArray[np.float32]) -> None:
    """Load a Keras HDF5 file into the backbone, which is a nested model."""
    backbone = model.get_layer(BACKBONE)
    _load_keras(model, backbone, backbone.layers, file)


def _load_features(model: Any, file: Path, _faces: NDArray[np.float32]) -> None:
    """Load a Keras HDF5 file into all layers before ``pool``."""
    _load_keras(model, model, model.layers[: model.layers.index(model.get_layer("pool"))], file)


def _load_keras(model: Any, target: Any, needed: list[Any], file: Path) -> None:
    """Load a Keras HDF5 file by layer name; it must have every needed layer, in the same shape."""
    try:
        with h5py.File(file) as stored:
            names = {_text(name) for name in stored.get("model_weights", stored).attrs["layer_names"]}
        missing = [layer.name for layer in needed if layer.weights and layer.name not in names]
        if missing:
            raise ValueError(f"it lacks {len(missing)} layers, the first is {missing[0]}")
        target.load_weights(file, by_name=True)
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{file}: not the weights of {model.name}: {error}") from error


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name


PUBLISHED: Final = {
    "imagenet": PublishedWeights(
        file="resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
        load=_load_nested,
        download=Download(
            "https://storage.googleapis.com/tensorflow/keras-applications/resnet/"
            "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
            folder="models",
            md5="4d473c1dd8becc155b73f8504c6f6626",
        ),
    ),
    "vggface": PublishedWeights(
        file="rcmalli_vggface_tf_notop_resnet50.h5",
        load=_load_nested,
        download=Download(
            "https://github.com/rcmalli/keras-vggface/releases/download/v2.0/rcmalli_vggface_tf_notop_resnet50.h5",
            folder="models/vggface",
            md5=None,
        ),
    ),
    "faceres": PublishedWeights(
        file="faceres.json",
        load=load_faceres,
    ),
    "facenet": PublishedWeights(
        file="facenet_keras_2024.h5",
        load=_load_features,
    ),
}
"""All published weights by the name that ``Architecture.weights`` gives them."""
