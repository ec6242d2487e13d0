"""``fer-export clips``: videos with people in them and the exact truth about each frame, for ``fer-edge bench``.

Each scene below is one thing that happens in front of a camera. The seed furnishes the room and lights the people; the
same seed gives the same frames and the same truth.
"""

import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from edge.bench.ground_truth import FrameTruth, Header, truth_beside, write_truth
from edge.errors import UsageError, nearest
from edge.evaluation.fer2013 import LabelledFaces, Split, read_faces
from edge.model.preprocessing import LABELS
from export.synthetic.scenes import FPS, HEIGHT, WIDTH, Actor, Scene, Sprite, fer2013_sprite, furnish, hang, portrait

_CODEC: Final = "FFV1"  # lossless: every program that reads the clip sees the same pixels

_EVEN: Final = ((0.0, 1.0),)  # the light of a room where nobody touches the switch

_Path = Sequence[tuple[float, float, float, float]]


class _Cast:
    """People for one scene: each seed has others, by the light that falls on them and by which way they look."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng([seed, 2])
        self._portrait = portrait()
        self._persons = 0

    def walk(self, path: _Path, sway: float = 1.5, sprite: Sprite | None = None) -> Actor:
        """A new person and her way; without a sprite, the portrait's in some light."""
        self._persons += 1
        phase = float(self._rng.uniform(0, 2 * np.pi))
        return Actor(self._persons, sprite or self._somebody(), np.array(path, np.float64), sway, phase)

    def _somebody(self) -> Sprite:
        turned = self._portrait.mirrored() if self._persons % 2 == 0 else self._portrait
        return turned.lit(float(self._rng.uniform(0.7, 1.15)), float(self._rng.uniform(-0.3, 0.3)))


def _visit(cast: _Cast) -> Iterable[Actor]:
    """Walks in, stands, comes closer, stands, walks out; somebody else comes meanwhile and stays."""
    yield cast.walk(
        [
            (1.0, -110, 215, 105),
            (3.5, 230, 215, 105),
            (8.0, 230, 215, 105),
            (9.5, 250, 240, 150),
            (12.0, 250, 240, 150),
            (15.0, -160, 220, 130),
        ]
    )
    yield cast.walk([(5.0, 740, 175, 80), (7.5, 470, 180, 80), (18.0, 470, 180, 80)])


def _crossing(cast: _Cast) -> Iterable[Actor]:
    """Two people of different size cross twice; the nearer one covers the other."""
    yield cast.walk(
        [(0, 140, 230, 125), (2, 140, 230, 125), (5, 490, 230, 125), (7, 490, 230, 125), (10, 140, 230, 125)]
    )
    yield cast.walk([(0, 500, 200, 84), (2, 500, 200, 84), (5, 130, 200, 84), (7, 130, 200, 84), (10, 500, 200, 84)])


def _group(cast: _Cast) -> Iterable[Actor]:
    """Four people of four sizes; the second leaves."""
    yield cast.walk([(0, 95, 150, 66), (12, 95, 150, 66)])
    yield cast.walk([(0, 225, 190, 88), (8, 225, 190, 88), (9.8, -120, 190, 88)])
    yield cast.walk([(0, 375, 200, 112), (12, 375, 200, 112)])
    yield cast.walk([(0, 540, 230, 140), (12, 540, 230, 140)])


def _still(cast: _Cast) -> Iterable[Actor]:
    """Somebody stands in front of the camera and does not move at all."""
    yield cast.walk([(0, 320, 230, 120), (12, 320, 230, 120)], sway=0.0)


def _blur(cast: _Cast) -> Iterable[Actor]:
    """Somebody steps aside fast, again and again, and is blurred then."""
    places = [
        (0.0, 170.0),
        (1.5, 170.0),
        (2.0, 430.0),
        (4.0, 430.0),
        (4.4, 170.0),
        (6.0, 170.0),
        (6.3, 430.0),
        (8.0, 430.0),
    ]
    yield cast.walk([(time, x, 225, 115) for time, x in places])


def _light(cast: _Cast) -> Iterable[Actor]:
    """Somebody stands there while the light changes."""
    yield cast.walk([(0, 300, 220, 110), (10, 300, 220, 110)])


def _edge(cast: _Cast) -> Iterable[Actor]:
    """Somebody steps half out of the picture and comes back, and leaves for good later."""
    out = [(0, 150, 220, 110), (3, 150, 220, 110), (3.8, -10, 220, 110), (4.2, -10, 220, 110), (5, 150, 220, 110)]
    yield cast.walk([*out, (7, 150, 220, 110), (8.5, -150, 220, 110)])


def _clutter(cast: _Cast) -> Iterable[Actor]:
    """Somebody walks past pictures of no face that a cascade takes for one, and leaves."""
    yield cast.walk([(1.0, -110, 300, 110), (4.0, 330, 300, 110), (6.0, 330, 300, 110), (8.5, 760, 300, 110)])


def _empty(cast: _Cast) -> Iterable[Actor]:
    """Nobody: only the sensor's noise moves."""
    return ()


_SCENES: Final[dict[str, tuple[float, Callable[[_Cast], Iterable[Actor]], Sequence[tuple[float, float]]]]] = {
    "visit": (18.0, _visit, _EVEN),
    "crossing": (10.0, _crossing, _EVEN),
    "group": (12.0, _group, _EVEN),
    "still": (12.0, _still, _EVEN),
    "blur": (8.0, _blur, _EVEN),
    "light": (10.0, _light, ((2.0, 1.0), (4.0, 0.5), (6.0, 0.5), (6.04, 1.1), (8.0, 1.1), (8.04, 0.8))),
    "edge": (10.0, _edge, _EVEN),
    "empty": (12.0, _empty, _EVEN),
    "clutter": (10.0, _clutter, _EVEN),
}
_NUMBERS: Final = ("visit", "crossing", "group", "still", "blur", "light", "edge", "empty", "faces", "clutter")
"""Part of each scene's seed. What is new comes last, so that the others stay as they are."""

_LOOK_ALIKES: Final = ((30, 40, 110), (190, 60, 90), (330, 30, 140), (510, 70, 100), (70, 350, 100), (480, 330, 130))

_FACES_SECONDS: Final = 15.0
_FACE_STAYS: Final = 2.8
_FACE_PAUSES: Final = 0.2


def scene_names(*, with_data: bool) -> list[str]:
    """The scenes there are; ``faces`` needs FER2013."""
    return [*_SCENES, "faces"] if with_data else list(_SCENES)


def make_scene(name: str, seed: int, faces: LabelledFaces | None = None) -> Scene:
    """A scene by its name; ``faces`` are those of the scene ``faces``."""
    own = seed * 1000 + _NUMBERS.index(name)
    cast = _Cast(own)
    if name == "faces" and faces is not None:
        return Scene(name, _FACES_SECONDS, own, _faces(cast, faces, own), np.array(_EVEN), furnish(own))
    seconds, play, light = _SCENES[name]
    room = hang(furnish(own), own, _LOOK_ALIKES) if name == "clutter" else furnish(own)
    return Scene(name, seconds, own, tuple(play(cast)), np.array(light, np.float64), room)


def _faces(cast: _Cast, faces: LabelledFaces, seed: int) -> tuple[Actor, ...]:
    """Three places in which one face of FER2013 follows another, drifting; each is there for some seconds."""
    turns = round(_FACES_SECONDS / (_FACE_STAYS + _FACE_PAUSES))
    chosen = np.random.default_rng([seed, 3]).permutation(len(faces))[: 3 * turns]
    actors = []
    for index, face in enumerate(chosen):
        turn, place = divmod(index, 3)
        begin = turn * (_FACE_STAYS + _FACE_PAUSES)
        x, y, side = ((120.0, 170.0, 90.0), (320.0, 230.0, 120.0), (530.0, 220.0, 150.0))[place]
        sprite = fer2013_sprite(faces.pixels[face], LABELS[int(faces.labels[face])])
        actors.append(cast.walk([(begin, x - 15, y, side), (begin + _FACE_STAYS, x + 15, y, side)], sprite=sprite))
    return tuple(actors)


def write_clip(scene: Scene, folder: Path, frames: int) -> Path:
    """Write the first ``frames`` frames of a scene as a video and its truth; returns the video's path.

    Raises UsageError when it cannot be written.
    """
    file = folder / f"{scene.name}.avi"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*_CODEC), FPS, (WIDTH, HEIGHT), False)
    if not writer.isOpened():
        raise UsageError(f"{file}: cannot be written as {_CODEC} by this OpenCV ({cv2.__version__})")
    told = []
    try:
        for number in range(frames):
            picture, faces = scene.draw(number)
            writer.write(picture)
            told.append(FrameTruth(number, faces))
    finally:
        writer.release()
    write_truth(
        truth_beside(file), Header("fer-edge truth 1", scene.name, frames, WIDTH, HEIGHT, FPS, scene.seed), told
    )
    return file


def make_clips(folder: Path, seed: int, names: Sequence[str], seconds: float | None, data: Path | None) -> list[Path]:
    """Write the clips of the scenes ``names`` (all there are when empty), the first ``seconds`` of each.

    ``data`` is FER2013, whose PublicTest faces the scene ``faces`` shows. Raises UsageError for a scene that does not
    exist or a folder that cannot be written, DataError for data that cannot be read.
    """
    known = scene_names(with_data=data is not None)
    for name in names:
        if name not in known:
            told = "needs --data" if name == "faces" else nearest(name, known)
            raise UsageError(f"scene {name!r}: {told}")
    chosen = list(names) or known
    faces = read_faces(data, Split.PUBLIC) if data and "faces" in chosen else None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return [_told(make_scene(name, seed, faces), folder, seconds) for name in chosen]
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written: {error.strerror or error}") from error


def _told(scene: Scene, folder: Path, seconds: float | None) -> Path:
    frames = scene.frames if seconds is None else min(scene.frames, max(1, round(seconds * FPS)))
    file = write_clip(scene, folder, frames)
    size = file.stat().st_size / 1e6
    print(f"{file}: {frames} frames, {len(scene.actors)} people, {size:.0f} MB", file=sys.stderr, flush=True)
    return file


def clips_command(arguments: Namespace) -> int:
    """Carry out ``fer-export clips`` with its parsed arguments."""
    make_clips(arguments.out, arguments.seed, arguments.scene, arguments.seconds, arguments.data)
    return 0
