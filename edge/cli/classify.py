"""``fer-edge classify``: find the faces in still pictures and classify their expressions."""

import json
import os
import sys
from argparse import Namespace
from pathlib import Path

from edge.camera.picture_file import read_gray
from edge.camera.sources import upright
from edge.errors import SourceError
from edge.model.loader import open_deployed
from edge.model.preprocessing import crop
from edge.records import Box, Expression
from edge.settings import load_settings
from edge.vision.detectors import open_detector


def classify(arguments: Namespace) -> int:
    """Carry out ``fer-edge classify``: 0 when all pictures were read, 1 when some were not."""
    settings = load_settings(arguments.config)
    detector = open_detector(settings.detect)
    classifier, _ = open_deployed(settings, os.environ)
    exit_code = 0
    for file in arguments.images:
        try:
            gray = upright(read_gray(file), settings.camera)
        except SourceError as error:
            print(f"fer-edge: error: {error}", file=sys.stderr)
            exit_code = 1
            continue
        faces = [
            (box, classifier.classify(crop(gray, box, classifier.card.crop_margin))) for box in detector.detect(gray)
        ]
        print(_as_json(file, faces) if arguments.json else _as_text(file, faces), flush=True)
    return exit_code


def _as_json(file: Path, faces: list[tuple[Box, Expression]]) -> str:
    found = [
        {"box": [box.x, box.y, box.w, box.h], "expression": e.label, "confidence": e.confidence, "scores": e.scores}
        for box, e in faces
    ]
    return json.dumps({"source": str(file), "faces": found})


def _as_text(file: Path, faces: list[tuple[Box, Expression]]) -> str:
    found = (f"{e.label} {e.confidence:.0%} at {box.x},{box.y} ({box.w}x{box.h})" for box, e in faces)
    return f"{file}: " + ("; ".join(found) or "no face")
