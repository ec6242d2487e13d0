"""Finding faces: a Haar cascade (Viola and Jones 2001; OpenCV's frontal-face cascade) on a reduced grey picture."""

from pathlib import Path

import cv2

from edge.errors import FerEdgeError
from edge.records import Box, Gray
from edge.settings import Detect


class FaceDetector:
    """Scans whole pictures for upright frontal faces."""

    def __init__(self, settings: Detect) -> None:
        self._settings = settings
        file = Path(cv2.__file__).parent / "data" / "haarcascade_frontalface_default.xml"
        self._cascade = cv2.CascadeClassifier(str(file))
        if self._cascade.empty():
            raise FerEdgeError(f"{file}: OpenCV's face cascade is missing. Reinstall opencv-python-headless below 5.")

    def detect(self, gray: Gray) -> list[Box]:
        """Boxes of the faces in a ``(h, w)`` uint8 picture, in its own pixels, largest first."""
        height, width = gray.shape
        factor = max(1.0, width / self._settings.width)
        reduced = (
            cv2.resize(gray, (round(width / factor), round(height / factor)), interpolation=cv2.INTER_AREA)
            if factor > 1
            else gray
        )
        smallest = max(24, round(self._settings.min_face * height / factor))
        found = self._cascade.detectMultiScale(
            reduced, scaleFactor=1.1, minNeighbors=self._settings.neighbors, minSize=(smallest, smallest)
        )
        boxes = [Box(*(round(float(value) * factor) for value in face)) for face in found]
        return sorted(boxes, key=lambda box: box.w * box.h, reverse=True)
