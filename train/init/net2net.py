"""Start the ResNet50 teacher as a network that computes what a trained student computes, and learn on from there.

Net2Net (Chen et al. 2016, arXiv 1511.05641) across architectures. A depthwise-separable block is a bottleneck block
whose first 1x1 convolution passes channels on, whose 3x3 reads for each filter one channel alone, and whose last 1x1 is
the pointwise convolution. What a student lacks of ResNet50 keeps its random weights, and adds nothing at first.

The sum at the end of a bottleneck block is no part of a student. So the channels of each stage count as four groups:
a block writes what it computes into a group that holds nothing yet, and the next block reads that one. Where a stage
has more than four blocks, a block also empties the group that the next one will write: ReLU6 lets nothing over 6 in,
so a bias of -6 does.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np
import tf_keras as keras

from train.init.batch_norm import Values
from train.models.resnet import CEILING

# The student's blocks by the bottleneck block that computes them; its first is in the stem and the first 1x1.
_PLACES: Final = {
    **{"conv2_1": 2, "conv2_2": 3, "conv3_1": 4, "conv3_2": 5},
    **{f"conv4_{number}": number + 5 for number in range(1, 7)},
    **{"conv5_1": 12, "conv5_2": 13},
}
_GROUPS: Final = 4
# What an empty group holds: ReLU passes no gradient at 0, and what is never passed is never learnt.
_EMPTY: Final = 0.01

BatchNormWeights = Sequence[Values]
"""Gamma, beta, mean and variance, a channel each."""


def initialize_function_preserving(model: Any, source: Any, faces: Values) -> None:
    """Give ``model``, train.models.resnet.teacher, weights with which it computes what ``source`` does.

    ``source`` is a student whose depthwise convolutions have no more channels than the 3x3 of their place, which
    holds up to ``student-half``. ``faces`` is ``(n, 48, 48, 1)`` normalized training faces; a few hundred serve to
    measure the statistics of channels that are passed on.
    """
    _write(model, "conv1_1_3x3", _kernel(source, "conv1"), _norm(source, "conv1"))
    _write(model, "conv1_2_3x3", _diagonal(_kernel(source, "conv_dw_1")), _norm(source, "conv_dw_1"))
    _write(model, "conv2_1_1x1_reduce", _kernel(source, "conv_pw_1"), _norm(source, "conv_pw_1"))
    passed = _passed(source, faces)
    for before, place in pairwise(_PLACES):
        norm = passed[_PLACES[before]]
        identity = np.eye(len(norm[0]), dtype=np.float32)[np.newaxis, np.newaxis]
        _write(model, f"{place}_1x1_reduce", identity, norm, reads=_start(model, before))
    for place, number in _PLACES.items():
        _compute(model, source, place, number)
    _empty_shortcuts(model)
    _read_answers(model.get_layer("logits"), source.get_layer("logits"), _start(model, [*_PLACES][-1]))


def _compute(model: Any, source: Any, place: str, number: int) -> None:
    """Let the bottleneck block ``place`` compute the student's block ``number``, behind what its first 1x1 passes."""
    depthwise, pointwise = f"conv_dw_{number}", f"conv_pw_{number}"
    _write(model, f"{place}_3x3", _diagonal(_kernel(source, depthwise)), _norm(source, depthwise))
    gamma, beta, *statistics = _norm(source, pointwise)
    held = 0.0 if _emptied(place) else _EMPTY
    _write(
        model,
        f"{place}_1x1_increase",
        _kernel(source, pointwise),
        [gamma, beta - held, *statistics],
        writes=_start(model, place),
    )
    following = place[:-1] + str(int(place[-1]) + 1)
    if _emptied(following):
        norm = model.get_layer(f"{place}_1x1_increase/bn")
        gamma, beta, *statistics = norm.get_weights()
        beta[_start(model, following) :][: len(beta) // _GROUPS] = -CEILING
        norm.set_weights([gamma, beta, *statistics])


def _empty_shortcuts(model: Any) -> None:
    """Let the first block of each stage begin with nothing but what it computes itself."""
    for stage in (2, 3, 4, 5):
        norm = model.get_layer(f"conv{stage}_1_1x1_proj/bn")
        gamma, beta, *statistics = norm.get_weights()
        norm.set_weights([np.zeros_like(gamma), np.full_like(beta, _EMPTY), *statistics])


def _read_answers(logits: Any, source: Any, first: int) -> None:
    """Let the last layer read the channels from ``first`` on as the student's reads all of its own."""
    whole, _ = logits.get_weights()
    kernel, bias = source.get_weights()
    whole[:] = 0
    whole[first : first + len(kernel)] = kernel
    logits.set_weights([whole, bias])


def _emptied(place: str) -> bool:
    """Whether the group of a bottleneck block was used before."""
    return place in _PLACES and int(place[-1]) > _GROUPS


def _start(model: Any, place: str) -> int:
    """The first channel of the group that a bottleneck block writes."""
    channels = model.get_layer(f"{place}_1x1_increase").filters
    return int((int(place[-1]) - 1) % _GROUPS * channels // _GROUPS)


def _passed(source: Any, faces: Values) -> dict[int, BatchNormWeights]:
    """By the student's block, the batch norm that leaves its output as it is."""
    outputs = keras.Model(source.input, [source.get_layer(f"conv_pw_{n}_relu").output for n in _PLACES.values()])(faces)
    norms: dict[int, BatchNormWeights] = {}
    for number, x in zip(_PLACES.values(), outputs, strict=True):
        mean, variance = x.numpy().mean((0, 1, 2)), x.numpy().var((0, 1, 2))
        norms[number] = [np.sqrt(variance + source.get_layer("conv1_bn").epsilon), mean, mean, variance]
    return norms


def _write(model: Any, name: str, kernel: Values, norm: BatchNormWeights, reads: int = 0, writes: int = 0) -> None:
    """Set the filters of a convolution from ``writes`` on: they read the channels from ``reads`` on, and no others."""
    rows, filters = (slice(start, start + n) for start, n in zip((reads, writes), kernel.shape[2:], strict=True))
    (whole,) = model.get_layer(name).get_weights()
    whole[..., filters] = 0
    whole[:, :, rows, filters] = kernel
    model.get_layer(name).set_weights([whole])
    values = model.get_layer(f"{name}/bn").get_weights()
    for of_all, of_these in zip(values, norm, strict=True):
        of_all[filters] = of_these
    model.get_layer(f"{name}/bn").set_weights(values)


def _kernel(source: Any, name: str) -> Values:
    kernel: Values = source.get_layer(name).get_weights()[0]
    return kernel


def _norm(source: Any, name: str) -> BatchNormWeights:
    norm: BatchNormWeights = source.get_layer(f"{name}_bn").get_weights()
    return norm


def _diagonal(depthwise: Values) -> Values:
    """A depthwise kernel ``(h, w, c, 1)`` as that of a convolution, ``(h, w, c, c)``."""
    return np.asarray(depthwise * np.eye(depthwise.shape[2], dtype=np.float32), np.float32)
