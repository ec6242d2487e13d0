"""``fer-edge``: see faces, say which of seven expressions they show, tell it as events."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")  # what OpenCV and FFmpeg grumble is said by our own errors
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

from edge.camera import read_gray
from edge.contract import crop
from edge.doctor import doctor
from edge.errors import SourceError, guarded
from edge.faces import FaceDetector
from edge.fer2013 import SPLITS, read_faces
from edge.live import leave
from edge.records import Box, Expression
from edge.run import make_classifier, run
from edge.settings import Detect, load_settings
from edge.verify import report, table, verify

_STILL = Detect(width=1280, min_face=0.05)  # a still picture has time for a full scan

_EXAMPLES = """examples:
  fer-edge run --source demo                        a built-in ten-second demonstration
  fer-edge run --source visit.mp4                   events of a video, as JSON lines
  fer-edge run --config /etc/fer-edge/config.toml --events mqtt
  fer-edge classify portrait.jpg group.png --json
  fer-edge verify --data fer2013.csv --split PublicTest
  fer-edge doctor --config /etc/fer-edge/config.toml

exit codes: 0 done; 1 some input could not be read, or doctor found a fault; 2 usage; 3 settings; 4 model bundle;
  5 camera, video or picture; 6 no TFLite runtime; 7 labelled data; 8 events not delivered; 10 camera stalled;
  130 interrupted
"""


def main() -> int:
    """Entry point of the ``fer-edge`` console script."""
    logging.basicConfig(format="fer-edge: %(message)s", level=logging.WARNING)
    exit_code = guarded("fer-edge", lambda: _main(sys.argv[1:]))
    leave(exit_code)
    return exit_code


def _main(argv: list[str]) -> int:
    arguments = _parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = arguments.command
    return command(arguments)


def _parser() -> argparse.ArgumentParser:
    def add(name: str, command: Callable[[argparse.Namespace], int], summary: str) -> argparse.ArgumentParser:
        parser = commands.add_parser(
            name,
            help=summary,
            description=summary,
            epilog=_EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.set_defaults(command=command)
        parser.add_argument("--config", type=Path, metavar="FILE", help="settings file (TOML)")
        return parser

    top = argparse.ArgumentParser(
        "fer-edge", description=__doc__, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    watch = add("run", run, "watch a source and tell what faces show")
    watch.add_argument(
        "--source",
        metavar="SOURCE",
        help="demo, a video file, a folder of pictures, /dev/video0, picamera2 (or picamera2:1 for the second camera), "
        "or the address of an MJPEG or RTSP stream (http://, https://, rtsp://); see docs/cameras.md",
    )
    watch.add_argument(
        "--events", choices=("-", "mqtt"), default="-", help="where events go: stdout (default) or the broker"
    )
    watch.add_argument(
        "--realtime", action="store_true", help="play a file at its own speed instead of as fast as possible"
    )
    watch.add_argument("--sheet", type=Path, metavar="PNG", help="write a contact sheet of annotated frames")
    classify = add("classify", _classify, "say what the faces in pictures show")
    classify.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    classify.add_argument("--json", action="store_true", help="one JSON object a line")
    check = add("verify", _verify, "measure the deployed model's accuracy on labelled faces")
    check.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="PATH",
        help="FER2013 CSV (.xz, .gz, .zip too) or label/*.png folders",
    )
    check.add_argument(
        "--split", metavar="NAME", help=f"{', '.join(SPLITS)} (CSV default: PublicTest), or a sub-folder"
    )
    check.add_argument("--json", action="store_true", help="print JSON")
    health = add("doctor", doctor, "check this device: one line a check, and the command that mends it")
    health.add_argument("--json", action="store_true", help="print a JSON list")
    return top


def _classify(arguments: argparse.Namespace) -> int:
    detector, classifier = FaceDetector(_STILL), make_classifier(load_settings(arguments.config))
    failed = 0
    for file in arguments.images:
        try:
            gray = read_gray(file)
        except SourceError as error:
            print(f"fer-edge: error: {error}", file=sys.stderr)
            failed = 1
            continue
        faces = [
            (box, classifier.classify(crop(gray, box, classifier.card.crop_margin))) for box in detector.detect(gray)
        ]
        print(_as_json(file, faces) if arguments.json else _as_text(file, faces), flush=True)
    return failed


def _as_json(file: Path, faces: list[tuple[Box, Expression]]) -> str:
    found = [
        {"box": [box.x, box.y, box.w, box.h], "expression": e.label, "confidence": e.confidence, "scores": e.scores}
        for box, e in faces
    ]
    return json.dumps({"source": str(file), "faces": found})


def _as_text(file: Path, faces: list[tuple[Box, Expression]]) -> str:
    found = (f"{e.label} {e.confidence:.0%} at {box.x},{box.y} ({box.w}x{box.h})" for box, e in faces)
    return f"{file}: " + ("; ".join(found) or "no face")


def _verify(arguments: argparse.Namespace) -> int:
    split = arguments.split or ("PublicTest" if arguments.data.is_file() else None)
    classifier = make_classifier(load_settings(arguments.config))
    told = report(classifier, *verify(classifier, read_faces(arguments.data, split)), split)
    print(json.dumps(told) if arguments.json else table(told))
    return 0
