"""Find faces in a camera's pictures, classify the expression of each, and report events."""

import argparse
import io
import logging
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Final, TypeAlias

os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")  # our own errors say what OpenCV and FFmpeg would print
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

from edge.cli.arguments import Once, Version, not_empty, whole_number
from edge.system.memory_dump import forbid_memory_dumps
from edge.system.shutdown import exit_if_camera_hangs, guarded

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

_EXIT_CODES: Final = """exit codes: 0 success; 1 some input could not be read, or doctor found a fault; 2 wrong usage;
  3 settings; 4 model bundle; 5 camera, video or picture; 6 no TFLite runtime; 7 labelled data;
  8 events not delivered; 9 a system command failed; 10 camera stalled;
  18 outbox in use, or state not saved; 21 Edge TPU failed;
  23 the model does not work as its card states; 130 interrupted
  (docs/troubleshooting.md says what to do about each)
"""

_BENCH: Final = """With --source, fer-edge is compared with the baseline: OpenCV's tutorial loop. It runs
detectMultiScale(1.1, 5) on every whole grey frame, and classifies each face that it finds
with the same model. Both process the same decoded frames in turn, in one thread; decoding is
not counted. docs/performance-method.md explains each figure. `fer-export clips` makes clips with
their ground truth.
"""

_DEVICE_CONFIG: Final = "settings file (default: /etc/fer-edge/config.toml, if it exists)"


def main() -> int:
    """Entry point of the ``fer-edge`` console script."""
    logging.basicConfig(format="fer-edge: %(message)s", level=logging.WARNING)
    forbid_memory_dumps()
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files need not be UTF-8; stderr does this by itself
        sys.stdout.reconfigure(errors="backslashreplace")
    exit_code = guarded("fer-edge", lambda: _main(sys.argv[1:]))
    exit_if_camera_hangs(exit_code)
    return exit_code


def _main(argv: list[str]) -> int:
    arguments = _parser().parse_args(argv)
    # Commands are imported only now: --help is quick, and doctor works where numpy or OpenCV cannot be imported.
    module, function = arguments.command
    command: Callable[[argparse.Namespace], int] = getattr(import_module(module), function)
    return command(arguments)


def _parser() -> argparse.ArgumentParser:
    examples = (
        "fer-edge run --source demo                    a built-in ten-second demonstration",
        "fer-edge run --source visit.mp4               the events of a video, as JSON lines",
        "fer-edge run --config /etc/fer-edge/config.toml --events mqtt",
        "fer-edge classify portrait.jpg group.png",
        "fer-edge preview --source /dev/video0         mount a camera by looking",
        "fer-edge doctor --config /etc/fer-edge/config.toml",
        "fer-edge COMMAND --help                       the options and examples of a command",
    )
    top = argparse.ArgumentParser(
        "fer-edge",
        description=__doc__,
        epilog=_epilog(examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action=Version)
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    _add_run(commands)
    _add_preview(commands)
    _add_replay(commands)
    _add_classify(commands)
    _add_verify(commands)
    _add_doctor(commands)
    _add_bench(commands)
    _add_model(commands)
    _add_service(commands)
    return top


def _add(
    commands: Commands, name: str, command: tuple[str, str] | None, summary: str, epilog: str
) -> argparse.ArgumentParser:
    """Add a command; ``command`` are the module and the name of its function, None when it only has actions."""
    parser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[:1].upper()}{summary[1:]}.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if command:
        parser.set_defaults(command=command)
    return parser


def _epilog(examples: Sequence[str], text: str = "") -> str:
    lines = "\n".join(f"  {example}" for example in examples)
    return "\n".join(part for part in (text, f"examples:\n{lines}\n", _EXIT_CODES) if part)


def _add_config(parser: argparse.ArgumentParser, meaning: str = "settings file (TOML)") -> None:
    parser.add_argument("--config", type=Path, metavar="FILE", help=meaning)


def _add_json(parser: argparse.ArgumentParser, meaning: str = "print JSON") -> None:
    parser.add_argument("--json", action="store_true", help=meaning)


def add_source(parser: argparse.ArgumentParser) -> None:
    """Add what is watched, which ``fer-train watch`` has too."""
    parser.add_argument(
        "--source",
        type=not_empty,
        metavar="SOURCE",
        help="demo, a video file, a folder of pictures, /dev/video0, picamera2 (or picamera2:1 for the second camera), "
        "or a stream's address (http://, https://, rtsp://, rtsps://, rtmp://, tcp://, udp://); see docs/cameras.md",
    )


def _add_run(commands: Commands) -> None:
    examples = (
        "fer-edge run --source demo --sheet demo.png   a built-in demonstration, and a picture of it",
        "fer-edge run --source visit.mp4               the events of a video, as JSON lines",
        "fer-edge run --source /dev/video0",
        "fer-edge run --config /etc/fer-edge/config.toml --events mqtt",
        "fer-edge run --record visits.jsonl            also record what was read from faces, for replay",
    )
    summary = "watch a camera, video or folder of pictures, and print or publish events"
    run = _add(commands, "run", ("edge.app.run", "run"), summary, _epilog(examples))
    _add_config(run)
    add_source(run)
    run.add_argument(
        "--events", choices=("-", "mqtt"), default="-", help="where events go: - is stdout (default), mqtt the broker"
    )
    add_watching(run)


def add_watching(parser: argparse.ArgumentParser) -> None:
    """Add how a source is watched, and what is kept of it, which ``fer-train watch`` has too."""
    parser.add_argument("--realtime", action="store_true", help="play a file at its own speed, not as fast as possible")
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="write a contact sheet of annotated frames")
    parser.add_argument(
        "--record", type=Path, metavar="FILE", help="record boxes and scores of faces for replay; no pictures"
    )
    parser.add_argument(
        "--no-metrics", action="store_true", help="serve no metrics, as beside the service whose settings these are"
    )


def _add_preview(commands: Commands) -> None:
    examples = (
        "fer-edge preview --source /dev/video0         for a browser on this machine",
        "fer-edge preview --listen 0.0.0.0             for one on the network, such as a telephone's",
        "sudo -u fer-edge fer-edge preview --config /etc/fer-edge/config.toml",
    )
    text = (
        "It is started by hand only, never by the service, and ends by itself after ten minutes. It stores nothing.\n"
        "Stop the service first: only one program can use a camera. docs/cameras.md explains the page.\n"
    )
    summary = "show the live picture with its faces on a page, to mount and light a camera by looking"
    preview = _add(commands, "preview", ("edge.cli.preview", "preview"), summary, _epilog(examples, text))
    _add_config(preview)
    add_source(preview)
    preview.add_argument(
        "--listen",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="the address of this machine to serve the page at; 0.0.0.0 for all (default: 127.0.0.1)",
    )
    preview.add_argument(
        "--port", type=_port, default=9470, metavar="N", help="the port of the page (default: 9470; 0: any free one)"
    )


def _add_replay(commands: Commands) -> None:
    examples = (
        "fer-edge run --source visit.mp4 --record visits.jsonl",
        "fer-edge replay visits.jsonl                  the same events again, byte for byte",
        "fer-edge replay visits.jsonl --config other.toml",
    )
    summary = "print the events of a recording again"
    replay = _add(commands, "replay", ("edge.cli.replay", "replay"), summary, _epilog(examples))
    _add_config(replay, "settings file whose [events] and presets replace the recorded ones")
    replay.add_argument("recording", type=Path, metavar="FILE", help="a file that run --record has written")


def _add_classify(commands: Commands) -> None:
    examples = (
        "fer-edge classify portrait.jpg",
        "fer-edge classify portrait.jpg group.png --json",
        "fer-edge classify holiday --bundle student-small          all pictures of a folder",
    )
    summary = "find the faces in pictures and classify their expressions"
    classify = _add(commands, "classify", ("edge.cli.classify", "classify"), summary, _epilog(examples))
    _add_config(classify, "settings file: [model], and rotation, mirroring and [detect] as for the camera")
    classify.add_argument(
        "--bundle",
        action=Once,
        type=not_empty,
        metavar="NAME|FOLDER",
        help="the model: the name of a bundled one, or a bundle's folder (default: the one that a run would use)",
    )
    add_pictures(classify)


def add_pictures(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of edge.cli.classify.find_faces, which ``fer-train classify`` has too."""
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="a picture file, or a folder of pictures")
    _add_json(parser, "print one JSON object per picture")


def _add_verify(commands: Commands) -> None:
    examples = (
        "fer-edge verify                               model file, runtime and preparation of pictures",
        "fer-edge verify --data fer2013.csv --split PublicTest",
        "fer-edge verify --config /etc/fer-edge/config.toml --publish",
    )
    summary = "check that the deployed model works on this device as its card states"
    verify = _add(commands, "verify", ("edge.cli.verify", "verify"), summary, _epilog(examples))
    _add_config(verify, _DEVICE_CONFIG)
    verify.add_argument(
        "--data",
        type=Path,
        action=Once,
        metavar="PATH",
        help="labelled faces to measure the accuracy on: FER2013's CSV (plain, .gz, .xz, .zip, .tar.gz) or a folder "
        "with one folder of pictures per label; see docs/data.md",
    )
    verify.add_argument(
        "--split",
        metavar="NAME",
        help="Training, PublicTest, PrivateTest, validation or test (default: PublicTest; for folders without it "
        "validation, else test, else all pictures)",
    )
    verify.add_argument("--publish", action="store_true", help="publish the result, retained, to the settings' broker")
    _add_json(verify)


def _add_doctor(commands: Commands) -> None:
    examples = ("fer-edge doctor", "fer-edge doctor --config /etc/fer-edge/config.toml --json")
    summary = "check this device: one line per check, and how to repair what is faulty"
    doctor = _add(commands, "doctor", ("edge.cli.doctor", "doctor"), summary, _epilog(examples))
    _add_config(doctor)
    _add_json(doctor, "print a JSON list")


def _add_bench(commands: Commands) -> None:
    examples = (
        "fer-edge bench --source demo",
        "fer-edge bench --source clips/*.avi --picture bench.png",
        "fer-edge bench --source videos/*.mp4 --truth annotations",
        "fer-edge bench --source my.mp4 --bundle my-bundle --json",
        "sudo fer-edge bench --autotune                find and keep the fastest accelerator and threads",
    )
    summary = "measure what a frame costs, or find what classifies fastest on this device"
    bench = _add(commands, "bench", ("edge.cli.bench", "bench"), summary, _epilog(examples, _BENCH))
    _add_config(bench, "settings file (TOML; for --autotune by default that of the service, if it exists)")
    what = bench.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--source",
        nargs="+",
        type=not_empty,
        metavar="CLIP",
        help="videos or folders of pictures to compare on, or demo",
    )
    what.add_argument(
        "--autotune",
        dest="command",
        action="store_const",
        const=("edge.cli.autotune", "autotune"),
        help="time the network on the CPU, with one thread and more, and on the Edge TPU; keep the fastest for run",
    )
    bench.add_argument(
        "--truth",
        type=Path,
        metavar="PATH",
        help="ground truth of the clip, or a folder with NAME.json of each video (default: CLIP.truth.jsonl)",
    )
    bench.add_argument(
        "--bundle", type=not_empty, metavar="NAME", help="the model for both loops (default: the settings' model)"
    )
    _add_json(bench)
    bench.add_argument(
        "--picture",
        type=Path,
        metavar="PNG",
        help="draw the milliseconds of each stage, or with annotated videos which faces are found",
    )
    bench.add_argument(
        "--starts",
        type=whole_number(1, 99_999),
        default=3,
        metavar="N",
        help="how often to start `fer-edge run`, to measure its memory and the time to its first event (default: 3)",
    )


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 6 and int(text) <= 65_535):
        raise argparse.ArgumentTypeError(f"{text!r} is no port: give a number from 0 to 65535")
    return int(text)


def _add_model(commands: Commands) -> None:
    examples = (
        "fer-edge model list",
        "fer-edge model show student-small             what it can do, and what it was made of",
        "sudo fer-edge model install my-bundle.zip     check it, test it on this device, and use it",
        "sudo fer-edge model use student-small",
        "sudo fer-edge model rollback                  use the previous model again",
    )
    text = "docs/device-models.md explains what is checked, what is kept, and when the service falls back.\n"
    epilog = _epilog(examples, text)
    model = _add(commands, "model", None, "list, show, install, choose or roll back the models of this device", epilog)
    actions = model.add_subparsers(required=True, metavar="ACTION")

    def add(name: str, function: str, summary: str) -> argparse.ArgumentParser:
        parser = _add(actions, name, ("edge.cli.model", function), summary, epilog)
        _add_config(parser, _DEVICE_CONFIG)
        return parser

    _add_json(add("list", "list_models", "list the models of this device and show which one is in use"), "print JSON")
    show = add("show", "show_model", "show a model's card: accuracy, limits, and everything that it was made of")
    show.add_argument(
        "name",
        nargs="?",
        default="",
        metavar="NAME|FOLDER",
        help="a model of this device, or a bundle's folder (default: the model in use)",
    )
    _add_json(show, "print the card's JSON")
    install = add("install", "install_model", "check a bundle, run its golden inputs on this device, and use it")
    install.add_argument("bundle", type=Path, metavar="BUNDLE", help="the bundle's folder, or a zip of it")
    use = add("use", "use_model", "use a model that is on this device")
    use.add_argument("name", metavar="NAME", help="a name that `fer-edge model list` shows")
    rollback = add("rollback", "roll_back_model", "use the previous model again")
    for parser in (install, use, rollback):
        parser.add_argument("--no-restart", action="store_true", help="do not restart the running service")


def _add_service(commands: Commands) -> None:
    examples = (
        "sudo /opt/fer-edge/bin/fer-edge service install",
        "sudo /opt/fer-edge/bin/fer-edge service install --instance door    for a second camera on this board",
        "fer-edge service status",
        "sudo fer-edge service uninstall",
    )
    epilog = _epilog(examples, "docs/service.md explains what the service may do and what it keeps.\n")
    service = _add(commands, "service", None, "install or remove the systemd service, or show its state", epilog)
    actions = service.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, summary in (
        ("install", "make this virtual environment the systemd service fer-edge, and start it"),
        ("uninstall", "stop the service and remove it; settings and state stay"),
    ):
        parser = _add(actions, name, ("edge.cli.service", f"{name}_service"), summary, epilog)
        parser.add_argument("--dry-run", action="store_true", help="print the steps without carrying them out")
        parser.add_argument(
            "--from-package",
            action="store_true",
            help="for the scripts of the Debian package: upgrade or remove what is installed, and enable nothing again",
        )
        _add_instance(parser)
    summary = "show whether the service works, and why it last ended"
    status = _add(actions, "status", ("edge.cli.service", "service_status"), summary, epilog)
    _add_json(status)
    _add_instance(status)


def _add_instance(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--instance",
        metavar="NAME",
        help="a further service with this name, for another camera; its settings are in /etc/fer-edge/NAME",
    )
