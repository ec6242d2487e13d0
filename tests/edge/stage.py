"""Short clips for tests: copies of the demo's portrait move over a still background, with a sensor's noise."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.records import Box, Frame, Gray
from tests.conftest import PORTRAIT

FPS = 25
SIZE = (640, 480)
_HEAD = (74, 4, 180, 210)  # left, top, width, height of the head in the portrait
_FACE = (42, 62, 96)  # left, top and side of the face in the head


@dataclass(frozen=True)
class Actor:
    """A person. ``path`` gives the face's centre and side (x, y, side) at a time in seconds, or None if she is away."""

    path: Callable[[float], tuple[float, float, float] | None]
    mirrored: bool = False
    light: float = 1.0

    def box(self, time: float) -> Box | None:
        place = self.path(time)
        if place is None:
            return None
        x, y, side = place
        return Box(round(x - side / 2), round(y - side / 2), round(side), round(side))


def walk(
    begin: tuple[float, float, float], end: tuple[float, float, float], seconds: float
) -> Callable[[float], tuple[float, float, float] | None]:
    """A straight path from one position and size to another."""

    def path(time: float) -> tuple[float, float, float] | None:
        part = time / seconds
        x, y, side = ((1 - part) * a + part * b for a, b in zip(begin, end, strict=True))
        return x, y, side

    return path


def room(seed: int = 1) -> NDArray[np.float32]:
    """A background: pictures on a wall."""
    rng = np.random.default_rng(seed)
    wall = np.full((SIZE[1], SIZE[0]), 130, np.float32) + np.linspace(-30, 30, SIZE[0], dtype=np.float32)
    for _ in range(40):
        x, y, w, h = (int(value) for value in (*rng.integers(0, 440, 2), *rng.integers(10, 120, 2)))
        cv2.rectangle(wall, (int(x * 1.4), y), (int(x * 1.4) + w, y + h), float(rng.integers(60, 200)), -1)
    return cv2.GaussianBlur(wall, (0, 0), 1.5).astype(np.float32)


def film(actors: Sequence[Actor], seconds: float, noise: float = 3.0, fps: float = FPS) -> Iterator[Frame]:
    """Render the frames; later actors are in front of earlier ones."""
    rng, wall = np.random.default_rng(7), room()
    head, alpha = _head()
    for number in range(round(seconds * fps)):
        time = number / fps
        picture = wall.copy()
        for actor in actors:
            _draw(picture, actor, time, head, alpha)
        yield Frame(np.clip(picture + rng.normal(0, noise, picture.shape), 0, 255).astype(np.uint8), time)


def _head() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    gray: Gray = np.asarray(cv2.imread(str(PORTRAIT), cv2.IMREAD_GRAYSCALE), np.uint8)
    x, y, w, h = _HEAD
    down, across = np.mgrid[:h, :w]
    distance = np.hypot((across - 90) / 72, (down - 108) / 98)
    return gray[y : y + h, x : x + w].astype(np.float32), np.clip((1.12 - distance) / 0.18, 0, 1).astype(np.float32)


def _draw(
    picture: NDArray[np.float32], actor: Actor, time: float, head: NDArray[np.float32], alpha: NDArray[np.float32]
) -> None:
    place = actor.path(time)
    if place is None:
        return
    x, y, side = place
    left, top, own = _FACE
    if actor.mirrored:
        head, left = head[:, ::-1], head.shape[1] - left - own
        alpha = alpha[:, ::-1]
    scale = side / own
    matrix = np.array([[scale, 0, x - scale * (left + own / 2)], [0, scale, y - scale * (top + own / 2)]])
    pixels = cv2.GaussianBlur(np.ascontiguousarray(head), (0, 0), 0.3 + max(0.0, 0.5 / scale - 0.5))
    drawn = cv2.warpAffine(pixels, matrix, SIZE, borderMode=cv2.BORDER_REPLICATE) * actor.light
    covers = cv2.warpAffine(np.ascontiguousarray(alpha), matrix, SIZE)
    picture *= 1 - covers
    picture += drawn * covers
