"""``fer-train average``: the mean of several networks' weights, as a run that can be measured and exported.

Networks fine-tuned from the same weights lie in one basin of the loss. Their mean is often more accurate than each of
them (model soups, Wortsman et al. 2022, arXiv 2203.05482). The mean of a network fine-tuned on degraded pictures and of
one trained on clean pictures keeps most of the strengths of both (Wortsman et al. 2022, arXiv 2109.01903).

The statistics of the batch norms are measured again for the mean, as in stochastic weight averaging (Izmailov et al.
2018, arXiv 1803.05407). They are measured on unchanged training faces. Those that training leaves are of augmented and
degraded views, which are rarer on a device.
"""

import dataclasses
import shutil
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Final

import numpy as np
from tf_keras.layers import BatchNormalization

from edge.errors import UsageError
from edge.evaluation.fer2013 import LabelledFaces
from edge.evaluation.metrics import Figures
from edge.model.preprocessing import normalize
from train.checkpoints import BEST_WEIGHTS, writing_run
from train.initial_weights import InitialWeights, find_trained, statistics_faces
from train.outputs import check_folder, make_folder
from train.progress import print_line
from train.run import Run, data_options, named_weights, names_run
from train.sources import distinct, prefixed
from train.trainer import build_in_float32, measure_model

_TOLERANCE: Final = 1e-6
_STATISTICS_BATCH: Final = 256


def average_networks(
    members: Sequence[str], shares: Sequence[float], data: Sequence[Path], folder: Path
) -> tuple[Run, Figures]:
    """Write the mean of the members' weights to ``folder`` as a run; returns it, and its figures in single crop.

    Raises what ``describe_mean`` raises, and UsageError when the members were trained on other faces than those of
    ``data``, or when ``folder`` exists; CheckpointError when it cannot be written.
    """
    if folder.exists():
        raise UsageError(f"{folder} exists. Give another --out, or remove it.")
    check_folder(folder)
    run = describe_mean(members, shares, data)
    splits = run.faces(_first_run(members), data)
    faces = statistics_faces(splits.training)
    model = build_in_float32(dataclasses.replace(run.recipe, dropout=0.0))
    partial = folder.with_name(f"making.{folder.name}")  # so that a folder of this name is always whole
    shutil.rmtree(partial, ignore_errors=True)
    make_folder(partial)
    _set_mean(model, [weights for _, weights in map(_find_network, members)], _checked_shares(members, shares), faces)
    print_line(f"measuring batch norms on {len(splits.training):,} training faces; this takes a minute or more")
    measure_batch_norms(model, splits.training)
    with writing_run(folder):
        model.save_weights(partial / BEST_WEIGHTS)
        run.save(partial)
        partial.replace(folder)
    return run, measure_model(model, splits.public)


def describe_mean(members: Sequence[str], shares: Sequence[float], data: Sequence[Path]) -> Run:
    """The ``run.json`` of the mean of the members' weights.

    A member is a run folder, or a bundle's folder or name. At least one is a run: the first run provides recipe and
    votes. ``shares`` are the members' weights in the mean; empty: all the same. A single member keeps its weights, and
    only its batch norms are measured again. Raises UsageError when the members are not of one network, not finished or
    trained on different faces, and when the shares do not fit.
    """
    factors = _checked_shares(members, shares)
    networks = [_find_network(member) for member in members]
    first = Run.load(_first_run(members))
    for member, (network, _) in zip(members, networks, strict=True):
        if names_run(member):
            run = Run.load(Path(member))
            run.require_finished(Path(member))
            if run.training_sha256 != first.training_sha256:
                raise UsageError(f"{member} was trained on other faces than {_first_run(members)}")
        if network != first.recipe.model:
            raise UsageError(f"{member}: weights of {network} cannot be averaged with those of {first.recipe.model}")
    shared = [
        prefixed(weights.sources, f"{factor:.3g} of:") for (_, weights), factor in zip(networks, factors, strict=True)
    ]
    networks_of, made_of = [one[:1] for one in shared], [one[1:] for one in shared]
    return dataclasses.replace(
        first,
        command=_command(members, shares, data),
        sources=distinct(chain(*networks_of, *made_of)),
        best=None,
        start=None,
    )


def _first_run(members: Sequence[str]) -> Path:
    found = next((Path(member) for member in members if names_run(member)), None)
    if found is None:
        raise UsageError("give at least one run folder: a bundle does not say which faces it was trained on")
    return found


def measure_batch_norms(model: Any, training: LabelledFaces) -> None:
    """Set the mean and variance of every batch norm to those of all training faces, unchanged.

    ``model`` has no dropout. All batches have the same weight: the momentum makes the moving average a plain one. Fewer
    faces would be faster, but which ones they are then moves the accuracy (0.2 points between samples of 8,192).
    """
    norms = [layer for layer in model.layers if isinstance(layer, BatchNormalization)]
    order = np.random.default_rng(0).permutation(len(training))
    for number, chosen in enumerate(np.array_split(order, -(-len(order) // _STATISTICS_BATCH))):
        for norm in norms:
            norm.momentum = number / (number + 1)
        model(normalize(training.pixels[chosen])[..., np.newaxis], training=True)


def _checked_shares(members: Sequence[str], shares: Sequence[float]) -> list[float]:
    if not shares:
        return [1 / len(members)] * len(members)
    if len(shares) != len(members):
        raise UsageError(f"--shares: {len(shares)} shares for {len(members)} networks; give one for each")
    if min(shares) < 0:
        raise UsageError(f"--shares: {min(shares):g} is less than 0")
    if not abs(sum(shares) - 1) <= _TOLERANCE:  # also of nan
        raise UsageError(f"--shares: they must add up to 1, not to {sum(shares):g}")
    return list(shares)


def _find_network(member: str) -> tuple[str, InitialWeights]:
    found = find_trained(member)
    if found is None:
        raise UsageError(f"{member}: neither a run folder nor a bundle")
    return found


def _set_mean(model: Any, networks: Sequence[InitialWeights], shares: Sequence[float], faces: Any) -> None:
    mean: list[Any] = [np.zeros(weight.shape) for weight in model.get_weights()]
    for weights, share in zip(networks, shares, strict=True):
        weights.load(model, faces)
        mean = [total + share * weight for total, weight in zip(mean, model.get_weights(), strict=True)]
    model.set_weights(mean)


def _command(members: Sequence[str], shares: Sequence[float], data: Sequence[Path]) -> str:
    option = f" --shares {','.join(f'{share:g}' for share in shares)}" if shares else ""
    return f"fer-train average {' '.join(map(named_weights, members))} {data_options(data)}{option}"
