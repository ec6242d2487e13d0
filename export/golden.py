"""The golden outputs of a bundle: synthetic inputs, and the results for them on the machine that makes the bundle.

Sixteen synthetic faces are classified. A scene is processed like a camera's picture: decoded to grey, and cropped with
the card's margin. On a device, edge.model.verification compares its own results with these. Needs no TensorFlow.
"""

import io
import os
import platform
from argparse import Namespace
from pathlib import Path
from typing import Final

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from edge.errors import BundleError, UsageError
from edge.labels import Labels
from edge.model.bundle import (
    CARD_FILE,
    GOLDEN_FILE,
    MODEL_FILE,
    Card,
    Golden,
    GoldenScene,
    bundled,
    find_bundle,
    open_bundle,
)
from edge.model.classifier import Network
from edge.model.preprocessing import INPUT_SIZE, crop
from edge.model.verification import decode_jpeg
from edge.records import Box
from edge.system.atomic_file import write_durably
from train.outputs import writing

_FACES: Final = 16
_SEED: Final = 20130414
# A large face, one beyond the picture's edge, and one smaller than the network's input.
_BOXES: Final = (Box(40, 20, 80, 88), Box(120, 70, 50, 60), Box(6, 8, 30, 32))


def make_golden(network: Network, margin: float, labels: Labels) -> Golden:
    """The golden inputs, and the outputs of ``network`` on this machine.

    ``labels`` name the outputs; crops have ``margin``.
    """
    faces = golden_faces()
    return Golden(faces, np.stack([network.logits(face) for face in faces]), labels, golden_scene(margin))


def golden_faces() -> NDArray[np.uint8]:
    """Sixteen synthetic inputs, ``(16, 48, 48)`` uint8: smooth random blobs of different contrasts."""
    rng = np.random.default_rng(_SEED)
    coarse = rng.uniform(-1, 1, (_FACES, 6, 6))
    smooth = np.stack([np.kron(blob, np.ones((8, 8))) for blob in coarse])
    level = rng.uniform(60, 190, (_FACES, 1, 1))
    contrast = np.linspace(10, 120, _FACES)[:, None, None]
    noise = rng.normal(0, 6, (_FACES, INPUT_SIZE, INPUT_SIZE))
    return np.asarray(np.clip(level + contrast * smooth + noise, 0, 255), np.uint8)


def golden_scene(margin: float) -> GoldenScene:
    """A 160x120 colour picture of blobs, from black to white, and three crops of it with ``margin``."""
    rng = np.random.default_rng(_SEED + 1)
    blobs = cv2.resize(rng.uniform(-60, 315, (8, 10, 3)), (160, 120), interpolation=cv2.INTER_CUBIC)
    blobs[:16, 144:], blobs[104:, :16] = 255, 0
    picture = np.asarray(np.clip(blobs, 0, 255), np.uint8)
    jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    luma = decode_jpeg(jpeg)
    return GoldenScene(jpeg, luma, _BOXES, margin, np.stack([crop(luma, box, margin) for box in _BOXES]))


def find_changeable(name: str) -> Path:
    """The folder of a bundle that is to be changed.

    Raises UsageError for the name of a bundled model, which is a part of the program, and for a folder that this user
    cannot write into: what is to be written may take minutes. Raises BundleError as find_bundle.
    """
    if name in bundled():
        raise UsageError(f"{name} is the program's own model, which is not changed. Give a folder, such as ./{name}")
    folder = find_bundle(name)
    if not os.access(folder, os.W_OK):
        raise UsageError(f"{folder}: cannot be changed: the folder is read-only for this user")
    return folder


def write_golden(folder: Path, golden: Golden) -> None:
    """Replace the golden file of a bundle in one step; the same content gives the same bytes. Raises OSError."""
    scene, content = golden.scene, io.BytesIO()
    np.savez_compressed(
        content,
        faces=golden.faces,
        outputs=golden.outputs,
        labels=np.array(golden.labels),
        scene_jpeg=np.frombuffer(scene.jpeg, np.uint8),
        scene=scene.luma,
        boxes=np.array([(box.x, box.y, box.w, box.h) for box in scene.boxes], np.int64),
        margin=np.float64(scene.margin),
        crops=scene.crops,
    )
    write_durably(folder / GOLDEN_FILE, content.getvalue())


def golden_command(arguments: Namespace) -> int:
    """``fer-export golden``: write the golden file of this version into a bundle of an earlier one.

    Raises BundleError on another runtime or machine than the one that made the bundle, where outputs may differ,
    and UsageError when the file cannot be written or the bundle is the program's own.
    """
    folder = find_changeable(str(arguments.bundle))
    try:
        card = msgspec.json.decode((folder / CARD_FILE).read_bytes(), type=Card)
        network = Network((folder / MODEL_FILE).read_bytes(), folder)
    except (OSError, msgspec.DecodeError) as error:
        raise BundleError(f"{folder}: {error}") from error
    here = (network.runtime, platform.machine())
    if here != (card.golden_runtime, card.golden_machine):
        raise BundleError(
            f"{folder}: its golden outputs were made by {card.golden_runtime} on {card.golden_machine}; this is "
            f"{here[0]} on {here[1]}, which may round differently. Run the command there, or export the bundle again."
        )
    made = make_golden(network, card.crop_margin, card.labels)
    with writing(folder / GOLDEN_FILE):
        write_golden(folder, made)
    open_bundle(folder)
    crops = f"{len(made.scene.crops)} crops with margin {made.scene.margin:g}"
    print(f"{folder / GOLDEN_FILE}: {len(made.outputs)} outputs of {here[0]}, {crops}")
    return 0
