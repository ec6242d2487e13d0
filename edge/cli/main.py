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

from edge.system.shutdown import guarded, leave

_EXAMPLES = """examples:
  fer-edge run --source demo                        a built-in ten-second demonstration
  fer-edge run --source visit.mp4                   events of a video, as JSON lines
  fer-edge run --config /etc/fer-edge/config.toml --events mqtt
  fer-edge run --record visits.jsonl                what was read of faces, to be told again
  fer-edge replay visits.jsonl                      the same events; with --config: as these settings tell them
  fer-edge classify portrait.jpg group.png --json
  fer-edge verify                                   golden outputs: file, runtime, preparation of pictures
  fer-edge verify --data fer2013.csv --split PublicTest
  fer-edge bench --source visit.avi --picture bench.png
  fer-edge bench --autotune
  sudo fer-edge model install my-bundle.zip         checked, tried here, then in use; falls back by itself
  fer-edge doctor --config /etc/fer-edge/config.toml

exit codes: 0 done; 1 some input could not be read, or doctor found a fault; 2 usage; 3 settings; 4 model bundle;
  5 camera, video or picture; 6 no TFLite runtime; 7 labelled data; 8 events not delivered; 9 a system command failed;
  10 camera stalled; 18 outbox in use, or state not kept; 21 Edge TPU failed; 23 the model
  does not do what its card says; 130 interrupted
"""

_BENCH = """Both sides see the same decoded frames in turn, in one thread; decoding is not counted. The tutorial's loop
scans the whole grey picture with detectMultiScale(1.1, 5) and classifies each face in each frame, by the same model.
`fer-export clips` makes clips with their truth. docs/performance.md says what each figure means.

examples:
  fer-edge bench --source demo
  fer-edge bench --source clips/visit.avi
  fer-edge bench --source clips/*.avi --picture bench.png
  fer-edge bench --source clips/empty.avi --json
  fer-edge bench --source my.mp4 --bundle my-bundle
  fer-edge bench --autotune                         threads and accelerator, kept in the state folder
"""

_DEVICE_CONFIG = "settings file (default: /etc/fer-edge/config.toml, if there)"


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
    def add(
        name: str, command: tuple[str, str], summary: str, config: str = "settings file (TOML)"
    ) -> argparse.ArgumentParser:
        parser = commands.add_parser(
            name,
            help=summary,
            description=summary,
            epilog=_EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.set_defaults(module=command[0], function=command[1])
        parser.add_argument("--config", type=Path, metavar="FILE", help=config)
        return parser

    top = argparse.ArgumentParser(
        "fer-edge", description=__doc__, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    _add_watch(add("run", ("edge.app.run", "run"), "watch a source and tell what faces show"))
    again = add("replay", ("edge.app.recording", "replay"), "tell the events of a recording again, byte for byte")
    again.add_argument("recording", type=Path, metavar="FILE", help="what run --record wrote")
    classify = add("classify", ("edge.cli.classify", "classify"), "say what the faces in pictures show")
    classify.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    classify.add_argument("--json", action="store_true", help="one JSON object a line")
    summary = "check that the deployed model does here what its card says"
    _add_check(add("verify", ("edge.model.verification", "command"), summary, _DEVICE_CONFIG))
    summary = "check this device: one line a check, and the command that mends it"
    add("doctor", ("edge.cli.doctor", "doctor"), summary).add_argument(
        "--json", action="store_true", help="print a JSON list"
    )
    _add_bench(
        add("bench", ("edge.cli.bench", "command"), "measure what a frame costs, or what is fastest on this device")
    )
    _add_model(commands)
    _add_service(commands)
    return top


def _add_watch(watch: argparse.ArgumentParser) -> None:
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
    watch.add_argument(
        "--record",
        type=Path,
        metavar="FILE",
        help="write what was read of faces, for replay: boxes and scores, no pictures",
    )


def _add_check(check: argparse.ArgumentParser) -> None:
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


def _add_bench(bench: argparse.ArgumentParser) -> None:
    bench.epilog = _BENCH
    what = bench.add_mutually_exclusive_group(required=True)
    what.add_argument("--source", type=Path, nargs="+", metavar="CLIP", help="videos, folders of pictures, or demo")
    what.add_argument(
        "--autotune",
        dest="module",
        action="store_const",
        const="edge.model.tuning",
        help="instead: time the network on the CPU, with one thread and more, and on the Edge TPU, and keep the choice",
    )
    bench.add_argument(
        "--truth", type=Path, metavar="FILE", help="what the clip really shows (default: CLIP.truth.jsonl, if there)"
    )
    bench.add_argument("--bundle", metavar="NAME", help="the model of both (default: as the settings say)")
    bench.add_argument("--json", action="store_true", help="print JSON")
    bench.add_argument("--picture", type=Path, metavar="PNG", help="draw where the milliseconds go")
    bench.add_argument(
        "--starts",
        type=_times,
        default=3,
        metavar="N",
        help="how often to start `fer-edge run` for its memory and the time to its first event (default: 3)",
    )


def _times(text: str) -> int:
    times = int(text)
    if times < 1:
        raise argparse.ArgumentTypeError("at least once")
    return times


def _add_model(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    model = commands.add_parser("model", help="which models are on this device, and which one is in use")
    actions = model.add_subparsers(required=True, metavar="ACTION")

    def add(name: str, function: str, summary: str) -> argparse.ArgumentParser:
        parser = actions.add_parser(
            name, help=summary, description=summary, epilog="docs/device-models.md tells what is checked and kept."
        )
        parser.set_defaults(module="edge.cli.model", function=function)
        parser.add_argument("--config", type=Path, metavar="FILE", help=_DEVICE_CONFIG)
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
        parser.set_defaults(module="edge.system.installer", function=name)
    summary = "say whether the service works, and why it last ended"
    status = actions.add_parser("status", help=summary, description=summary)
    status.add_argument("--json", action="store_true", help="print JSON")
    status.set_defaults(module="edge.system.installer", function="status")
