"""The console script ``fer-train``."""

from edge.cli.entry import launch


def main() -> int:
    """Entry point of the ``fer-train`` console script; returns the exit code."""
    return launch("train.cli")
