"""Parts of the picture in which no face begins: posters, screens."""

from collections.abc import Iterable

from edge.records import Square
from edge.settings import Ignore


def is_ignored(face: Square, size: tuple[int, int], parts: Iterable[Ignore]) -> bool:
    """Whether the middle of a face is in one of the ``parts`` of a frame of ``size``, width and height in pixels."""
    x, y = face.x / size[0], face.y / size[1]
    return any(part.left <= x < part.left + part.width and part.top <= y < part.top + part.height for part in parts)
