"""``fer-edge classify``: find the faces in still pictures and classify their expressions."""

import json
import os
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import msgspec

from edge.camera.picture_file import read_gray
from edge.camera.sources import upright
from edge.errors import SourceError, UsageError
from edge.evaluation.picture_tree import pictures
from edge.model.classifier import FaceClassifier
from edge.model.loader import open_deployed
from edge.model.preprocessing import crop
from edge.records import Box, Expression
from edge.settings import Settings, load_settings
from edge.untrusted_file import is_folder
from edge.vision.detectors import open_detector


def classify(arguments: Namespace) -> int:
    """Carry out ``fer-edge classify``: 0 when all pictures were read, 1 when some were not."""

    def open_classifier(settings: Settings) -> FaceClassifier:
        return open_deployed(_with_bundle(settings, arguments.bundle), os.environ)[0]

    return classify_pictures("fer-edge", arguments, open_classifier)


def classify_pictures(program: str, arguments: Namespace, open_classifier: Callable[[Settings], FaceClassifier]) -> int:
    """Print the faces of ``arguments.images``, as the settings file ``arguments.config`` and ``arguments.json`` say.

    ``open_classifier`` gives what classifies them: on a device a bundle, in ``fer-train`` also a training run. Returns
    0 when all pictures were read, 1 when some were not. Raises UsageError for a folder without pictures.
    """
    files = [file for image in arguments.images for file in _files(image)]
    settings = load_settings(arguments.config)
    detector = open_detector(settings.detect)
    classifier = open_classifier(settings)
    exit_code = 0
    for file in files:
        try:
            gray = upright(read_gray(file), settings.camera)
        except SourceError as error:
            print(f"{program}: error: {error}", file=sys.stderr)
            exit_code = 1
            continue
        faces = [
            (box, classifier.classify(crop(gray, box, classifier.card.crop_margin))) for box in detector.detect(gray)
        ]
        print(_as_json(file, faces) if arguments.json else _as_text(file, faces), flush=True)
    return exit_code


def _with_bundle(settings: Settings, bundle: str | None) -> Settings:
    if bundle is None:
        return settings
    return msgspec.structs.replace(settings, model=msgspec.structs.replace(settings.model, bundle=bundle))


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
