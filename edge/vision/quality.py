"""Decides whether a face is worth classifying: large enough, not turned away, sharp enough, and with contrast."""

import cv2

from edge.records import Box, Flaw, Gray
from edge.settings import QualitySettings


def flaw(box: Box, face: Gray, settings: QualitySettings, yaw: float = 0.0) -> Flaw | None:
    """Why a face is not worth classifying, or None if it is.

    ``box`` is the face in the frame; ``face`` is the crop that the network would get, ``(48, 48)`` uint8.
    ``yaw`` is by how many degrees the head is turned to a side.
    """
    if min(box.w, box.h) < settings.min_size:
        return "small"
    if yaw > settings.max_yaw:
        return "turned"
    if contrast(face) < settings.min_contrast:
        return "low contrast"
    if sharpness(face) < settings.min_sharpness:
        return "blurred"
    return None


def contrast(face: Gray) -> float:
    """Standard deviation of the grey values of a ``(h, w)`` uint8 picture, 0..127.5."""
    return float(cv2.meanStdDev(face)[1][0, 0])


def sharpness(face: Gray) -> float:
    """Variance of the Laplacian, divided by the picture's variance so that contrast does not matter; 0 if it is flat.

    The variance of the Laplacian is a standard focus measure (Pech-Pacheco et al. 2000). Here it is taken at half the
    size, where sensor noise counts little.
    """
    half = cv2.resize(face, (face.shape[1] // 2, face.shape[0] // 2), interpolation=cv2.INTER_AREA)
    deviation = cv2.meanStdDev(half)[1][0, 0]
    edges = cv2.meanStdDev(cv2.Laplacian(half, cv2.CV_32F))[1][0, 0]
    return float(edges / deviation) ** 2 if deviation else 0.0
