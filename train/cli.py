"""``fer-train``: train expression networks on a workstation, and measure them."""

import argparse
import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edge.cli.arguments import Once, Version, network_path, whole_number
from edge.errors import DataError, UsageError
from edge.system.shutdown import exit_if_camera_hangs, guarded
from train import recipes
from train.network_cli import add_network_commands
from train.outputs import check_output
from train.plans import PLANS, Cycle, find_plan
from train.precision import assignments_here
from train.progress import Progress, print_line
from train.recipes import RECIPES, Recipe, customize, find_recipe
from train.startup import start_tensorflow

if TYPE_CHECKING:  # it loads TensorFlow
    from train.run import Run

_DESCRIPTION = "Train expression networks on a workstation, and measure them."
_EXAMPLES = """examples:
  fer-train run student-small --data fer2013.csv --votes fer2013new.csv --weights student
  fer-train run paper --data fer2013.csv.xz --out runs/paper
  fer-train run student-small --data fer2013.csv --data my-faces --weights student-small --set learning_rate=1e-4
  fer-train run shallow --data fer2013.csv --set epochs=2 --set optimizer=sgd --out /tmp/trial
  fer-train build student --data fer2013.csv --votes fer2013new.csv --weights package/models/faceres.json
  fer-train evaluate runs/paper --data fer2013.csv
  fer-train evaluate runs/co-teacher runs/paper --data fer2013.csv --tta 2      an ensemble, with mirror images
  fer-train predict runs/paper --data test.csv --out predictions.csv
  fer-train classify runs/vgg16 portrait.jpg holiday --tta 2           the faces in pictures
  fer-train watch runs/vgg16 --source /dev/video0                      as `fer-edge run` does
  fer-train average runs/degraded runs/clean --data fer2013.csv --out runs/mean
  fer-train bank runs/co-teacher --data fer2013.csv --out co-teacher.npz

The data is FER2013 as a CSV (plain, .gz, .xz, .zip, .tar.gz) or a tree of pictures: see docs/data.md. The same command
continues an interrupted run. To make a bundle for a device of a run: fer-export bundle RUN --data fer2013.csv --out DIR
"""
_AVERAGE_DESCRIPTION = """\
Write a run whose weights are the mean of those of several networks. Average only networks that were fine-tuned from
the same weights: their mean is often more accurate than each of them. The mean of a run on degraded pictures and of
one on clean pictures keeps most of the strengths of both. The statistics of the batch norms are measured again, on
unchanged training faces. With a single run nothing else changes. Prints the accuracy of the mean."""

_BUILD_DESCRIPTION = """\
Make a bundled model from published weights: train one run after the other, each from the weights of one before, and
take the mean of their weights. Takes hours, which it tells. The same command goes on where it was interrupted. It keeps
finished runs, also those of another plan in the same folder. Teachers are the view banks that come with a checkout."""

_TWINS_DESCRIPTION = """\
List the pictures of a CSV that show the same photograph, by their rows: within Training, and between Training and the
measured split. They are moved by up to four pixels, mirrored, or compressed again. The list of FER2013 comes with the
program, and `fer-train run` leaves the twins of PublicTest out of Training. Takes ten minutes to an hour."""


def main() -> int:
    """Run the command of ``sys.argv``; returns the exit code."""
    exit_code = guarded("fer-train", lambda: _main(sys.argv[1:]))
    exit_if_camera_hangs(exit_code)
    return exit_code


def _main(argv: list[str]) -> int:
    arguments = _parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = arguments.command
    return command(arguments)


def _models(_arguments: argparse.Namespace) -> int:
    start_tensorflow()
    from train.models.registry import MODELS, macs  # noqa: PLC0415  loads TensorFlow, which takes seconds; --help must not

    print(f"{'model':18}{'parameters':>12}{'trainable':>12}{'MMAC':>8}  source")
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
        changed = (f"{key}={value}" for key, value in values.items() if key != "name" and value != defaults[key])
        print(f"{recipe.name:18}{' '.join(changed)}")
    print(f"{'defaults':18}{' '.join(f'{k}={v}' for k, v in defaults.items() if v is not dataclasses.MISSING)}")
    return 0


def _run(arguments: argparse.Namespace) -> int:
    start_tensorflow()
    recipe = find_recipe(arguments.recipe)
    folder = arguments.out or Path("runs") / recipe.name
    recipe = customize(recipe, assignments_here([recipe], arguments.set, [folder]))
    from train.distributed import Workers  # noqa: PLC0415
    from train.run import RunInputs  # noqa: PLC0415  as above
    from train.training import train_recipe  # noqa: PLC0415  as above

    inputs = RunInputs(arguments.data, arguments.weights, arguments.votes, arguments.skip_bad)
    run = train_recipe(recipe, inputs, folder, Workers(arguments.strategy))
    print(_outcome(folder, run))
    return 0


def _outcome(folder: Path, run: "Run") -> str:
    """What a finished run has reached, and whether it was worth it."""
    assert run.best is not None
    reached = (
        f"{folder}: epoch {run.best.epoch + 1}, chosen by {run.measured}: accuracy {run.best.accuracy:.2%}, "
        f"macro-F1 {run.best.macro_f1:.2%} (Keras float32, single crop); see {folder / 'report.html'}"
    )
    if run.start is None or run.best.accuracy > run.start:
        return reached
    return (
        f"{reached}\nNo epoch is more accurate than the weights that it began with ({run.start:.2%}). After few steps "
        f"the cause may be the batch norms: `fer-train average {folder} --data ...` measures them anew. Else keep "
        "those weights, or give a lower --set learning_rate."
    )


def _build(arguments: argparse.Namespace) -> int:
    plan = find_plan(arguments.plan)
    start_tensorflow()
    from train.build import Build  # noqa: PLC0415  TensorFlow; so is the next
    from train.run import RunInputs  # noqa: PLC0415

    inputs = RunInputs(arguments.data, arguments.weights, arguments.votes, arguments.skip_bad)
    cycles = [run for run in plan.runs if isinstance(run, Cycle)]
    folders = [arguments.out / cycle.name for cycle in cycles]
    assignments = assignments_here([cycle.recipe for cycle in cycles], arguments.set, folders)
    build = Build(plan, inputs, assignments, arguments.out)
    if arguments.dry_run:
        build.check()
        print("\n".join(build.describe()))
        return 0
    figures = build.run()
    if figures:
        print(
            f"{build.result}: accuracy {figures.accuracy:.2%}, macro-F1 {figures.macro_f1:.2%} (Keras float32, single "
            "crop)"
        )
    else:
        print(f"{build.result}: finished before; `fer-train evaluate` measures it")
    print(f"next: {build.next_command}")
    return 0


def _average(arguments: argparse.Namespace) -> int:
    start_tensorflow()
    from train.average import average_networks  # noqa: PLC0415  TensorFlow

    run, figures = average_networks(arguments.members, arguments.shares, arguments.data, arguments.out)
    print(
        f"{arguments.out}: {run.recipe.model}, accuracy {figures.accuracy:.2%} on {run.measured}, macro-F1 "
        f"{figures.macro_f1:.2%} (Keras float32, single crop)"
    )
    return 0


def _twins(arguments: argparse.Namespace) -> int:
    from edge.evaluation.fer2013 import MEASURED, Split  # noqa: PLC0415  OpenCV
    from train.data.dataset import read_cached  # noqa: PLC0415
    from train.data.twin_search import search_twins  # noqa: PLC0415
    from train.data.twins import write_list  # noqa: PLC0415

    check_output(arguments.out, arguments.data)
    data = read_cached(arguments.data)
    if data.bad:
        raise DataError(f"{arguments.data}, {data.bad[0]}; {len(data.bad):,} of its rows cannot be used. Mend it")
    training = data.faces(Split.TRAINING)
    measured = data.faces(next((split for split in MEASURED if split in data.splits), Split.PUBLIC))
    if training.rows is None or measured.rows is None:
        raise UsageError(f"{arguments.data}: twins are listed by the rows of a CSV, and a tree of pictures has no rows")
    progress = Progress("twins", 1, 1000)
    report = search_twins(training, measured, lambda share: progress.show(0, round(1000 * share)))
    write_list(arguments.out, training.sha256(), report.pairs)
    print_line(f"{arguments.out}: {len(report.pairs):,} pairs of rows")
    print(report)
    return 0


def _bank(arguments: argparse.Namespace) -> int:
    start_tensorflow()
    from train.evaluation.predictors import make_teacher_bank  # noqa: PLC0415  TensorFlow

    check_output(arguments.out, *arguments.data)
    bank = make_teacher_bank(arguments.teacher, arguments.data, arguments.views, arguments.seed)
    bank.save(arguments.out)
    print(
        f"{arguments.out}: {len(bank.logits)} views of {bank.logits.shape[1]} faces; int8 logits, step {bank.scale:.3f}"
    )
    return 0


def _judge(arguments: argparse.Namespace) -> int:
    start_tensorflow()
    from train.judge import train_judge  # noqa: PLC0415  as above

    recall = train_judge(arguments.data, arguments.out, arguments.samples, arguments.epochs, arguments.seed)
    print(f"{arguments.out}: sees {recall:.1%} of drawn faces when it takes one other patch in 1000 for a face")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "fer-train", description=_DESCRIPTION, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action=Version)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    data = argparse.ArgumentParser(add_help=False)
    data.add_argument(
        "--data",
        type=Path,
        required=True,
        action="append",
        metavar="PATH",
        help="FER2013: its CSV (also compressed), or a tree of pictures. Several --data are joined: accuracy is "
        "measured on the test split of the first, and a tree without splits that follows it is for training",
    )
    _add_run(commands, data)
    _add_build(commands, data)
    _add_average(commands, data)
    add_network_commands(commands)
    _add_bank(commands, data)
    _add_twins(commands)
    _add_judge(commands)
    commands.add_parser("models", help="list the networks: parameters, multiply-accumulates, source").set_defaults(
        command=_models
    )
    commands.add_parser("recipes", help="list the recipes: hours, accuracy, settings").set_defaults(command=_recipes)
    return parser


def _add_run(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", data: argparse.ArgumentParser) -> None:
    run = commands.add_parser(
        "run",
        help="train a network by a recipe",
        description="Train a network by a recipe. The same command continues an interrupted run.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[data],
    )
    run.set_defaults(command=_run)
    run.add_argument("recipe", help=f"one of: {', '.join(RECIPES)}")
    run.add_argument("--out", type=Path, metavar="DIR", help="run folder (default: runs/RECIPE)")
    run.add_argument(
        "--weights",
        default="none",
        metavar="imagenet|vggface|none|PATH",
        help="initial weights: published ones, an earlier run, or a bundle (default: %(default)s, random weights). "
        "docs/models.md lists which weights each network can start from",
    )
    _add_changes(run, "the recipe")
    run.add_argument(
        "--strategy",
        choices=["single", "mirrored", "multiworker"],
        default="single",
        help="train in one process, on all GPUs of this machine, or on the machines that TF_CONFIG names "
        "(default: %(default)s)",
    )


def _add_changes(parser: argparse.ArgumentParser, recipe: str) -> None:
    """Add the options that training has besides data and weights."""
    parser.add_argument(
        "--votes", type=Path, metavar="CSV", help="the FERPlus file fer2013new.csv, for recipes whose `votes` is not 0"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help=f"change one value of {recipe}; may be repeated",
    )
    parser.add_argument(
        "--skip-bad", action="store_true", help="list unusable rows and train without them, instead of stopping"
    )


def _add_build(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", data: argparse.ArgumentParser) -> None:
    build = commands.add_parser(
        "build",
        help="make a bundled model from published weights, by a chain of runs",
        description=_BUILD_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[data],
    )
    build.set_defaults(command=_build)
    hours = ", ".join(f"{plan.name} ({plan.hours:.1f} hours on two AVX-512 cores)" for plan in PLANS.values())
    build.add_argument("plan", metavar="MODEL", help=f"one of: {hours}")
    build.add_argument(
        "--weights",
        required=True,
        metavar="PATH|none",
        help="the published weights that the first run starts from, package/models/faceres.json; none: random ones. "
        "docs/models.md says where to get them",
    )
    build.add_argument(
        "--out",
        type=Path,
        default=Path("runs/build"),
        metavar="DIR",
        help="folder for all runs of the plan (default: %(default)s)",
    )
    _add_changes(build, "every recipe of the plan")
    build.add_argument(
        "--dry-run", action="store_true", help="check everything, and print the single commands instead of training"
    )


def _add_average(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", data: argparse.ArgumentParser
) -> None:
    average = commands.add_parser(
        "average",
        help="average the weights of networks fine-tuned from the same weights",
        description=_AVERAGE_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[data],
    )
    average.set_defaults(command=_average)
    average.add_argument(
        "members",
        nargs="+",
        metavar="RUN|BUNDLE",
        help="a run folder, or a bundle's folder or name; all of the same network, and at least one a run",
    )
    average.add_argument(
        "--shares",
        type=_shares,
        default=(),
        metavar="S,S",
        help="the weight of each network in the mean, such as 0.7,0.3; they add up to 1 (default: all the same)",
    )
    average.add_argument("--out", type=Path, required=True, metavar="DIR", help="the run folder to write; new")


def _shares(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError("must be numbers with commas between them, such as 0.7,0.3") from error


def _add_twins(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    summary = "list the pictures of FER2013's CSV that show the same photograph"
    twins = commands.add_parser("twins", help=summary, description=_TWINS_DESCRIPTION)
    twins.set_defaults(command=_twins)
    twins.add_argument("--data", type=Path, required=True, action=Once, metavar="CSV", help="FER2013's CSV")
    twins.add_argument("--out", type=Path, required=True, metavar="CSV", help="the list to write")


def _add_bank(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", data: argparse.ArgumentParser) -> None:
    summary = "save a teacher's predictions for augmented training faces (a view bank), for distillation"
    bank = commands.add_parser("bank", help=summary, description=f"{summary.capitalize()}.", parents=[data])
    bank.set_defaults(command=_bank)
    bank.add_argument(
        "teacher", type=network_path, metavar="RUN|BUNDLE", help="a run folder, or a bundle's folder or name"
    )
    bank.add_argument("--out", type=Path, required=True, metavar="FILE", help="the .npz file to write")
    bank.add_argument(
        "--views",
        type=whole_number(1, 1000),
        default=8,
        metavar="K",
        help="augmented views per face (default: %(default)s)",
    )
    bank.add_argument(
        "--seed",
        type=whole_number(0),
        default=1,
        help="random seed of the views; teachers that one recipe averages need the same (default: %(default)s)",
    )


def _add_judge(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    summary = "train the small network that decides whether what the cascade proposes is a face"
    judge = commands.add_parser("judge", help=summary, description=f"{summary.capitalize()}.")
    judge.set_defaults(command=_judge)
    judge.add_argument("--data", type=Path, required=True, action=Once, metavar="PATH", help="FER2013, in any form")
    judge.add_argument("--out", type=Path, required=True, metavar="FILE", help="the .npz file to write")
    judge.add_argument(
        "--samples", type=whole_number(10), default=120_000, metavar="N", help="patches on faces (default: %(default)s)"
    )
    judge.add_argument("--epochs", type=whole_number(1), default=10, metavar="N", help="(default: %(default)s)")
    judge.add_argument("--seed", type=whole_number(0), default=1, help="random seed (default: %(default)s)")
