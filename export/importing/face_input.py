"""What a network takes and gives: whether a device can give it a face, and whether its scores fit the labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edge.errors import BundleError, UsageError
from edge.model.preprocessing import INPUT_SIZE

LARGEST_SIDE: Final = 224
SMALLEST_SIDE: Final = 24
"""A face of 48x48 pixels is reduced to no less, since bilinear resizing to a smaller one would leave pixels out."""

_OTHER_RANKS: Final = {
    3: "it lacks the axis of channels. Put a Reshape layer to (side, side, 1) in front, and save it again",
    5: "it takes sequences of pictures; a device classifies one face at a time. Bring a network for one picture",
}

Shape = tuple[int | None, ...]
"""A tensor's sizes; None for one that is not fixed."""


@dataclass(frozen=True)
class FaceInput:
    """A network's input: square faces of ``side`` pixels, with one channel (grey) or three (colour)."""

    side: int
    channels: int

    def __str__(self) -> str:
        return f"{self.side}x{self.side} {'grey' if self.channels == 1 else 'colour'}"


def face_input(inputs: Sequence[tuple[str, Shape]], source: object) -> FaceInput:
    """The input of a network whose inputs have these names and shapes. Raises BundleError, which says what to change.

    ``source`` is for messages. The first size of a shape is the batch.
    """
    if not inputs:
        raise BundleError(f"{source}: has no input of a known shape. Begin it with an Input layer, and save it again.")
    if len(inputs) != 1:
        names = ", ".join(f"{name} {_text(shape)}" for name, shape in inputs)
        raise BundleError(
            f"{source}: takes {len(inputs)} inputs ({names}); a device gives one face. Save a network with one input."
        )
    [(_, shape)] = inputs
    if problem := _problem(shape):
        raise BundleError(f"{source}: its input is {_text(shape)}, expected (batch, side, side, channels): {problem}")
    [side, channels] = [size for size in shape[2:] if size]
    return FaceInput(side, channels)


def _problem(shape: Shape) -> str:
    """Why a device cannot give a face to an input of this shape, and what to do; empty if it can."""
    if len(shape) != 4:
        return _OTHER_RANKS.get(len(shape), "it takes no pictures. Bring a network for pictures")
    batch, height, width, channels = shape
    problems = (
        (
            height in {1, 3} and width == channels,
            "it has the channels first. Save it with channels last, which is TensorFlow's order",
        ),
        (None in (height, width, channels), "it has no fixed size. Save it with the size that it was trained at"),
        (height != width, "faces are square. Train it on square faces"),
        (channels not in {1, 3}, f"{channels} channels are neither grey (1) nor colour (3)"),
        (
            not SMALLEST_SIDE <= (height or 0) <= LARGEST_SIDE,
            f"sides of {SMALLEST_SIDE} to {LARGEST_SIDE} pixels are possible; a face has {INPUT_SIZE}",
        ),
        (batch not in {None, 1}, f"its batch is fixed to {batch}. Save it with a batch of 1, or None"),
    )
    return next((problem for holds, problem in problems if holds), "")


def check_scores(outputs: Sequence[tuple[str, Shape]], labels: Sequence[str], source: object) -> None:
    """Raise unless a network with these outputs gives one score for each label.

    UsageError is for another number of labels, BundleError for what is no list of scores.
    """
    if len(outputs) != 1:
        names = ", ".join(f"{name} {_text(shape)}" for name, shape in outputs)
        raise BundleError(
            f"{source}: gives {len(outputs)} outputs ({names}). Save a network that gives the scores only."
        )
    [(_, shape)] = outputs
    if len(shape) != 2 or shape[1] is None:
        raise BundleError(
            f"{source}: its output is {_text(shape)}, not (batch, labels). Flatten it, and save it again."
        )
    if shape[1] == len(labels):
        return
    advice = "Give the names of all its classes, in the order of its training."
    if shape[1] == 1:
        advice = "A single score (a sigmoid) cannot be used: train it with two outputs and a softmax."
    scores = "1 score" if shape[1] == 1 else f"{shape[1]} scores"
    raise UsageError(f"{source}: gives {scores}, but --labels names {len(labels)}: {', '.join(labels)}. {advice}")


def _text(shape: Shape) -> str:
    return f"({', '.join('?' if size is None else str(size) for size in shape)})"
