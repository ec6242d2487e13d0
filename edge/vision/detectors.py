"""Opens the face detector that the settings name. This is the only place that knows which ones there are."""

from edge.settings import DetectSettings
from edge.vision.detection import Detector
from edge.vision.haar import HaarDetector
from edge.vision.yunet import YuNetDetector


def open_detector(settings: DetectSettings) -> Detector:
    """Open the face detector. Raises SettingsError, which says what to do, when it cannot work as set."""
    return YuNetDetector(settings) if settings.detector == "yunet" else HaarDetector(settings)
