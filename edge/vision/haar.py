"""The default face detector: Haar cascades, and the search that spreads their work over the frames."""

from collections.abc import Sequence

from edge.records import Box, Gray, Pose, Square
from edge.settings import DetectSettings
from edge.vision.cascades import FaceCascades
from edge.vision.detection import Absence, Detection
from edge.vision.pyramid import Pyramid
from edge.vision.search import SearchScheduler


class HaarDetector:
    """A `edge.vision.detection.Detector` of upright frontal faces.

    Raises SettingsError when ``[detect] cascade`` names no cascade that OpenCV can read.
    """

    least_similarity = 0.72  # cascades often miss a face that turns or leans: while it looks much the same, it is shown

    def __init__(self, settings: DetectSettings, cascades: FaceCascades | None = None) -> None:
        self._settings = settings
        self._cascades = cascades or FaceCascades(settings)
        self._scheduler = SearchScheduler(settings)
        self._known: list[Square] = []

    def check(self, pyramid: Pyramid, square: Square, *, tentative: bool, misses: int) -> Detection | Absence | None:
        """Detect a known face again: either cascade will do for a confirmed face, a tentative one needs both."""
        again = self._cascades.confirm_again if tentative else self._cascades.redetect
        detection, windows = again(pyramid, square)
        self._scheduler.spend(windows)
        return detection

    def pose(self, pyramid: Pyramid, square: Square) -> Pose | None:
        """How a head leans, by the judge; that it is turned to a side cannot be told."""
        roll, windows = self._cascades.roll(pyramid, square)
        self._scheduler.spend(windows)
        return None if roll is None else Pose(roll)

    def begin_frame(self, pyramid: Pyramid, now: float, known: Sequence[Square]) -> None:
        """Plan the search of a frame."""
        self._known = list(known)
        self._scheduler.begin_frame(pyramid, now, self._known)

    def search(self, pyramid: Pyramid) -> list[Detection]:
        """Search the regions of this frame for new faces."""
        detections = []
        examined = list(self._known)
        while region := self._scheduler.next_region():
            for proposal in self._cascades.propose(pyramid, region, self._known):
                if any(proposal.within(square) for square in examined):
                    continue
                examined.append(proposal)
                detection, windows = self._cascades.confirm_proposal(pyramid, proposal)
                self._scheduler.spend(windows)
                if detection:
                    self._known.append(detection.square)
                    examined.append(detection.square)
                    detections.append(detection)
        return detections

    def detect(self, gray: Gray) -> list[Box]:
        """Detect the faces of one picture by a plain scan with the first cascade."""
        return self._cascades.detect(gray)

    def for_new_source(self) -> "HaarDetector":
        """The same cascades with a new search."""
        return HaarDetector(self._settings, self._cascades)
