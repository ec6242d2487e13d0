"""Kinds of command-line arguments that several programs share."""

import argparse
from collections.abc import Sequence
from typing import Any


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
