"""``fer-edge classify``: find the faces in still pictures and classify their expressions."""

import json
import os
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edge.camera.picture_file import read_gray
from edge.camera.sources import upright
from edge.errors import SourceError, UsageError
from edge.evaluation.picture_tree import pictures
from edge.model.bundle import read_card
from edge.model.classifier import FaceClassifier
from edge.model.loader import open_deployed
from edge.model.preprocessing import crop
from edge.model.registry import folder_in_use
from edge.records import Box, Expression, Gray, Square
from edge.settings import DetectSettings, Settings, load_settings
from edge.system.instance import service_environ
from edge.system.owner_rights import user_to_become
from edge.untrusted_file import is_folder
from edge.vision.detectors import open_detector
from edge.vision.ignore import is_ignored


@dataclass(frozen=True)
class PictureFaces:
    """The faces in a picture: the box of each, and what the network gets of it. ``problem`` says why there are none."""

    file: Path
    faces: tuple[tuple[Box, Gray], ...] = ()
    problem: str = ""


def classify(arguments: Namespace) -> int:
    """Carry out ``fer-edge classify``: 0 when all pictures were read, 1 when some were not."""
    settings = _with_bundle(load_settings(arguments.config), arguments.bundle)
    environ = service_environ(arguments.config, os.environ)
    folder = folder_in_use(settings, environ)
    pictures = find_faces(arguments.images, settings, read_card(folder).crop_margin)
    if user_to_become(folder):  # what only root may read is read before
        pictures = iter(list(pictures))
    classifier, _ = open_deployed(settings, environ)
    return print_expressions("fer-edge", pictures, classifier, as_json=arguments.json)


def find_faces(images: Iterable[Path], settings: Settings, crop_margin: float) -> Iterator[PictureFaces]:
    """Read the pictures, also those in folders, one at a time as they are asked for.

    ``crop_margin`` is that of the network's card. Raises UsageError for a folder without pictures, and SettingsError.
    """
    files = [file for image in images for file in _files(image)]
    detector = open_detector(settings.detect)

    def found(file: Path) -> PictureFaces:
        try:
            gray = upright(read_gray(file), settings.camera)
        except SourceError as error:
            return PictureFaces(file, problem=str(error))
        boxes = [box for box in detector.detect(gray) if not _is_ignored(box, gray, settings.detect)]
        return PictureFaces(file, tuple((box, crop(gray, box, crop_margin)) for box in boxes))

    return map(found, files)


def print_expressions(
    program: str, pictures: Iterable[PictureFaces], classifier: FaceClassifier, *, as_json: bool
) -> int:
    """Classify the faces and print them: 0 when all pictures were read, 1 when some were not."""
    exit_code = 0
    for picture in pictures:
        if picture.problem:
            print(f"{program}: error: {picture.problem}", file=sys.stderr)
            exit_code = 1
            continue
        faces = [(box, classifier.classify(face)) for box, face in picture.faces]
        print(_as_json(picture.file, faces) if as_json else _as_text(picture.file, faces), flush=True)
    return exit_code


def _with_bundle(settings: Settings, bundle: str | None) -> Settings:
    if bundle is None:
        return settings
    return msgspec.structs.replace(settings, model=msgspec.structs.replace(settings.model, bundle=bundle))


def _is_ignored(box: Box, gray: Gray, settings: DetectSettings) -> bool:
    """Whether the middle of a face is in a part of the picture in which ``[[detect.ignore]]`` wants none."""
    height, width = gray.shape
    return is_ignored(Square(box.x + box.w / 2, box.y + box.h / 2, box.w), (width, height), settings.ignore)


def _files(image: Path) -> list[Path]:
    """The picture itself, or those of a folder and of the folders in it."""
    if not is_folder(image):
        return [image]
    found = [image / name for name in pictures(image)]
    if not found:
        raise UsageError(f"{image}: there is no picture in this folder")
    return found


def _as_json(file: Path, faces: list[tuple[Box, Expression]]) -> str:
    found = [
        {"box": [box.x, box.y, box.w, box.h], "expression": e.label, "confidence": e.confidence, "scores": e.scores}
        for box, e in faces
    ]
    return json.dumps({"source": str(file), "faces": found})


def _as_text(file: Path, faces: list[tuple[Box, Expression]]) -> str:
    found = (f"{e.label} {e.confidence:.0%} at {box.x},{box.y} ({box.w}x{box.h})" for box, e in faces)
    return f"{file}: " + ("; ".join(found) or "no face")
