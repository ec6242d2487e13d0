"""``fer-train``: train the networks on a workstation."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path

from edge.system.shutdown import guarded
from train import recipes
from train.recipes import RECIPES, Recipe, customize, find_recipe

_EXAMPLES = """examples:
  fer-train run student-small --data fer2013.csv --votes fer2013new.csv --weights student
  fer-train run paper --data fer2013.csv.xz --out runs/paper
  fer-train run shallow --data fer2013.csv --set epochs=2 --set optimizer=sgd --out /tmp/trial
  fer-train evaluate runs/paper --data fer2013.csv
  fer-train evaluate runs/co-teacher runs/paper --data fer2013.csv --tta 2      an ensemble with its mirror images
  fer-train bank runs/co-teacher --data fer2013.csv --out co-teacher.npz

The data is FER2013 as a CSV (plain, .gz, .xz, .zip, .tar.gz) or a tree of pictures: see docs/data.md. A run that was
interrupted is continued by the same command. Its result is turned into a deployable bundle by:
fer-export bundle RUN --data fer2013.csv --out DIR
"""


def main() -> int:
    """Entry point of the ``fer-train`` console script."""
    return guarded("fer-train", lambda: _main(sys.argv[1:]))


def _main(argv: list[str]) -> int:
    arguments = _parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = arguments.command
    return command(arguments)


def _models(_arguments: argparse.Namespace) -> int:
    from train.models.registry import MODELS, macs  # noqa: PLC0415  TensorFlow takes seconds to load; --help must not

    print(f"{'model':18}{'parameters':>12}{'trainable':>12}{'MMAC':>8}  what")
    for architecture in MODELS.values():
        model = architecture.build(0.0)
        trainable = sum(weight.shape.num_elements() for weight in model.trainable_weights)
        print(
            f"{architecture.name:18}{model.count_params():>12,}{trainable:>12,}{macs(model) / 1e6:>8.1f}  "
            f"{architecture.source}"
        )
    return 0


def _recipes(_arguments: argparse.Namespace) -> int:
    print(f"{(recipes.__doc__ or '').strip()}\n")
    defaults = {field.name: field.default for field in dataclasses.fields(Recipe)}
    for recipe in RECIPES.values():
        values = dataclasses.asdict(recipe)
        told = (f"{key}={value}" for key, value in values.items() if key != "name" and value != defaults[key])
        print(f"{recipe.name:18}{' '.join(told)}")
    print(f"{'otherwise':18}{' '.join(f'{k}={v}' for k, v in defaults.items() if v is not dataclasses.MISSING)}")
    return 0


def _run(arguments: argparse.Namespace) -> int:
    recipe = customize(find_recipe(arguments.recipe), arguments.set)
    folder = arguments.out or Path("runs") / recipe.name
    from train.distributed import Workers  # noqa: PLC0415
    from train.run import Sources, execute  # noqa: PLC0415  as above

    sources = Sources(arguments.data, arguments.weights, arguments.votes, arguments.skip_bad)
    run = execute(recipe, sources, folder, Workers(arguments.strategy))
    assert run.best is not None
    print(
        f"{folder}: epoch {run.best.epoch + 1}, chosen by {run.measured}: accuracy {run.best.accuracy:.2%}, "
        f"macro-F1 {run.best.macro_f1:.2%} (Keras float32, single crop); see {folder / 'report.html'}"
    )
    return 0


def _evaluate(arguments: argparse.Namespace) -> int:
    from edge.evaluation.fer2013 import measured_split, read_faces  # noqa: PLC0415
    from train.evaluation.evaluate import as_json, evaluate, format_evaluation  # noqa: PLC0415

    faces = read_faces(arguments.data, arguments.split or measured_split(arguments.data))
    told = evaluate(arguments.subjects, faces, arguments.tta, arguments.keep)
    if arguments.out:
        from train.report import draw_confusion  # noqa: PLC0415  matplotlib

        draw_confusion(told.figures, arguments.out)
    print(json.dumps(as_json(told)) if arguments.json else format_evaluation(told))
    return 0


def _bank(arguments: argparse.Namespace) -> int:
    from train.evaluation.predictors import bank  # noqa: PLC0415  TensorFlow

    made = bank(arguments.subject, arguments.data, arguments.views, arguments.seed)
    made.save(arguments.out)
    print(
        f"{arguments.out}: {len(made.logits)} views of {made.logits.shape[1]} faces; int8 logits, step {made.scale:.3f}"
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "fer-train", description=__doc__, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    data = argparse.ArgumentParser(add_help=False)
    data.add_argument(
        "--data", type=Path, required=True, metavar="PATH", help="FER2013: its CSV in any form, or a tree of pictures"
    )
    _add_run(commands, data)
    _add_evaluate(commands, data)
    _add_bank(commands, data)
    commands.add_parser("models", help="list the networks with their size and source").set_defaults(command=_models)
    commands.add_parser("recipes", help="list the recipes with their commands, hours and figures").set_defaults(
        command=_recipes
    )
    return parser


def _add_run(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", data: argparse.ArgumentParser) -> None:
    run = commands.add_parser(
        "run",
        help="train one recipe",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[data],
    )
    run.set_defaults(command=_run)
    run.add_argument("recipe", help=f"what to train: {', '.join(RECIPES)}")
    run.add_argument(
        "--skip-bad", action="store_true", help="list the rows that cannot be used, and go on without them"
    )
    run.add_argument("--out", type=Path, metavar="DIR", help="run folder (default: runs/RECIPE)")
    run.add_argument(
        "--weights",
        default="none",
        metavar="imagenet|vggface|none|PATH",
        help="weights to start from: published ones, an earlier run, or a bundle; of the same network or, for the "
        "other students, of student, for the teacher of student-half (docs/models.md says which network takes which)",
    )
    run.add_argument(
        "--votes", type=Path, metavar="CSV", help="FERPlus votes, fer2013new.csv, for recipes that learn from them"
    )
    run.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change one value of the recipe")
    run.add_argument(
        "--strategy",
        choices=["single", "mirrored", "multiworker"],
        default="single",
        help="one process; all GPUs of this machine; or the machines that TF_CONFIG names",
    )


def _add_evaluate(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", data: argparse.ArgumentParser
) -> None:
    evaluate = commands.add_parser("evaluate", help="measure runs or bundles on labelled faces", parents=[data])
    evaluate.set_defaults(command=_evaluate)
    evaluate.add_argument(
        "subjects",
        type=Path,
        nargs="+",
        metavar="RUN|BUNDLE|NPZ",
        help="a run folder, a bundle or its name, or kept answers; of several the probabilities are averaged",
    )
    evaluate.add_argument("--split", help="which part of the data (default: PublicTest where there is one)")
    evaluate.add_argument(
        "--tta", type=int, default=1, metavar="N", help="average N test-time views, 2 to 10 (default: single crop)"
    )
    evaluate.add_argument(
        "--keep", type=Path, metavar="NPZ", help="keep what it says of every face, for ensembles without the network"
    )
    evaluate.add_argument("--out", type=Path, metavar="SVG", help="draw the confusion matrix into this file")
    evaluate.add_argument("--json", action="store_true", help="print JSON")


def _add_bank(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", data: argparse.ArgumentParser) -> None:
    bank = commands.add_parser("bank", help="keep what a trained teacher says, for distillation", parents=[data])
    bank.set_defaults(command=_bank)
    bank.add_argument(
        "subject", type=Path, metavar="RUN|BUNDLE", help="the teacher: a run folder, a bundle or its name"
    )
    bank.add_argument("--out", type=Path, required=True, metavar="FILE", help="the view bank to write (.npz)")
    bank.add_argument("--views", type=int, default=8, metavar="K", help="augmented views a face (default: %(default)s)")
    bank.add_argument("--seed", type=int, default=1, help="draws the views; teachers that are averaged share it")
