"""The loop that fer-edge is compared with, as OpenCV's tutorial on cascade classifiers shows it."""

from pathlib import Path
from typing import Final

import cv2

from edge.model.classifier import Classifier
from edge.model.preprocessing import crop
from edge.records import Box, Gray

BYTES_A_PIXEL: Final = 160
"""At most what OpenCV takes for scanning a frame: the sums and squared sums of all its reductions. Measured: 64."""


class BaselineLoop:
    """Scans every whole frame with OpenCV's frontal-face cascade, and classifies every face in it."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier
        file = Path(cv2.__file__).parent / "data" / "haarcascade_frontalface_default.xml"
        self._cascade = cv2.CascadeClassifier(str(file))

    def step(self, gray: Gray) -> list[Box]:
        """Detect and classify the faces of one picture, ``(h, w)`` uint8. Returns their boxes."""
        faces = [Box(*map(int, face)) for face in self._cascade.detectMultiScale(gray, 1.1, 5)]
        for box in faces:
            self._classifier.classify(crop(gray, box, self._classifier.card.crop_margin))
        return faces
