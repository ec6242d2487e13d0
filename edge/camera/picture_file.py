"""Pictures in files."""

from pathlib import Path
from typing import Final

import cv2
import numpy as np

from edge.errors import SourceError
from edge.records import Gray
from edge.system.memory_budget import memory_budget
from edge.untrusted_file import read_regular

PICTURES: Final = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".webp", ".tif", ".tiff", ".jp2"}
    | {".pbm", ".pgm", ".ppm", ".pnm", ".sr", ".ras"}
)
"""How the names of pictures end that OpenCV reads."""

MAX_PIXELS: Final = 50_000_000
"""The largest picture: some phones make such. The pictures that are derived from it take a third more."""

MAX_SIDE: Final = 32_000
"""The longest side in pixels: OpenCV maps no picture of 32,767."""

FRAME_MEMORY: Final = 48 * 2**20
"""Bytes that reading a frame may take in ``fer-edge run``: enough for a JPEG of twelve megapixels."""

_MEMORY: Final = 250 * 2**20  # bytes; 50 megapixels of JPEG take 125 MB


def read_gray(file: Path, memory: int = _MEMORY) -> Gray:
    """Read a picture file as full-range luma, ``(h, w)`` uint8. Raises SourceError, which names the file.

    ``memory`` is how many bytes that may take. A file of a few bytes can declare a picture of a billion pixels.
    """
    try:
        with memory_budget(memory):
            stored = np.frombuffer(read_regular(file, memory), np.uint8)
            picture = cv2.imdecode(stored, cv2.IMREAD_GRAYSCALE) if stored.size else None
    except OSError as error:
        raise SourceError(f"{file}: cannot be read: {error.strerror}") from error
    except (cv2.error, MemoryError):
        picture = None
    if picture is None:
        raise SourceError(f"{file}: not a picture that OpenCV can decode with {memory // 2**20} MB of memory")
    if picture.size > MAX_PIXELS or max(picture.shape) > MAX_SIDE:
        raise SourceError(
            f"{file}: has {picture.shape[1]}x{picture.shape[0]} pixels, and may have {MAX_PIXELS:,}, with no side "
            f"longer than {MAX_SIDE:,}. Reduce it first"
        )
    return np.asarray(picture, np.uint8)
