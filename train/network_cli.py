"""The commands of ``fer-train`` that use a trained network: evaluate, predict, classify and watch."""

import argparse
import json
from pathlib import Path
from typing import TypeAlias

from edge.cli.arguments import Once, network_path
from edge.cli.main import add_pictures, add_source, add_watching
from edge.system.memory_dump import forbid_memory_dumps
from train.outputs import check_output
from train.startup import start_tensorflow

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

_PREDICT_DESCRIPTION = """\
Name the expression of each face of the challenge's test.csv, of any other CSV with a column pixels, or of a folder of
pictures. The CSV that is written has a line for each: the data row, counted from 0, or the picture; the number of the
class in FER2013's order; its name; the confidence. Pictures are cropped faces, as FER2013's are; `fer-train classify`
finds the faces in whole pictures."""

_CLASSIFY_DESCRIPTION = """\
Find the faces in pictures as `fer-edge classify` does, and classify their expressions with a training run of any
network, in float32, or with a bundle. A run has the crop margin of a new bundle. Its confidences are not calibrated."""

_WATCH_DESCRIPTION = """\
Watch a camera, video or folder of pictures as `fer-edge run` does, and print the events; the faces are classified with
a training run of any network, in float32, or with a bundle. A run has no threshold below which an expression is
uncertain, unless the settings file has one under [events]. A large network may take longer than a frame: then a camera
loses frames."""


def add_network_commands(commands: Commands) -> None:
    """Add the parsers of these commands."""
    _add_evaluate(commands)
    _add_predict(commands)
    classify = _add(
        commands, "classify", "find the faces in pictures and classify them with a run", _CLASSIFY_DESCRIPTION
    )
    classify.set_defaults(command=_classify)
    add_pictures(classify)
    watch = _add(commands, "watch", "watch a camera or video with a run", _WATCH_DESCRIPTION)
    watch.set_defaults(command=_watch, events="-")
    add_source(watch)
    add_watching(watch)


def _evaluate(arguments: argparse.Namespace) -> int:
    start_tensorflow()
    from edge.evaluation.fer2013 import measured_split, read_faces  # noqa: PLC0415
    from train.evaluation.evaluate import as_json, evaluate, format_evaluation  # noqa: PLC0415

    if arguments.out:
        check_output(arguments.out, arguments.data)
    faces = read_faces(arguments.data, arguments.split or measured_split(arguments.data))
    evaluation = evaluate(arguments.predictors, faces, arguments.tta, arguments.keep, arguments.votes)
    print(json.dumps(as_json(evaluation)) if arguments.json else format_evaluation(evaluation), flush=True)
    if arguments.out:  # last, so that the figures are not lost when the disk is full
        from train.report import draw_confusion  # noqa: PLC0415  matplotlib

        draw_confusion(evaluation.figures, arguments.out)
    return 0


def _predict(arguments: argparse.Namespace) -> int:
    start_tensorflow()
    from train.evaluation.predict import predict  # noqa: PLC0415  TensorFlow

    counts = predict(arguments.predictor, arguments.data, arguments.out, arguments.tta)
    named = ", ".join(f"{label} {count:,}" for label, count in counts.most_common())
    print(f"{arguments.out}: {counts.total():,} faces: {named}")
    return 0


def _classify(arguments: argparse.Namespace) -> int:
    forbid_memory_dumps()
    start_tensorflow()
    from edge.cli.classify import find_faces, print_expressions  # noqa: PLC0415  OpenCV
    from edge.settings import load_settings  # noqa: PLC0415
    from train.evaluation.watching import PredictorClassifier  # noqa: PLC0415  TensorFlow

    classifier = PredictorClassifier(arguments.predictor, arguments.tta)
    pictures = find_faces(arguments.images, load_settings(arguments.config), classifier.card.crop_margin)
    return print_expressions("fer-train", pictures, classifier, as_json=arguments.json)


def _watch(arguments: argparse.Namespace) -> int:
    forbid_memory_dumps()
    start_tensorflow()
    from edge.app.run import run  # noqa: PLC0415  OpenCV
    from train.evaluation.watching import PredictorClassifier, as_deployed  # noqa: PLC0415  TensorFlow

    deployed = as_deployed(PredictorClassifier(arguments.predictor, arguments.tta))
    return run(arguments, lambda *_: deployed)


def _add(commands: Commands, name: str, summary: str, description: str) -> argparse.ArgumentParser:
    """Add a command that takes a run or bundle, test-time views and a settings file."""
    parser = commands.add_parser(name, help=summary, description=description)
    _add_predictor(parser)
    _add_tta(parser)
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="settings file (TOML) of a device: [camera], [detect], [events]"
    )
    return parser


def _add_predictor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "predictor", type=network_path, metavar="RUN|BUNDLE", help="a run folder, or a bundle's folder or name"
    )


def _add_evaluate(commands: Commands) -> None:
    summary = "measure runs, bundles or an ensemble on labelled faces"
    evaluate = commands.add_parser("evaluate", help=summary, description=f"{summary.capitalize()}.")
    evaluate.set_defaults(command=_evaluate)
    evaluate.add_argument(
        "--data",
        type=Path,
        required=True,
        action=Once,
        metavar="PATH",
        help="FER2013: its CSV (also compressed), or a tree of pictures",
    )
    evaluate.add_argument(
        "predictors",
        type=network_path,
        nargs="+",
        metavar="RUN|BUNDLE|NPZ",
        help="a run folder, a bundle's folder or name, or predictions saved by --keep; several are measured as an "
        "ensemble: their probabilities are averaged",
    )
    evaluate.add_argument("--split", help="the split to measure on (default: PublicTest if the data has it)")
    _add_tta(evaluate)
    evaluate.add_argument(
        "--votes",
        type=Path,
        metavar="CSV",
        help="the FERPlus file fer2013new.csv: also print the accuracy where its majority agrees with the label",
    )
    evaluate.add_argument(
        "--keep",
        type=Path,
        metavar="NPZ",
        help="save the predictions, for ensembles that are measured later without the network",
    )
    evaluate.add_argument("--out", type=Path, metavar="SVG", help="write a drawing of the confusion matrix")
    evaluate.add_argument("--json", action="store_true", help="print JSON")


def _add_tta(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tta",
        type=int,
        default=1,
        metavar="N",
        help="test-time augmentation: average N shifted and mirrored views, 2 to 10 (default: 1, none)",
    )


def _add_predict(commands: Commands) -> None:
    predict = commands.add_parser(
        "predict", help="name the expressions of faces without labels", description=_PREDICT_DESCRIPTION
    )
    predict.set_defaults(command=_predict)
    _add_predictor(predict)
    predict.add_argument(
        "--data",
        type=Path,
        required=True,
        action=Once,
        metavar="PATH",
        help="a CSV with a column pixels (also compressed), or a folder of pictures of faces",
    )
    predict.add_argument("--out", type=Path, required=True, metavar="CSV", help="the file of answers to write")
    _add_tta(predict)
