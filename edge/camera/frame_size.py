"""The largest frame that is read from a video or a stream: a decoder keeps several."""

import logging
from typing import Final

import cv2

from edge.camera.picture_file import MAX_SIDE
from edge.errors import SourceError

_log = logging.getLogger(__name__)

_LARGEST_FRAME: Final = 4096 * 2304  # pixels
_USUAL_FRAME: Final = 2560 * 1440  # pixels; a run with larger ones may exceed 160 MB
_MJPEG: Final = frozenset({"mjpg", "jpeg"})


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


def decode_sparingly(capture: cv2.VideoCapture, pixels: int, name: str) -> None:
    """Before the first frame: have large MJPEG frames decoded to grey, and say that others take much memory.

    OpenCV and FFmpeg each keep a coloured picture. Without colours, FFmpeg gives the luma as it is stored. Only MJPEG's
    is known to be full-range.
    """
    if pixels <= _USUAL_FRAME:
        return
    codec = int(capture.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF
    if codec.to_bytes(4, "little").decode("latin-1").lower() in _MJPEG:
        capture.set(cv2.CAP_PROP_CONVERT_RGB, 0)  # never later: OpenCV would use a buffer of the former size
    else:
        _log.warning(
            "%s: its frames are larger than 2560x1440, which may take 250 MB of memory or more. MJPEG takes less, and "
            "so does a smaller size",
            name,
        )
