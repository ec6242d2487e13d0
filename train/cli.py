"""``fer-train``: train the networks on a workstation."""

import argparse
import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

from edge.ending import guarded
from edge.errors import UsageError
from train.recipes import RECIPES, Recipe

_EXAMPLES = """examples:
  fer-train run student-small --data fer2013.csv
  fer-train run student --data fer2013.csv.xz --weights package/models/faceres.json --out runs/student
  fer-train run student-small --data fer2013.csv --set epochs=2 --out /tmp/trial

The data is FER2013's CSV as Kaggle ships it, plain or .gz, .xz, .zip. A run that was interrupted is continued by the
same command. Its result is turned into a deployable bundle by: fer-export bundle RUN --out DIR
"""


def main() -> int:
    """Entry point of the ``fer-train`` console script."""
    return guarded("fer-train", lambda: _main(sys.argv[1:]))


def _main(argv: list[str]) -> int:
    arguments = _parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = arguments.command
    return command(arguments)


def _models(_arguments: argparse.Namespace) -> int:
    from train.models import MODELS, macs  # noqa: PLC0415  TensorFlow takes seconds to load; --help must not

    print(f"{'model':16}{'parameters':>12}{'trainable':>12}{'MMAC':>8}  what")
    for architecture in MODELS.values():
        model = architecture.build(0.0)
        trainable = sum(weight.shape.num_elements() for weight in model.trainable_weights)
        print(
            f"{architecture.name:16}{model.count_params():>12,}{trainable:>12,}{macs(model) / 1e6:>8.1f}  "
            f"{architecture.source}"
        )
    return 0


def _recipes(_arguments: argparse.Namespace) -> int:
    defaults = {field.name: field.default for field in dataclasses.fields(Recipe)}
    for recipe in RECIPES.values():
        values = dataclasses.asdict(recipe)
        told = (f"{key}={value}" for key, value in values.items() if key != "name" and value != defaults[key])
        print(f"{recipe.name:16}{' '.join(told)}")
    print(f"{'otherwise':16}{' '.join(f'{k}={v}' for k, v in defaults.items() if v is not dataclasses.MISSING)}")
    return 0


def _run(arguments: argparse.Namespace) -> int:
    recipe = customize(RECIPES[arguments.recipe], arguments.set)
    folder = arguments.out or Path("runs") / recipe.name
    from train.run import execute  # noqa: PLC0415  as above

    run = execute(recipe, arguments.data, folder, arguments.weights, arguments.votes)
    assert run.best is not None
    print(
        f"{folder}: epoch {run.best.epoch + 1}, chosen by PublicTest: accuracy {run.best.accuracy:.2%}, "
        f"macro-F1 {run.best.macro_f1:.2%} (Keras float32, single crop)"
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "fer-train", description=__doc__, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run", help="train one recipe", epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    run.set_defaults(command=_run)
    run.add_argument("recipe", choices=sorted(RECIPES), help="what to train")
    run.add_argument(
        "--data", type=Path, required=True, metavar="PATH", help="FER2013 CSV with Training and PublicTest"
    )
    run.add_argument("--out", type=Path, metavar="DIR", help="run folder (default: runs/RECIPE)")
    run.add_argument(
        "--weights",
        default="none",
        metavar="imagenet|vggface|none|PATH",
        help="start from published weights (docs/models.md); default: none, random weights",
    )
    run.add_argument(
        "--votes", type=Path, metavar="CSV", help="FERPlus votes, fer2013new.csv, for recipes that learn from them"
    )
    run.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change one value of the recipe")
    commands.add_parser("models", help="list the networks with their size and source").set_defaults(command=_models)
    commands.add_parser("recipes", help="list the recipes").set_defaults(command=_recipes)
    return parser


def customize(recipe: Recipe, assignments: list[str]) -> Recipe:
    """Apply ``key=value`` assignments to a recipe, each value read as the key's own type."""
    changes: dict[str, object] = {}
    types = {f.name: type(getattr(recipe, f.name)) for f in dataclasses.fields(recipe) if f.name != "name"}
    for assignment in assignments:
        key, _, value = assignment.partition("=")
        if key not in types:
            raise UsageError(f"--set {assignment}: a recipe's keys are {', '.join(types)}")
        try:
            changes[key] = types[key](value)
        except ValueError as error:
            raise UsageError(f"--set {assignment}: {key} takes a value of type {types[key].__name__}") from error
    return dataclasses.replace(recipe, **changes)  # type: ignore[arg-type]
