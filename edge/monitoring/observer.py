"""What a run lets others observe: each frame, each pause, and the end of a source."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edge.events.episodes import Change
from edge.model.classifier import FaceClassifier
from edge.pipeline import FrameResult


@dataclass(frozen=True)
class LoopStatus:
    """The state of the frame loop at a frame, or while the camera is paused.

    ``stage_seconds`` are the pipeline's totals since the start. ``frames_dropped`` add up over every opening of the
    source. ``too_dark`` says that it has been too dark to find faces for seconds.
    """

    classifier: FaceClassifier
    stage_seconds: Mapping[str, float]
    frames_dropped: int
    too_dark: bool = False


class FrameObserver:
    """Is called by the frame loop, in its thread, in the order of its list; of the end in reverse order.

    Subclasses override what concerns them.
    """

    def frame(self, result: FrameResult, status: LoopStatus) -> None:
        """Take a frame that went through the pipeline."""

    def waiting(self) -> None:
        """A live camera is opened, or its next frame awaited; called about every 0.1 seconds, for a limited time."""

    def paused(self, status: LoopStatus) -> None:
        """The camera is closed by a command; called a few times a second until it is opened again."""

    def closed(self, changes: Sequence[Change]) -> None:
        """The source was closed, whatever the reason; ``changes`` say that every track has left."""
