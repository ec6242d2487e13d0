"""Kinds of command-line arguments that several programs share."""

import argparse
import os
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any


def whole_number(least: int, most: int = 2**32 - 1) -> Callable[[str], int]:
    """The type of an argument that is a whole number from ``least`` to ``most``, by default the largest seed."""

    def convert(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"{text!r}: give a whole number from {least} to {most}")
        return number

    return convert


def network_path(text: str) -> Path:
    """The type of an argument that is a path or the name of a bundled model.

    A Path forgets the slash of ``./student``, which tells a folder from a name (edge.model.bundle.find_bundle).
    """
    path = Path(text)
    return path.absolute() if os.sep in text and len(path.parts) == 1 else path


def not_empty(text: str) -> str:
    """The type of an argument that is a name. An empty one is mostly a variable that a script has not set."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty: give a name, or leave out the option")
    return text


class Once(argparse.Action):
    """Store one value, and refuse a second one, which argparse would take instead of the first without a word."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option: str | None = None,
    ) -> None:
        """Store ``values``; end the program with exit code 2 when there is a value already."""
        if getattr(namespace, self.dest) is not None:
            parser.error(f"{option}: give it once")
        setattr(namespace, self.dest, values)


class Version(argparse.Action):
    """``--version``: print which version of fer-edge is installed, whichever of its programs is asked, and exit."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="print the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Print it; the program ends with exit code 0."""
        print(f"{parser.prog} {metadata.version('fer-edge')}")
        parser.exit()
