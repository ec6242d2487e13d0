"""The largest frame that is read from a video or a stream: a decoder keeps several."""

from typing import Final

import cv2

from edge.camera.picture_file import MAX_SIDE
from edge.errors import SourceError

_LARGEST_FRAME: Final = 4096 * 2304  # pixels


def require_frame_size(width: int, height: int, name: str) -> int:
    """The pixels of a frame. Raises SourceError when they are too many."""
    if width * height > _LARGEST_FRAME or max(width, height) > MAX_SIDE:
        raise SourceError(f"{name}: its frames are {width}x{height}; the largest that are read are 4096x2304")
    return max(0, width * height)


def require_stated_size(capture: cv2.VideoCapture, name: str) -> int:
    """The pixels of a frame of a video or stream, by what it states.

    Raises SourceError, and releases the capture, when they are too many.
    """
    width, height = (round(capture.get(of)) for of in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    try:
        return require_frame_size(width, height, name)
    except SourceError:
        capture.release()
        raise
