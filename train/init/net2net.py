"""Net2Net (Chen et al. 2016, arXiv 1511.05641): initialize the ResNet50 teacher with the function of a trained student.

The transformation preserves the function across architectures. A depthwise-separable block equals a bottleneck block
whose first 1x1 convolution copies channels, whose 3x3 convolution reads one channel per filter, and whose last 1x1
convolution is the pointwise one. Filters of ResNet50 without a counterpart in the student keep their random weights;
their outputs are not read at first.

A bottleneck block ends in a sum with its input, which a student's block does not. So the channels of each stage are
divided into four groups. Each block writes its output into an empty group, and the next block reads that group. In a
stage of more than four blocks, a block also clears the group that the next block writes: its bias of -6 does that,
because ReLU6 limits activations to 6.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np
import tf_keras as keras

from train.init.batch_norm import Values
from train.models.resnet import RELU_CEILING

# The student's block number by the bottleneck block that computes it. Its block 1 is in the stem and the first 1x1.
_STUDENT_BLOCKS: Final = {
    **{"conv2_1": 2, "conv2_2": 3, "conv3_1": 4, "conv3_2": 5},
    **{f"conv4_{number}": number + 5 for number in range(1, 7)},
    **{"conv5_1": 12, "conv5_2": 13},
}
_GROUPS: Final = 4
# Value of an empty group. It is not 0, because the gradient of ReLU is 0 there and nothing would be learned.
_EMPTY_VALUE: Final = 0.01

BatchNormWeights = Sequence[Values]
"""Gamma, beta, mean and variance, each with one value per channel."""


def initialize_function_preserving(model: Any, source: Any, faces: Values) -> None:
    """Set the weights of ``model``, train.models.resnet.teacher, so that it computes the same logits as ``source``.

    ``source`` is a student whose depthwise convolutions have at most as many channels as the 3x3 convolutions of the
    corresponding bottleneck blocks: ``student-half`` or a smaller one. ``faces`` is ``(n, 48, 48, 1)`` normalized
    float32; a few hundred are enough to measure the batch-norm statistics of copied channels.
    """
    _set_filters(model, "conv1_1_3x3", _kernel_of(source, "conv1"), _norm_of(source, "conv1"))
    _set_filters(model, "conv1_2_3x3", _dense_kernel(_kernel_of(source, "conv_dw_1")), _norm_of(source, "conv_dw_1"))
    _set_filters(model, "conv2_1_1x1_reduce", _kernel_of(source, "conv_pw_1"), _norm_of(source, "conv_pw_1"))
    identities = _identity_norms(source, faces)
    for previous, block in pairwise(_STUDENT_BLOCKS):
        norm = identities[_STUDENT_BLOCKS[previous]]
        identity = np.eye(len(norm[0]), dtype=np.float32)[np.newaxis, np.newaxis]
        _set_filters(model, f"{block}_1x1_reduce", identity, norm, reads=_group_start(model, previous))
    for block, number in _STUDENT_BLOCKS.items():
        _set_block(model, source, block, number)
    _clear_shortcuts(model)
    _set_logits(model.get_layer("logits"), source.get_layer("logits"), _group_start(model, [*_STUDENT_BLOCKS][-1]))


def _set_block(model: Any, source: Any, block: str, number: int) -> None:
    """Make the 3x3 and last 1x1 convolution of a bottleneck block compute the student's block ``number``."""
    depthwise, pointwise = f"conv_dw_{number}", f"conv_pw_{number}"
    _set_filters(model, f"{block}_3x3", _dense_kernel(_kernel_of(source, depthwise)), _norm_of(source, depthwise))
    gamma, beta, *statistics = _norm_of(source, pointwise)
    previous_value = 0.0 if _reuses_group(block) else _EMPTY_VALUE
    _set_filters(
        model,
        f"{block}_1x1_increase",
        _kernel_of(source, pointwise),
        [gamma, beta - previous_value, *statistics],
        writes=_group_start(model, block),
    )
    following = block[:-1] + str(int(block[-1]) + 1)
    if _reuses_group(following):
        norm = model.get_layer(f"{block}_1x1_increase/bn")
        gamma, beta, *statistics = norm.get_weights()
        beta[_group_start(model, following) :][: len(beta) // _GROUPS] = -RELU_CEILING
        norm.set_weights([gamma, beta, *statistics])


def _clear_shortcuts(model: Any) -> None:
    """Make the shortcuts of each stage's first block constant, so that they add nothing of the previous stage."""
    for stage in (2, 3, 4, 5):
        norm = model.get_layer(f"conv{stage}_1_1x1_proj/bn")
        gamma, beta, *statistics = norm.get_weights()
        norm.set_weights([np.zeros_like(gamma), np.full_like(beta, _EMPTY_VALUE), *statistics])


def _set_logits(logits: Any, source: Any, first: int) -> None:
    """Make the last layer read the channels from ``first`` on with the weights of the student's last layer."""
    whole, _ = logits.get_weights()
    kernel, bias = source.get_weights()
    whole[:] = 0
    whole[first : first + len(kernel)] = kernel
    logits.set_weights([whole, bias])


def _reuses_group(block: str) -> bool:
    """Whether a bottleneck block writes a group that an earlier block of its stage wrote too."""
    return block in _STUDENT_BLOCKS and int(block[-1]) > _GROUPS


def _group_start(model: Any, block: str) -> int:
    """The first channel of the group that a bottleneck block writes."""
    channels = model.get_layer(f"{block}_1x1_increase").filters
    return int((int(block[-1]) - 1) % _GROUPS * channels // _GROUPS)


def _identity_norms(source: Any, faces: Values) -> dict[int, BatchNormWeights]:
    """By the student's block number, batch-norm weights that leave the block's output unchanged."""
    outputs = keras.Model(
        source.input, [source.get_layer(f"conv_pw_{n}_relu").output for n in _STUDENT_BLOCKS.values()]
    )(faces)
    norms: dict[int, BatchNormWeights] = {}
    for number, x in zip(_STUDENT_BLOCKS.values(), outputs, strict=True):
        mean, variance = x.numpy().mean((0, 1, 2)), x.numpy().var((0, 1, 2))
        norms[number] = [np.sqrt(variance + source.get_layer("conv1_bn").epsilon), mean, mean, variance]
    return norms


def _set_filters(
    model: Any, name: str, kernel: Values, norm: BatchNormWeights, reads: int = 0, writes: int = 0
) -> None:
    """Set filters and their batch norm, from number ``writes`` on; they read only the channels from ``reads`` on."""
    rows, filters = (slice(start, start + n) for start, n in zip((reads, writes), kernel.shape[2:], strict=True))
    (whole,) = model.get_layer(name).get_weights()
    whole[..., filters] = 0
    whole[:, :, rows, filters] = kernel
    model.get_layer(name).set_weights([whole])
    values = model.get_layer(f"{name}/bn").get_weights()
    for of_all, of_these in zip(values, norm, strict=True):
        of_all[filters] = of_these
    model.get_layer(f"{name}/bn").set_weights(values)


def _kernel_of(source: Any, name: str) -> Values:
    kernel: Values = source.get_layer(name).get_weights()[0]
    return kernel


def _norm_of(source: Any, name: str) -> BatchNormWeights:
    norm: BatchNormWeights = source.get_layer(f"{name}_bn").get_weights()
    return norm


def _dense_kernel(depthwise: Values) -> Values:
    """A depthwise kernel ``(h, w, c, 1)`` as the kernel of a dense convolution, ``(h, w, c, c)``."""
    return np.asarray(depthwise * np.eye(depthwise.shape[2], dtype=np.float32), np.float32)
