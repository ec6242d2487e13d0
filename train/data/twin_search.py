"""Search a data set for near twins: pictures that show the same photograph.

Two pictures are twins when the correlation of their grey levels (Pearson's r over the window that both show) is at
least 0.97 at the best shift of up to 4 pixels, mirrored or not. They are searched at half the resolution first, where
each pair costs a sixth, and measured at the full one.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.evaluation.fer2013 import LabelledFaces
from edge.model.preprocessing import INPUT_SIZE

THRESHOLD: Final = 0.97
"""Least correlation of twins. Different pictures of one person in one scene are below it."""

_REACH: Final = 4  # pixels
_STEP: Final = 2  # pixels of the picture that one of the reduced picture stands for
_CANDIDATE: Final = 0.93  # least correlation of reduced twins: a shift by an odd number of pixels costs 0.03
_BLOCK: Final = 1024


class Twins(NamedTuple):
    """Two pictures, as indices into the two sets that were compared, and their correlation at the best shift."""

    one: int
    other: int
    correlation: float


@dataclass(frozen=True)
class _Windows:
    """Windows of pictures at one shift, ``(n, side²)`` float32: each with mean 0 and length 1."""

    values: NDArray[np.float32]

    @classmethod
    def cut(cls, pixels: NDArray[np.uint8], reach: int, dx: int, dy: int) -> "_Windows":
        side = pixels.shape[1] - 2 * reach
        window = pixels[:, reach + dy : reach + dy + side, reach + dx : reach + dx + side]
        flat = window.reshape(len(pixels), -1).astype(np.float32)
        flat -= flat.mean(axis=1, keepdims=True)
        flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
        return cls(flat)


def find_twins(
    ones: NDArray[np.uint8],
    others: NDArray[np.uint8],
    on_progress: Callable[[float], None] = lambda _share: None,
) -> list[Twins]:
    """The twins of two sets of pictures, ``(n, 48, 48)`` and ``(m, 48, 48)`` uint8, each pair once.

    When both are the same array, a picture is not its own twin, and ``one`` is less than ``other``. ``on_progress`` is
    told which share of the search is done (0 to 1). On 3,589 and 28,709 pictures it takes minutes.
    """
    same = ones is others
    best: dict[tuple[int, int], float] = {}
    for one, other, mirrored in _candidates(ones, others, same, on_progress):
        if (one, other) not in best:
            best[one, other] = 0.0
        picture = ones[one, :, ::-1] if mirrored else ones[one]
        best[one, other] = max(best[one, other], _correlation(picture, others[other]))
    return [Twins(*pair, value) for pair, value in sorted(best.items()) if value >= THRESHOLD]


def _candidates(
    ones: NDArray[np.uint8], others: NDArray[np.uint8], same: bool, on_progress: Callable[[float], None]
) -> Iterator[tuple[int, int, bool]]:
    """Pairs that look alike at half the resolution, each as often as it is found, and whether ``one`` is mirrored."""
    reach = _REACH // _STEP
    reduced, compared = _reduced(ones), _reduced(others)
    shifts = list(product((False, True), range(-reach, reach + 1), range(-reach, reach + 1)))
    for number, (mirrored, dx, dy) in enumerate(shifts):
        moved = _Windows.cut(compared, reach, dx, dy).values
        still = _Windows.cut(reduced[:, :, ::-1] if mirrored else reduced, reach, 0, 0).values
        found: set[tuple[int, int]] = set()
        for start in range(0, len(still), _BLOCK):
            alike = np.argwhere(still[start : start + _BLOCK] @ moved.T >= _CANDIDATE)
            found.update((start + int(one), int(other)) for one, other in alike)
        for one, other in sorted(found):
            if not same or one < other:
                yield one, other, mirrored
        on_progress((number + 1) / len(shifts))


def _reduced(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    side = INPUT_SIZE // _STEP
    return np.stack([cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA) for face in pixels])


def _correlation(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """The correlation of two pictures at the best shift."""
    still = _Windows.cut(one[np.newaxis], _REACH, 0, 0).values[0]
    shifts = range(-_REACH, _REACH + 1)
    moved = [_Windows.cut(other[np.newaxis], _REACH, dx, dy).values[0] for dx, dy in product(shifts, shifts)]
    return float((np.stack(moved) @ still).max())


@dataclass(frozen=True)
class TwinReport:
    """The twins of a data set, as pairs of rows with their correlation, and what they are.

    ``identical`` counts the faces of the measured split that Training has bit by bit, ``near`` those that have a twin
    in Training and no identical picture there. ``groups`` counts the groups of Training's pictures that are each
    other's twins, ``contradicting`` those of them whose pictures have different labels.
    """

    pairs: tuple[tuple[int, int, float], ...]
    identical: int
    near: int
    groups: int
    contradicting: int

    def __str__(self) -> str:
        return (
            f"{self.identical:,} faces of the measured split are in Training too, and {self.near:,} more have a near "
            f"twin there. Training has {self.groups:,} groups of twins; the labels of {self.contradicting:,} of them "
            "contradict each other."
        )


def search_twins(training: LabelledFaces, measured: LabelledFaces, on_progress: Callable[[float], None]) -> TwinReport:
    """Find the twins within Training, and between Training and the measured split. Both have rows of one CSV.

    ``on_progress`` is told which share of the search is done (0 to 1).
    """
    assert training.rows is not None
    assert measured.rows is not None
    between_cost = len(measured) / (len(measured) + len(training))
    between = find_twins(measured.pixels, training.pixels, lambda share: on_progress(share * between_cost))
    within = find_twins(
        training.pixels, training.pixels, lambda share: on_progress(between_cost + share * (1 - between_cost))
    )
    pairs = [_in_order(measured.rows[one], training.rows[other], value) for one, other, value in between]
    pairs += [_in_order(training.rows[one], training.rows[other], value) for one, other, value in within]
    has_identical = _held(measured, training)
    labels = [{int(training.labels[face]) for face in group} for group in _groups(within)]
    return TwinReport(
        tuple(sorted(pairs)),
        int(has_identical.sum()),
        len({one for one, _, _ in between if not has_identical[one]}),
        len(labels),
        sum(len(found) > 1 for found in labels),
    )


def _in_order(one: np.int64, other: np.int64, correlation: float) -> tuple[int, int, float]:
    return min(int(one), int(other)), max(int(one), int(other)), correlation


def _held(measured: LabelledFaces, training: LabelledFaces) -> NDArray[np.bool_]:
    contents = {face.tobytes() for face in training.pixels}
    return np.array([face.tobytes() in contents for face in measured.pixels], np.bool_)


def _groups(twins: Iterable[Twins]) -> list[set[int]]:
    """The pictures that are linked by twins, each in one group."""
    group_of: dict[int, set[int]] = {}
    for one, other, _ in twins:
        joined = group_of.get(one, {one}) | group_of.get(other, {other})
        group_of.update(dict.fromkeys(joined, joined))
    return list({id(group): group for group in group_of.values()}.values())
