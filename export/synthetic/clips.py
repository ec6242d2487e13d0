"""``fer-export clips``: videos of people with the exact ground truth of each frame, for ``fer-edge bench``.

Each scene shows one situation in front of a camera. The seed determines the room and the light on the people; the same
seed gives the same frames and the same ground truth.
"""

import errno
import os
import shutil
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from edge.bench.ground_truth import FrameTruth, Header, truth_beside, write_truth
from edge.errors import UsageError, nearest
from edge.evaluation.fer2013 import LabelledFaces, Split, read_faces
from edge.labels import FER2013_LABELS
from export.synthetic.scenes import FPS, HEIGHT, WIDTH, Actor, Scene, Sprite, fer2013_sprite, furnish, hang, portrait

_CODEC: Final = "FFV1"  # lossless: every program reads the same pixels

_CONSTANT_LIGHT: Final = ((0.0, 1.0),)

_Path = Sequence[tuple[float, float, float, float]]


class _Cast:
    """Makes the people of one scene; the seed determines the light on them."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng([seed, 2])
        self._portrait = portrait()
        self._persons = 0

    def walk(self, path: _Path, sway: float = 1.5, sprite: Sprite | None = None) -> Actor:
        """A new person who moves along ``path``; without a sprite, the demo's portrait in random light."""
        self._persons += 1
        phase = float(self._rng.uniform(0, 2 * np.pi))
        return Actor(self._persons, sprite or self._random_portrait(), np.array(path, np.float64), sway, phase)

    def _random_portrait(self) -> Sprite:
        sprite = self._portrait.mirrored() if self._persons % 2 == 0 else self._portrait
        return sprite.lit(float(self._rng.uniform(0.7, 1.15)), float(self._rng.uniform(-0.3, 0.3)))


def _visit(cast: _Cast) -> Iterable[Actor]:
    """A person walks in, stands, comes closer, stands, and walks out; a second one comes meanwhile and stays."""
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
    """Two people of different sizes cross twice; the nearer one covers the other."""
    yield cast.walk(
        [(0, 140, 230, 125), (2, 140, 230, 125), (5, 490, 230, 125), (7, 490, 230, 125), (10, 140, 230, 125)]
    )
    yield cast.walk([(0, 500, 200, 84), (2, 500, 200, 84), (5, 130, 200, 84), (7, 130, 200, 84), (10, 500, 200, 84)])


def _group(cast: _Cast) -> Iterable[Actor]:
    """Four people of four sizes; the second one leaves."""
    yield cast.walk([(0, 95, 150, 66), (12, 95, 150, 66)])
    yield cast.walk([(0, 225, 190, 88), (8, 225, 190, 88), (9.8, -120, 190, 88)])
    yield cast.walk([(0, 375, 200, 112), (12, 375, 200, 112)])
    yield cast.walk([(0, 540, 230, 140), (12, 540, 230, 140)])


def _still(cast: _Cast) -> Iterable[Actor]:
    """A person stands in front of the camera without moving at all."""
    yield cast.walk([(0, 320, 230, 120), (12, 320, 230, 120)], sway=0.0)


def _blur(cast: _Cast) -> Iterable[Actor]:
    """A person repeatedly steps aside fast, with motion blur."""
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
    """A person stands still while the light changes."""
    yield cast.walk([(0, 300, 220, 110), (10, 300, 220, 110)])


def _edge(cast: _Cast) -> Iterable[Actor]:
    """A person steps half out of the picture, comes back, and later leaves."""
    out = [(0, 150, 220, 110), (3, 150, 220, 110), (3.8, -10, 220, 110), (4.2, -10, 220, 110), (5, 150, 220, 110)]
    yield cast.walk([*out, (7, 150, 220, 110), (8.5, -150, 220, 110)])


def _clutter(cast: _Cast) -> Iterable[Actor]:
    """A person walks past pictures that the detector takes for faces, and leaves."""
    yield cast.walk([(1.0, -110, 300, 110), (4.0, 330, 300, 110), (6.0, 330, 300, 110), (8.5, 760, 300, 110)])


def _empty(cast: _Cast) -> Iterable[Actor]:
    """Nobody; only the sensor's noise changes."""
    return ()


_SCENES: Final[dict[str, tuple[float, Callable[[_Cast], Iterable[Actor]], Sequence[tuple[float, float]]]]] = {
    "visit": (18.0, _visit, _CONSTANT_LIGHT),
    "crossing": (10.0, _crossing, _CONSTANT_LIGHT),
    "group": (12.0, _group, _CONSTANT_LIGHT),
    "still": (12.0, _still, _CONSTANT_LIGHT),
    "blur": (8.0, _blur, _CONSTANT_LIGHT),
    "light": (10.0, _light, ((2.0, 1.0), (4.0, 0.5), (6.0, 0.5), (6.04, 1.1), (8.0, 1.1), (8.04, 0.8))),
    "edge": (10.0, _edge, _CONSTANT_LIGHT),
    "empty": (12.0, _empty, _CONSTANT_LIGHT),
    "clutter": (10.0, _clutter, _CONSTANT_LIGHT),
}
_SCENE_NUMBERS: Final = ("visit", "crossing", "group", "still", "blur", "light", "edge", "empty", "faces", "clutter")
"""The place of a scene here is part of its seed. Add new scenes at the end, so that the others do not change."""

_FACE_LIKE_PICTURES: Final = (
    (30, 40, 110),
    (190, 60, 90),
    (330, 30, 140),
    (510, 70, 100),
    (70, 350, 100),
    (480, 330, 130),
)

_FACES_SECONDS: Final = 15.0
_FACE_STAYS: Final = 2.8
_FACE_PAUSES: Final = 0.2


def scene_names(*, with_data: bool) -> list[str]:
    """The names of all scenes; ``faces`` needs FER2013."""
    return [*_SCENES, "faces"] if with_data else list(_SCENES)


def make_scene(name: str, seed: int, faces: LabelledFaces | None = None) -> Scene:
    """Make a scene by its name; ``faces`` are the faces to show in the scene ``faces``."""
    scene_seed = seed * 1000 + _SCENE_NUMBERS.index(name)
    cast = _Cast(scene_seed)
    if name == "faces" and faces is not None:
        return Scene(
            name,
            _FACES_SECONDS,
            scene_seed,
            _faces(cast, faces, scene_seed),
            np.array(_CONSTANT_LIGHT),
            furnish(scene_seed),
        )
    seconds, play, light = _SCENES[name]
    room = hang(furnish(scene_seed), scene_seed, _FACE_LIKE_PICTURES) if name == "clutter" else furnish(scene_seed)
    return Scene(name, seconds, scene_seed, tuple(play(cast)), np.array(light, np.float64), room)


def _faces(cast: _Cast, faces: LabelledFaces, seed: int) -> tuple[Actor, ...]:
    """Faces of FER2013, one after another at three places; each drifts and stays for some seconds."""
    rounds = round(_FACES_SECONDS / (_FACE_STAYS + _FACE_PAUSES))
    chosen = np.random.default_rng([seed, 3]).permutation(len(faces))[: 3 * rounds]
    actors = []
    for index, face in enumerate(chosen):
        number, place = divmod(index, 3)
        begin = number * (_FACE_STAYS + _FACE_PAUSES)
        x, y, side = ((120.0, 170.0, 90.0), (320.0, 230.0, 120.0), (530.0, 220.0, 150.0))[place]
        sprite = fer2013_sprite(faces.pixels[face], FER2013_LABELS[int(faces.labels[face])])
        actors.append(cast.walk([(begin, x - 15, y, side), (begin + _FACE_STAYS, x + 15, y, side)], sprite=sprite))
    return tuple(actors)


def write_clip(scene: Scene, folder: Path, frames: int) -> Path:
    """Write the first ``frames`` frames of a scene as a video, and their ground truth; returns the video's path.

    Raises UsageError when it cannot be written as a video, and OSError for a full disk.
    """
    with tempfile.TemporaryDirectory(dir=folder) as name:  # so that no half of a video is left behind
        whole = _write_video(scene, Path(name), frames)
        truth_beside(whole).replace(truth_beside(folder / whole.name))
        return whole.replace(folder / whole.name)


def _write_video(scene: Scene, folder: Path, frames: int) -> Path:
    file = folder / f"{scene.name}.avi"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*_CODEC), FPS, (WIDTH, HEIGHT), False)
    if not writer.isOpened():
        raise UsageError(f"{file}: cannot be written as {_CODEC} by this OpenCV ({cv2.__version__})")
    truth = []
    try:
        for number in range(frames):
            picture, faces = scene.draw(number)
            _require_room(folder)
            writer.write(picture)
            truth.append(FrameTruth(number, faces))
    finally:
        writer.release()
    write_truth(
        truth_beside(file), Header("fer-edge truth 1", scene.name, frames, WIDTH, HEIGHT, FPS, scene.seed), truth
    )
    return file


def _require_room(folder: Path) -> None:
    """Raise OSError when the disk has no room for a frame, since OpenCV goes on without an error."""
    if shutil.disk_usage(folder).free < WIDTH * HEIGHT:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def make_clips(folder: Path, seed: int, names: Sequence[str], seconds: float | None, data: Path | None) -> list[Path]:
    """Write the clips of the scenes ``names`` (empty: all scenes), or only the first ``seconds`` of each.

    ``data`` is FER2013, whose PublicTest faces the scene ``faces`` shows. Raises UsageError for an unknown scene or a
    folder that cannot be written, DataError for data that cannot be read.
    """
    known = scene_names(with_data=data is not None)
    for name in names:
        if name not in known:
            problem = "needs --data" if name == "faces" else nearest(name, known)
            raise UsageError(f"scene {name!r}: {problem}")
    chosen = list(names) or known
    faces = read_faces(data, Split.PUBLIC) if data and "faces" in chosen else None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return [_write_scene(make_scene(name, seed, faces), folder, seconds) for name in chosen]
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written: {error.strerror or error}") from error


def _write_scene(scene: Scene, folder: Path, seconds: float | None) -> Path:
    frames = scene.frames if seconds is None else min(scene.frames, max(1, round(seconds * FPS)))
    file = write_clip(scene, folder, frames)
    size = file.stat().st_size / 1e6
    print(f"{file}: {frames} frames, {len(scene.actors)} people, {size:.0f} MB", file=sys.stderr, flush=True)
    return file


def clips_command(arguments: Namespace) -> int:
    """``fer-export clips``; returns the exit code."""
    make_clips(arguments.out, arguments.seed, arguments.scene, arguments.seconds, arguments.data)
    return 0
