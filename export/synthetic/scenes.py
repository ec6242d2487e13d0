"""Scenes with people, drawn frame by frame, so that the exact place of each face is known.

A person is cut out of a picture (a Sprite) and moves along a path (an Actor) through a random room (a Scene). The
camera is simulated with its exposure time and sensor noise. The scene and its seed determine every pixel.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.bench.ground_truth import FaceTruth
from edge.camera.picture_file import read_gray
from edge.records import Box, Gray
from edge.settings import DetectSettings
from edge.vision.detectors import open_detector

WIDTH: Final = 640
HEIGHT: Final = 480
FPS: Final = 25
SENSOR_NOISE: Final = 2.5
"""Standard deviation of each pixel between frames, in grey levels."""

Layer = NDArray[np.float32]

_EXPOSURE: Final = 0.02
"""Exposure time in seconds: half the time between frames, as in indoor light."""

# The outline of head and shoulders in the portrait, drawn by hand; and the square that OpenCV's frontal-face cascade
# detects: the mean over scales 0.4 to 1.2 of the picture and its mirror image (sizes differ by up to 7 %).
_OUTLINE: Final = (
    "93 93 100 50 127 23 167 14 207 20 230 47 240 87 233 117 217 133 209 160 240 215 243 240 290 275 303 345 303 400 "
    "0 400 0 252 27 220 56 206 53 175 73 152 110 147 122 130 107 120 95 100"
)
_PORTRAIT_FACE: Final = (115.5, 65.0, 98.5)

# Where the cascade detects a face in a picture of FER2013: left, top and side as shares of the picture's side. These
# are medians over 387 faces that `fer-export margin` detected: FER2013 is framed almost as the cascade frames faces.
FER2013_FACE: Final = (0.01, 0.0, 0.98)

_MIN_OVERLAP: Final = 0.3  # least overlap (IoU) with FER2013_FACE of a detection that counts as the face
_LEAVES: Final = 400


@dataclass(frozen=True)
class Sprite:
    """A person cut out of a picture.

    ``pixels`` (grey levels) and ``alpha`` (0..1) are ``(h, w)`` float32; ``face`` is the face's square in them: left,
    top and side in pixels. ``expression`` is what the face shows, or None.
    """

    pixels: Layer
    alpha: Layer
    face: tuple[float, float, float]
    expression: str | None

    def mirrored(self) -> "Sprite":
        """The mirror image of the person."""
        left, top, side = self.face
        flipped = (self.pixels.shape[1] - left - side, top, side)
        return Sprite(self.pixels[:, ::-1].copy(), self.alpha[:, ::-1].copy(), flipped, self.expression)

    def lit(self, gain: float, slope: float) -> "Sprite":
        """The person in other light: brighter by the factor ``gain``, with a horizontal gradient of ``slope``."""
        ramp = gain * (1 + slope * np.linspace(-1, 1, self.pixels.shape[1], dtype=np.float32))
        return Sprite(np.clip(self.pixels * ramp, 0, 255).astype(np.float32), self.alpha, self.face, self.expression)


@dataclass(frozen=True)
class Actor:
    """A person and her path.

    ``path`` is ``(n, 4)``: time in seconds, and centre x, centre y and side of the face's square in pixels. The person
    moves linearly between these points and is absent before the first and after the last. ``sway`` is the amplitude in
    pixels of a slow movement, ``phase`` its phase.
    """

    person: int
    sprite: Sprite
    path: NDArray[np.float64]
    sway: float = 1.5
    phase: float = 0.0

    def position(self, time: float) -> tuple[float, float, float] | None:
        """Centre and side of the face's square at a time in seconds; None while the person is absent."""
        times = self.path[:, 0]
        if not times[0] <= time <= times[-1]:
            return None
        x, y, side = (float(np.interp(time, times, self.path[:, column])) for column in (1, 2, 3))
        x += self.sway * np.sin(2 * np.pi * 0.31 * time + self.phase)
        y += 0.5 * self.sway * np.sin(2 * np.pi * 0.47 * time + 2 * self.phase)
        return x, y, side


@dataclass(frozen=True)
class Scene:
    """A room, the people in it, and the light: ``light`` is ``(n, 2)``, times in seconds and brightness factors."""

    name: str
    seconds: float
    seed: int
    actors: tuple[Actor, ...]
    light: NDArray[np.float64]
    room: Gray

    @property
    def frames(self) -> int:
        """Number of frames."""
        return round(self.seconds * FPS)

    def draw(self, number: int) -> tuple[Gray, tuple[FaceTruth, ...]]:
        """Frame ``number``, ``(HEIGHT, WIDTH)`` uint8, and the visible faces in it by person number."""
        time = number / FPS
        canvas = self.room.astype(np.float32)
        present = [(place, actor) for actor in self.actors if (place := actor.position(time))]
        faces: list[tuple[FaceTruth, Layer]] = []
        for place, actor in sorted(present, key=lambda pair: pair[0][2]):  # the larger face is nearer
            light, alpha = _expose(actor, time)
            canvas = canvas * (1 - alpha) + light
            faces = [(face, shown * (1 - _crop_to_box(alpha, face.box))) for face, shown in faces]
            faces.append(_unoccluded_truth(actor, place))
        canvas *= np.float32(np.interp(time, self.light[:, 0], self.light[:, 1]))
        noise = np.random.default_rng([self.seed, number]).standard_normal((HEIGHT, WIDTH), np.float32)
        picture = np.clip(np.rint(canvas + SENSOR_NOISE * noise), 0, 255).astype(np.uint8)
        truths = (_with_visibility(face, shown) for face, shown in faces)
        return picture, tuple(sorted((face for face in truths if face.visible), key=lambda face: face.person))


def portrait() -> Sprite:
    """The person of the demo's photograph, cut out."""
    with resources.as_file(resources.files("edge") / "demo" / "portrait.jpg") as file:
        gray = read_gray(file)
    outline = np.array(_OUTLINE.split(), np.int32).reshape(-1, 1, 2)
    mask = cv2.fillPoly(np.zeros(gray.shape, np.float32), [outline], 1.0)
    alpha = cv2.GaussianBlur(cv2.erode(mask, np.ones((5, 5))), (0, 0), 2.0)
    return Sprite(gray.astype(np.float32), np.asarray(alpha, np.float32), _PORTRAIT_FACE, "happy")


def fer2013_sprite(face: Gray, expression: str) -> Sprite:
    """A face of FER2013, ``(48, 48)`` uint8, enlarged, with soft borders; hair and chin are missing, as in FER2013.

    Not all faces of FER2013 fill their pictures. The face's square is where the cascade detects it in its own picture.
    """
    side = 240
    pixels = cv2.resize(face, (side, side), interpolation=cv2.INTER_CUBIC)
    mask = np.zeros((side, side), np.float32)
    cv2.rectangle(mask, (12, 12), (side - 13, side - 13), 1.0, -1)
    alpha = cv2.GaussianBlur(mask, (0, 0), 5.0)
    usual = Box(*(round(part * side) for part in (*FER2013_FACE, FER2013_FACE[2])))
    around = side // 4
    alone = cv2.copyMakeBorder(pixels, around, around, around, around, cv2.BORDER_REPLICATE)
    found = open_detector(DetectSettings(min_face=0.12)).detect(np.asarray(alone, np.uint8))
    places = [Box(box.x - around, box.y - around, box.w, box.h) for box in found]
    place = max((box for box in places if box.overlap(usual) >= _MIN_OVERLAP), key=usual.overlap, default=usual)
    face_square = (float(place.x), float(place.y), float(place.w))
    return Sprite(pixels.astype(np.float32), np.asarray(alpha, np.float32), face_square, expression)


def furnish(seed: int) -> Gray:
    """A random empty room, ``(HEIGHT, WIDTH)``: a wall with uneven light, pictures, a door, a floor, and texture."""
    rng = np.random.default_rng([seed, 1])
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    wall = 120 + 40 * rng.uniform(-1, 1) + 45 * (x / WIDTH - 0.5) * rng.uniform(-1, 1) - 30 * (y / HEIGHT - 0.5)
    for _ in range(6):
        left, top = (int(rng.integers(0, size - 60)) for size in (WIDTH, HEIGHT - 120))
        width, height = (int(size) for size in rng.integers(30, 160, 2))
        wall[top : top + height, left : left + width] += rng.uniform(-50, 50)
        wall[top + 6 : top + height - 6, left + 6 : left + width - 6] += rng.uniform(-25, 25)
    wall[HEIGHT - 90 :] -= 40
    for size, strength in ((8, 5), (40, 7), (160, 5)):
        coarse = rng.standard_normal((HEIGHT // size + 2, WIDTH // size + 2), np.float32)
        wall += strength * cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    return np.asarray(np.clip(cv2.GaussianBlur(wall, (0, 0), 1.0), 10, 245), np.uint8)


def hang(room: Gray, seed: int, places: Iterable[tuple[int, int, int]]) -> Gray:
    """A copy of a room with pictures that the cascade takes for faces; ``places`` are their left, top and side."""
    rng, hung = np.random.default_rng([seed, 4]), room.copy()
    for left, top, side in places:
        hung[top : top + side, left : left + side] = cv2.resize(_face_like_picture(rng), (side, side))
    return hung


def _face_like_picture(rng: np.random.Generator) -> Gray:
    """Part of a random dead-leaves picture (Lee, Mumford and Huang 2001) in which the cascade detects a face."""
    width, height = 320, 240
    detector = open_detector(DetectSettings(min_face=0.12))
    while True:
        leaves = np.full((height, width), 128, np.uint8)
        sizes = (0.25 - rng.random(_LEAVES) * (0.25 - 1 / 45**2)) ** -0.5  # scale-invariant, as in nature
        for size in sizes:
            axes = (max(1, int(size)), max(1, int(size * rng.uniform(0.5, 1))))
            middle = (int(rng.integers(0, width)), int(rng.integers(0, height)))
            cv2.ellipse(leaves, middle, axes, rng.uniform(0, 180), 0, 360, rng.uniform(20, 235), -1)
        leaves = np.asarray(cv2.GaussianBlur(leaves, (0, 0), 0.7), np.uint8)
        for box in detector.detect(leaves):
            beside = box.w // 4
            left, top, side = box.x - beside, box.y - beside, box.w + 2 * beside
            if left >= 0 and top >= 0 and left + side <= width and top + side <= height:
                return leaves[top : top + side, left : left + side]


def _expose(actor: Actor, time: float) -> tuple[Layer, Layer]:
    """An actor's light during one exposure, and her alpha: how much of the room she covers."""
    start, end = (actor.position(time + part * _EXPOSURE) for part in (-0.5, 0.5))
    moved = max(abs(a - b) for a, b in zip(start, end, strict=True)) if start and end else 0.0
    moments = int(np.clip(np.ceil(moved), 1, 12))
    places = [actor.position(time + ((k + 0.5) / moments - 0.5) * _EXPOSURE) for k in range(moments)]
    layers = [_place_sprite(actor.sprite, place) for place in places if place]
    light = np.mean([pixels * alpha for pixels, alpha in layers], axis=0)
    return np.asarray(light, np.float32), np.asarray(np.mean([alpha for _, alpha in layers], axis=0), np.float32)


def _place_sprite(sprite: Sprite, place: tuple[float, float, float]) -> tuple[Layer, Layer]:
    """A sprite's pixels and alpha on the whole picture, with its face's square at ``place``."""
    x, y, side = place
    left, top, own = sprite.face
    scale = side / own
    matrix = np.array([[scale, 0, x - side / 2 - scale * left], [0, scale, y - side / 2 - scale * top]])
    if scale < 1:  # warpAffine only samples: without blurring, small sprites would be aliased
        blur = 0.5 / scale - 0.4
        pixels = cv2.GaussianBlur(sprite.pixels, (0, 0), blur)
    else:
        pixels = sprite.pixels
    size = (WIDTH, HEIGHT)
    return (
        np.asarray(cv2.warpAffine(pixels, matrix, size, borderMode=cv2.BORDER_REPLICATE), np.float32),
        np.asarray(cv2.warpAffine(sprite.alpha, matrix, size), np.float32),
    )


def _unoccluded_truth(actor: Actor, place: tuple[float, float, float]) -> tuple[FaceTruth, Layer]:
    """An actor's ground truth while nobody covers her, and a mask of the visible part of her face, ``(h, w)``."""
    x, y, side = place
    box = (round(x - side / 2), round(y - side / 2), round(side), round(side))
    face = FaceTruth(actor.person, box, 1.0, actor.sprite.expression)
    return face, np.ones_like(_crop_to_box(np.empty((HEIGHT, WIDTH), np.float32), box))


def _crop_to_box(layer: Layer, box: tuple[int, int, int, int]) -> Layer:
    x, y, w, h = box
    return layer[max(0, y) : max(0, y + h), max(0, x) : max(0, x + w)]


def _with_visibility(face: FaceTruth, shown: Layer) -> FaceTruth:
    visible = round(float(shown.sum()) / (face.box[2] * face.box[3]), 2)
    return FaceTruth(face.person, face.box, min(1.0, visible), face.expression)
