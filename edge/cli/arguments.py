"""Kinds of command-line arguments that several programs share."""

import argparse
from collections.abc import Callable, Sequence
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
