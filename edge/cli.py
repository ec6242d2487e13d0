"""``fer-edge``: see faces, say which of seven expressions they show, tell it as events."""

import argparse
import logging
import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")  # what OpenCV and FFmpeg grumble is said by our own errors
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

from edge.ending import guarded, leave

_EXAMPLES = """examples:
  fer-edge run --source demo                        a built-in ten-second demonstration
  fer-edge run --source visit.mp4                   events of a video, as JSON lines
  fer-edge run --config /etc/fer-edge/config.toml --events mqtt
  fer-edge classify portrait.jpg group.png --json
  fer-edge verify                                   golden outputs: file, runtime, preparation of pictures
  fer-edge verify --data fer2013.csv --split PublicTest
  sudo fer-edge model install my-bundle.zip         checked, tried here, then in use; falls back by itself
  fer-edge doctor --config /etc/fer-edge/config.toml

exit codes: 0 done; 1 some input could not be read, or doctor found a fault; 2 usage; 3 settings; 4 model bundle;
  5 camera, video or picture; 6 no TFLite runtime; 7 labelled data; 8 events not delivered; 9 a system command failed;
  10 camera stalled; 18 outbox in use, or the state cannot be written; 23 the model does not do
  what its card says; 130 interrupted
"""


def main() -> int:
    """Entry point of the ``fer-edge`` console script."""
    logging.basicConfig(format="fer-edge: %(message)s", level=logging.WARNING)
    exit_code = guarded("fer-edge", lambda: _main(sys.argv[1:]))
    leave(exit_code)
    return exit_code


def _main(argv: list[str]) -> int:
    arguments = _parser().parse_args(argv)
    # Loaded only now: --help is quick, and doctor can say what is wrong when numpy or OpenCV does not import.
    command: Callable[[argparse.Namespace], int] = getattr(import_module(arguments.module), arguments.function)
    return command(arguments)


def _parser() -> argparse.ArgumentParser:
    def add(name: str, command: tuple[str, str], summary: str) -> argparse.ArgumentParser:
        parser = commands.add_parser(
            name,
            help=summary,
            description=summary,
            epilog=_EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.set_defaults(module=command[0], function=command[1])
        parser.add_argument("--config", type=Path, metavar="FILE", help="settings file (TOML)")
        return parser

    top = argparse.ArgumentParser(
        "fer-edge", description=__doc__, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    watch = add("run", ("edge.run", "run"), "watch a source and tell what faces show")
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
    classify = add("classify", ("edge.stills", "classify"), "say what the faces in pictures show")
    classify.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    classify.add_argument("--json", action="store_true", help="one JSON object a line")
    check = add("verify", ("edge.verify", "command"), "check that the deployed model does here what its card says")
    check.add_argument(
        "--data",
        type=Path,
        metavar="PATH",
        help="labelled faces, to measure accuracy too: FER2013's CSV (plain, .gz, .xz, .zip, .tar.gz) or a tree of "
        "pictures; see docs/data.md",
    )
    check.add_argument(
        "--split",
        metavar="NAME",
        help="Training, PublicTest, PrivateTest, validation or test (default: PublicTest; of a tree without it, "
        "validation, test, or all there is)",
    )
    check.add_argument("--publish", action="store_true", help="retain the result at the broker of the settings")
    check.add_argument("--json", action="store_true", help="print JSON")
    health = add(
        "doctor", ("edge.doctor", "doctor"), "check this device: one line a check, and the command that mends it"
    )
    health.add_argument("--json", action="store_true", help="print a JSON list")
    _add_model(commands)
    _add_service(commands)
    return top


def _add_model(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    model = commands.add_parser("model", help="which models are on this device, and which one is in use")
    actions = model.add_subparsers(required=True, metavar="ACTION")

    def add(name: str, function: str, summary: str) -> argparse.ArgumentParser:
        parser = actions.add_parser(
            name, help=summary, description=summary, epilog="docs/device-models.md tells what is checked and kept."
        )
        parser.set_defaults(module="edge.swap", function=function)
        parser.add_argument(
            "--config", type=Path, metavar="FILE", help="settings file (default: /etc/fer-edge/config.toml, if there)"
        )
        return parser

    add("list", "listing", "say what there is").add_argument("--json", action="store_true", help="print a JSON list")
    installing = add("install", "install", "check a bundle, run its golden inputs here, and put it in use")
    installing.add_argument("bundle", type=Path, metavar="BUNDLE", help="its folder, or a zip of it")
    using = add("use", "use", "put a model in use that is on this device")
    using.add_argument("name", metavar="NAME", help="as `fer-edge model list` calls it")
    for parser in (installing, using, add("rollback", "rollback", "put the model in use that was before")):
        parser.add_argument("--no-restart", action="store_true", help="leave the running service alone")


def _add_service(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    service = commands.add_parser("service", help="install, remove or ask the systemd service")
    actions = service.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, summary in (
        ("install", "make this virtual environment the systemd service fer-edge, and start it"),
        ("uninstall", "stop the service and remove it; settings and state stay"),
    ):
        parser = actions.add_parser(name, help=summary, description=summary)
        parser.add_argument("--dry-run", action="store_true", help="print what would be done, and do nothing")
        parser.set_defaults(module="edge.install", function=name)
    summary = "say whether the service works, and why it last ended"
    status = actions.add_parser("status", help=summary, description=summary)
    status.add_argument("--json", action="store_true", help="print JSON")
    status.set_defaults(module="edge.install", function="status")
