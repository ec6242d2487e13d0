"""The console script ``fer-export``."""

from edge.cli.entry import launch


def main() -> int:
    """Entry point of the ``fer-export`` console script; returns the exit code."""
    return launch("export.cli")
