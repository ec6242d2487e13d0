"""``fer-export``: turn a training run into a deployable bundle."""

import argparse
import sys
from pathlib import Path

from edge.ending import guarded

_EXAMPLES = """examples:
  fer-export bundle runs/student-small --data fer2013.csv --out student-small
  fer-edge verify --data fer2013.csv --config my.toml      with [model] bundle = "student-small" in my.toml
"""


def main() -> int:
    """Entry point of the ``fer-export`` console script."""
    return guarded("fer-export", lambda: _main(sys.argv[1:]))


def _main(argv: list[str]) -> int:
    arguments = _parser().parse_args(argv)
    from export.bundle import make_bundle  # noqa: PLC0415  TensorFlow takes seconds to load; --help must not

    card = make_bundle(arguments.run, arguments.data, arguments.out)
    floats = card.origin.float_figures
    print(
        f"{arguments.out}: {card.name}, int8 {card.figures.accuracy:.2%} on {card.figures.split} "
        f"(float {floats.accuracy:.2%}), {card.parameters:,} parameters, {card.macs / 1e6:.1f} MMAC"
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "fer-export", description=__doc__, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    bundle = commands.add_parser(
        "bundle",
        help="quantize a run and write its bundle",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    bundle.add_argument("run", type=Path, metavar="RUN", help="a run folder of fer-train")
    bundle.add_argument("--data", type=Path, required=True, metavar="PATH", help="the FER2013 CSV that the run saw")
    bundle.add_argument("--out", type=Path, required=True, metavar="DIR", help="the bundle's folder, new or empty")
    return parser
